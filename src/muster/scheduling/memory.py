"""What passes leave for those after them, so that a pass costs what changed since the last one.

Nothing here is an answer that may have become wrong: a room follows its nodes, and what is kept of a gang follows from the gang
and the fleet alone. A gang that changed is another object; a fleet that changed begins everything anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muster.scheduling.census import Census
from muster.scheduling.decisions import Reason, Wait
from muster.scheduling.places import Places
from muster.scheduling.placing.demand import Demand
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.placement import fewest_gpus, form, place
from muster.scheduling.placing.room import Room
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.profile import Profile
from muster.scheduling.prospects import Prospects
from muster.scheduling.snapshot import Gang, Node
from muster.scheduling.speed.rates import Rates
from muster.scheduling.standing import Standings
from muster.scheduling.topology.fleet import Fleet


@dataclass(slots=True)
class Known:
    """What follows of a gang that waits and of the fleet."""

    gang: Gang
    gpus: int
    fewest: int
    """The GPUs of the smallest size in which it can start."""
    eligible: tuple[str, ...]
    """The nodes that it may use."""
    hopeless: str | None
    """What it would lack even if nobody else ran."""
    _wait: Wait | None = None
    _ahead: Gang | None = None

    def behind(self, ahead: Gang) -> Wait:
        """Say that the gang comes after another."""
        if self._wait is None or self._ahead is not ahead:
            message = f"needs {self.gpus} GPUs; comes after {ahead.name}, which waits for GPUs"
            self._wait, self._ahead = Wait(self.gang, Reason.BEHIND_IN_QUEUE, message), ahead
        return self._wait


class Memory:
    """The room, and what is known of the gangs that waited in the last pass."""

    def __init__(self) -> None:
        self._room: Room | None = None
        self._known: dict[int, Known] = {}
        """By identity, of gangs of the census."""
        self._rates: tuple[Mapping[str, Profile], Fleet, Rates] | None = None
        self._prospects: tuple[Sequence[float], Prospects] | None = None
        self._places = Places()
        self._demand = Demand()
        self.census = Census()
        self.standings = Standings()

    def follow(self, gangs: Sequence[Gang]) -> Census:
        """Return the census of these gangs; the one returned last becomes this one."""
        came, gone = self.census.follow(gangs)
        self._demand.follow(came, gone)
        self._places.follow(came, gone)
        for gang in gone:
            self._known.pop(id(gang), None)
        return self.census

    def room(self, nodes: Mapping[str, Node]) -> Room:
        """Return the room of these nodes, made anew only where they changed; the one returned last becomes this one."""
        changed = self._room.fleet.changed(nodes) if self._room else None
        if self._room is None or changed is None:
            self._room, self._known = Room(nodes), {}
        else:
            self._room.follow(nodes, changed)
        self._places.touch(nodes if changed is None else changed)
        return self._room

    def rates(self, profiles: Mapping[str, Profile], room: Room) -> Rates:
        """Return what to expect of these profiles, made anew only where they or the machines changed."""
        if self._rates is None or self._rates[0] is not profiles or self._rates[1] is not room.fleet:
            self._rates = profiles, room.fleet, Rates(profiles, room.nodes)
        return self._rates[2]

    def prospects(self, ended: Sequence[float]) -> Prospects:
        """Return what gangs promise where others ended after so long, made anew only where another ended."""
        if self._prospects is None or self._prospects[0] is not ended:
            self._prospects = ended, Prospects(ended)
        return self._prospects[1]

    def places(self, nodes: Mapping[str, Node]) -> Places:
        """Return who of the census has a place where on these nodes; the places returned last become these."""
        self._places.settle(nodes)
        return self._places

    def fragmentation(self, room: Room) -> Fragmentation | None:
        """Return how much of a node's GPUs tasks like those of the census leave unused, worked out for each mix once."""
        return self._demand.fragmentation(room.fleet)

    def known(self, gang: Gang, room: Room) -> Known:
        """Return what follows of a gang of the census."""
        found = self._known.get(id(gang))
        if found is None:
            found = Known(gang, gang.gpus, fewest_gpus(gang), room.eligible(gang.tasks), _hopeless(gang, room))
            self._known[id(gang)] = found
        return found


def _hopeless(gang: Gang, room: Room) -> str | None:
    """What the gang would lack if nobody else ran; asked once for gangs of the same shape."""
    key, hopeless = form(gang), room.fleet.hopeless
    if key not in hopeless:
        found = place(gang, Room(room.fleet.empty, room.fleet))
        hopeless[key] = f"{found.message}, with nobody else running" if isinstance(found, Shortage) else None
    return hopeless[key]
