"""What passes leave for those after them, so that a pass costs what changed since the last one.

Nothing here is an answer that may have become wrong: a room follows its nodes, and what is kept of a gang follows from the gang
and the fleet alone. A gang that changed is another object; a fleet that changed begins everything anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muster.scheduling.decisions import Reason, Wait
from muster.scheduling.gang import Gang
from muster.scheduling.gang_index import GangIndex
from muster.scheduling.places import Places
from muster.scheduling.placing.demand import Demand
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import fewest_gpus, fit_key, place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.profile import Profile
from muster.scheduling.speed.rates import Rates
from muster.scheduling.time_sharing.gittins import GittinsIndex
from muster.scheduling.time_sharing.rank import Ranks
from muster.scheduling.topology.fleet import Fleet
from muster.scheduling.topology.node import Node


@dataclass(slots=True)
class GangFacts:
    """What follows of a gang that waits and of the fleet."""

    gang: Gang
    gpus: int
    fewest: int
    """The GPUs of the smallest size in which it can start."""
    eligible: tuple[str, ...]
    """The nodes that it may use."""
    infeasible: str | None
    """What it would lack even if nobody else ran."""
    _wait: Wait | None = None
    _ahead: Gang | None = None

    def behind(self, ahead: Gang) -> Wait:
        """Say that the gang comes after another."""
        if self._wait is None or self._ahead is not ahead:
            message = f"needs {self.gpus} GPUs; comes after {ahead.name}, which waits for GPUs"
            self._wait, self._ahead = Wait(self.gang, Reason.BEHIND_IN_QUEUE, message), ahead
        return self._wait


class PlannerCache:
    """The room, and what is known of the gangs that waited in the last pass."""

    def __init__(self) -> None:
        self._room: FreeCapacity | None = None
        self._known: dict[int, GangFacts] = {}
        """By identity, of gangs of the census."""
        self._rates: tuple[Mapping[str, Profile], Fleet, Rates] | None = None
        self._gittins_index: tuple[Sequence[float], GittinsIndex] | None = None
        self._places = Places()
        self._demand = Demand()
        self.gang_index = GangIndex()
        self.ranks = Ranks()

    def follow(self, gangs: Sequence[Gang]) -> GangIndex:
        """Return the census of these gangs; the one returned last becomes this one."""
        came, gone = self.gang_index.follow(gangs)
        self._demand.follow(came, gone)
        self._places.follow(came, gone)
        for gang in gone:
            self._known.pop(id(gang), None)
        return self.gang_index

    def capacity(self, nodes: Mapping[str, Node]) -> FreeCapacity:
        """Return the room of these nodes, made anew only where they changed; the one returned last becomes this one."""
        changed = self._room.fleet.changed(nodes) if self._room else None
        if self._room is None or changed is None:
            self._room, self._known = FreeCapacity(nodes), {}
        else:
            self._room.follow(nodes, changed)
        self._places.touch(nodes if changed is None else changed)
        return self._room

    def rates(self, profiles: Mapping[str, Profile], capacity: FreeCapacity) -> Rates:
        """Return what to expect of these profiles, made anew only where they or the machines changed."""
        if self._rates is None or self._rates[0] is not profiles or self._rates[1] is not capacity.fleet:
            self._rates = profiles, capacity.fleet, Rates(profiles, capacity.nodes)
        return self._rates[2]

    def gittins_index(self, ended: Sequence[float]) -> GittinsIndex:
        """Return what gangs promise where others ended after so long, made anew only where another ended."""
        if self._gittins_index is None or self._gittins_index[0] is not ended:
            self._gittins_index = ended, GittinsIndex(ended)
        return self._gittins_index[1]

    def places(self, nodes: Mapping[str, Node]) -> Places:
        """Return who of the census has a place where on these nodes; the places returned last become these."""
        self._places.settle(nodes)
        return self._places

    def fragmentation(self, capacity: FreeCapacity) -> Fragmentation | None:
        """Return how much of a node's GPUs tasks like those of the census leave unused, worked out for each mix once."""
        return self._demand.fragmentation(capacity.fleet)

    def known(self, gang: Gang, capacity: FreeCapacity) -> GangFacts:
        """Return what follows of a gang of the census."""
        found = self._known.get(id(gang))
        if found is None:
            found = GangFacts(gang, gang.gpus, fewest_gpus(gang), capacity.eligible(gang.tasks), _infeasible(gang, capacity))
            self._known[id(gang)] = found
        return found


def _infeasible(gang: Gang, capacity: FreeCapacity) -> str | None:
    """What the gang would lack if nobody else ran; asked once for gangs of the same shape."""
    key, infeasible = fit_key(gang), capacity.fleet.infeasible
    if key not in infeasible:
        found = place(gang, FreeCapacity(capacity.fleet.empty, capacity.fleet))
        infeasible[key] = f"{found.message}, with nobody else running" if isinstance(found, Shortage) else None
    return infeasible[key]
