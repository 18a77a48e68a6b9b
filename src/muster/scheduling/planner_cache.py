"""The planner cache: what passes leave for those after them, so that a pass costs what changed since the last one.

Nothing here is an answer that may have become wrong: everything follows from gangs, fleet and profiles, and is dropped when
these change. The gain of each part is told where it stands: median CPU ms of a pass over 5,000 nodes and 10,000 queued gangs
(exclusive; time-sharing), or of an introspective pass over 5,000 running ones.

    fleet    22; 55   without: 139; 168    which nodes a gang may use, what an empty cluster would hold
    index    22; 55   without: 84; 121     which gangs wait, run, share, and where
    capacity 39       without: 48          what is free (on a slower machine; no gain for time-sharing passes)
    facts    22; 55   without: 48; 81      what follows of a waiting gang and of the fleet
    ranks    55       without: 114         how long gangs ran or waited, as their ranks count it
    rates    79       without: 190         what to expect of placements, where profiles are measured
    settled  102      without: 226         that there was nothing to rebalance
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from muster.scheduling.counting import counted
from muster.scheduling.decisions import Reason, Wait
from muster.scheduling.gang import Gang
from muster.scheduling.gang_index import Changes, GangIndex
from muster.scheduling.naming import named
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find, fit_key
from muster.scheduling.placing.shortage import shortage
from muster.scheduling.profile import Profile
from muster.scheduling.residents import Residents
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.speed.rates import Rates
from muster.scheduling.topology.fleet import Demands, Fleet
from muster.scheduling.topology.node import Node

T = TypeVar("T")

MayUse = tuple[Demands, frozenset[str]]
"""Demands, and the nodes that refused the gang. Gangs for which both are equal may use the same nodes."""


@dataclass(slots=True)
class GangFacts:
    """What follows of a waiting gang and of the fleet."""

    gang: Gang
    gpus: int
    fewest: int
    """The GPUs of the smallest size in which it can start."""
    may_use: MayUse
    eligible: tuple[str, ...]
    """The nodes that it may use."""
    infeasible: str | None
    """What it would lack even if nobody else ran."""
    alike: int
    """The same number for gangs of one queue that may start and that may use the same nodes; 0 for one that cannot start."""
    _behind: Wait | None = None
    _ahead: str = ""

    def behind(self, ahead: Gang) -> Wait:
        """Say that the gang comes after another."""
        if self._behind is None or self._ahead != ahead.name:
            message = (
                f"needs {counted(self.gpus, 'GPU')}; comes after {named(ahead, self.gang.namespace)}, which waits for GPUs"
            )
            self._behind, self._ahead = Wait(self.gang, Reason.BEHIND_IN_QUEUE, message), ahead.name
        return self._behind


class PlannerCache:
    """One for each planner; `follow` brings it to a snapshot."""

    def __init__(self) -> None:
        self.index = GangIndex()
        self.residents = Residents()
        self.changes = Changes()
        """What the last snapshot changed."""
        self.capacity = FreeCapacity({})
        self._empty: FreeCapacity | None = None
        """The empty cluster, once it has been asked for."""
        self._facts: dict[str, GangFacts] = {}
        self._alike: dict[object, int] = {}
        self._profiles: Mapping[str, Profile] = {}
        self._rates: Rates | None = None
        self._kept: dict[object, Any] = {}
        self.settled = False
        """Whether a search for better placements found nothing, and nothing changed since."""

    def follow(self, snapshot: Snapshot) -> None:
        """Drop what the snapshot makes wrong."""
        self.changes = self.index.follow(snapshot.gangs)
        for gang in self.changes.gone:
            self._facts.pop(gang.name, None)
        self.residents.follow(snapshot.bystanders, snapshot.unusable, self.changes.gone, self.changes.came)
        changed = self._fleet.follow(snapshot.nodes, snapshot.unusable)
        if changed is None:
            fleet = Fleet(snapshot.nodes, snapshot.unusable)
            self.capacity = FreeCapacity(snapshot.nodes, fleet, self.residents)
            self._empty, self._facts, self._alike, self._rates = None, {}, {}, None
        else:
            self.capacity.follow(snapshot.nodes, changed)
        if self._profiles is not snapshot.profiles and self._profiles != snapshot.profiles:
            self._profiles, self._rates = snapshot.profiles, None
        if changed or self._rates is None or self.changes.came or self.changes.gone:
            self.settled = False

    @property
    def _fleet(self) -> Fleet:
        return self.capacity.fleet

    def rates(self, profiles: Mapping[str, Profile], nodes: Mapping[str, Node]) -> Rates:
        """Return what to expect of placements on these nodes by these profiles."""
        if self._rates is None:
            self._rates = Rates(profiles, nodes)
        return self._rates

    def kept(self, make: Callable[[], T]) -> T:
        """Return what `make` made when it was first asked for: for what a policy keeps from pass to pass."""
        if make not in self._kept:
            self._kept[make] = make()
        kept: T = self._kept[make]
        return kept

    def facts(self, gang: Gang) -> GangFacts:
        """Return what follows of the fleet and of a waiting gang."""
        facts = self._facts.get(gang.name)
        if facts is None:
            demands = Fleet.demands(gang.tasks)
            may_use, infeasible = (demands, frozenset(gang.refused)), self._infeasible(gang)
            alike = 0 if infeasible or gang.absent or gang.missing or gang.unplannable else self._number(may_use, gang)
            facts = GangFacts(gang, gang.gpus, gang.fewest_gpus, may_use, self._eligible(*may_use), infeasible, alike)
            self._facts[gang.name] = facts
        return facts

    def _eligible(self, demands: Demands, refused: Collection[str]) -> tuple[str, ...]:
        eligible = self._fleet.eligible[demands]
        return tuple(name for name in eligible if name not in refused) if refused else eligible

    def _number(self, may_use: MayUse, gang: Gang) -> int:
        return self._alike.setdefault((may_use, gang.queue, gang.namespace), len(self._alike) + 1)

    def _infeasible(self, gang: Gang) -> str | None:
        """What the gang would lack if nobody else ran; worked out once for gangs that fit alike."""
        key = fit_key(gang)
        infeasible = self._fleet.infeasible
        if key not in infeasible:
            if self._empty is None:
                self._empty = FreeCapacity(self._fleet.empty, self._fleet)
            infeasible[key] = None if find(gang, self._empty) else shortage(gang, self._empty, (), alone=True)
        return infeasible[key]
