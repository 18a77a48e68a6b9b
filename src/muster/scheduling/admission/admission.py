"""Whole-gang admission: one pass over the gangs, in turn, with the room that is left for each.

Same snapshot, same decisions: every ordering ends in a name. A gang that is placed takes its GPUs out of the room for those
after it; one that must wait keeps what it may use from those after it (see `queueing`). Gangs that want to move come first:
what they leave is not counted as free before their pods have gone, so a move never takes from anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from muster.scheduling.admission.queueing import Claims, Quotas, in_order
from muster.scheduling.decisions import Admission, Move, Place, Preempt, Reason, Resize, Wait
from muster.scheduling.gang import Gang, Placement
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.interference_avoidance import quieter
from muster.scheduling.placing.placement import describe, find, place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.planner_cache import GangFacts, PlannerCache
from muster.scheduling.settings import DEFAULTS, Policy, Settings
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.speed.occupancy import Occupancy, gpus_by_node, gpus_of
from muster.scheduling.speed.rates import Rates
from muster.scheduling.topology.links import GpuSet


def admit(
    snapshot: Snapshot,
    now: float,
    settings: Settings = DEFAULTS,
    *,
    memory: PlannerCache | None = None,
    which: Callable[[Gang], bool] | None = None,
) -> list[Admission]:
    """Decide for every gang that waits or wants to move; gangs that run and want nothing get no decision.

    Of those that wait, only for `which`. With a `memory` of earlier passes the answer is the same, and comes sooner.
    """
    memory = memory or PlannerCache()
    gang_index = memory.follow(snapshot.gangs)
    turn = _Pass(snapshot, now, settings, memory)
    moves = [turn.move(gang) for gang in in_order(gang for gang in gang_index.wishing.values() if gang.leave is not None)]
    waiting = gang_index.waiting.values() if which is None else filter(which, gang_index.waiting.values())
    due = in_order([*waiting, *(gang for gang in gang_index.wishing.values() if gang.leave is None)])
    return moves + [turn.resize(gang) if gang.placement else turn.admit(gang) for gang in due]


class _Pass:
    """One pass over the `room` that is free."""

    def __init__(self, snapshot: Snapshot, now: float, settings: Settings, memory: PlannerCache) -> None:
        self.now, self.settings, self._memory = now, settings, memory
        self.capacity = self._open = memory.capacity(snapshot.nodes)
        self._to_close: list[str] = []
        self.quotas = Quotas(snapshot.queues, snapshot.gangs)
        self.claims = Claims()
        self._profiles = snapshot.profiles
        self._placed = memory.gang_index.placed.values()
        self.running = list(self._placed)

    def admit(self, gang: Gang) -> Admission:
        """Place the gang, make room for it, or say why it waits."""
        known = self._memory.known(gang, self.capacity)
        if gang.absent or gang.not_before > self.now or known.infeasible:
            return self._cannot_start(known)
        if gang.queue in self.quotas.limited:
            return self._quota(known) or self._within_quota(known)
        keeper = self.claims.keeper(known.eligible)  # spares the search; a long queue is mostly this
        return known.behind(keeper) if keeper else self._find(gang, gang)

    def _within_quota(self, known: GangFacts) -> Admission:
        """Admit a gang in the size that its queue's quota allows."""
        gang = known.gang
        allowed = self.quotas.within(gang) or gang
        keeper = self.claims.keeper(known.eligible)
        decision = known.behind(keeper) if keeper else self._find(gang, allowed)
        if not isinstance(decision, Place):
            self.quotas.keep(gang.queue, known.gpus if allowed is gang else allowed.gpus)
        return decision

    def _find(self, gang: Gang, allowed: Gang) -> Admission:
        found = place(allowed, self.open, fragmentation=self._fragmentation, rate=self._rates.by_shape(gang))
        if isinstance(found, Shortage):
            return self._blocked(gang, found)
        if self._profiles:
            found = quieter(allowed, found, self.open, self._occupancy, self._rates)
            self._occupancy.add(replace(gang, placement=found))
        self._take(gang, found)
        return Place(gang, found, Reason.PLACED, describe(found))

    @cached_property
    def _occupancy(self) -> Occupancy:
        """Who runs where, with those who start in this pass."""
        return Occupancy(self._placed)

    @cached_property
    def _fragmentation(self) -> Fragmentation | None:
        return self._memory.fragmentation(self.capacity) if self.settings.policy is Policy.MUSTER else None

    @cached_property
    def _rates(self) -> Rates:
        return self._memory.rates(self._profiles, self.capacity)

    @property
    def open(self) -> FreeCapacity:
        """What of the room no waiting gang keeps; worked out when somebody looks, since most often nobody does."""
        if self._to_close and self._open is self.capacity:
            self._open = self.capacity.copy()
        for name in self._to_close:
            self._open.close(name)
        self._to_close = []
        return self._open

    def move(self, gang: Gang) -> Admission:
        """Find another place: beside the one it has if there is room, else over what it gives up itself."""
        away = self._left_behind(gang)
        if not any(place.node in away for place in gang.placement):
            return Wait(gang, Reason.NOT_THERE, f"does not move: it is not on {gang.leave}")
        return self._elsewhere(gang, self.capacity.without(away), self._given_up(gang, self.capacity).without(away), Move)

    def resize(self, gang: Gang) -> Admission:
        """Find a place of the new size in turn: growing must not overtake those who wait for the same GPUs."""
        return self._elsewhere(gang, self.open, self._given_up(gang, self.open), Resize)

    def _given_up(self, gang: Gang, capacity: FreeCapacity) -> FreeCapacity:
        return self._left_by([gang], capacity.copy())

    def _elsewhere(self, gang: Gang, beside: FreeCapacity, within: FreeCapacity, verb: type[Move | Resize]) -> Admission:
        found = place(gang, beside)
        if isinstance(found, Shortage) and gang.leave != "":
            found = place(gang, within)
        if isinstance(found, Shortage):
            return Wait(gang, Reason.NO_OTHER_PLACE, f"stays where it is: {found.message}")
        if not self._may_grow(gang, found):
            return Wait(gang, Reason.QUOTA_EXHAUSTED, f"stays as it is: {self.quotas.used(gang.queue)}")
        self._take(gang, found)
        self.running.remove(gang)
        reason = Reason.MIGRATED if verb is Move else Reason.RESIZED
        return verb(gang, found, reason, f"moves to {describe(found)}")

    def _take(self, gang: Gang, found: Placement) -> None:
        held = gpus_of(found) - gang.held
        self._fill(found)
        self.quotas.add(gang.queue, held)

    def _fill(self, found: Placement) -> None:
        self.capacity.take(found)
        if self._open is not self.capacity:
            self._open.take(found)

    def _cannot_start(self, known: GangFacts) -> Wait:
        """Say why the gang would not start even if nobody else ran: it is incomplete, backs off, or never fits."""
        gang = known.gang
        if gang.absent:
            message = f"has {len(gang.tasks)} of {len(gang.tasks) + gang.absent} pods; {gang.absent} not created yet"
            return Wait(gang, Reason.PODS_ABSENT, message)
        if gang.not_before > self.now:
            message = f"tries again in {gang.not_before - self.now:.0f} s"
            return Wait(gang, Reason.BACK_OFF, message, until=gang.not_before)
        return Wait(gang, Reason.NEVER_FITS, known.infeasible or "")

    def _quota(self, known: GangFacts) -> Wait | None:
        """Hold the gang at its queue's quota. It keeps the place in the cluster that it would have now."""
        gang, least = known.gang, known.fewest
        if not self.quotas.ever_allows(gang, least):
            limit = self.quotas.limit(gang.queue)
            return Wait(gang, Reason.OVER_QUOTA, f"needs {least} GPUs; queue {gang.queue} may never hold more than {limit}")
        first = self.claims.queues.get(gang.queue)
        if first:
            return Wait(gang, Reason.BEHIND_IN_QUEUE, f"comes after {first.name}, which waits for quota of {gang.queue}")
        if self.quotas.allows(gang, least):
            return None
        self.claims.claim_queue(gang)
        if not self.claims.keeper(known.eligible):
            found = place(gang, self.open)
            if isinstance(found, Shortage):
                self._keep_nodes(gang)
            else:
                self._fill(found)
        return Wait(gang, Reason.QUOTA_EXHAUSTED, f"needs {least} GPUs; {self.quotas.used(gang.queue)}")

    def _may_grow(self, gang: Gang, found: Placement) -> bool:
        more = gpus_of(found) - gang.held
        return more <= 0 or self.quotas.allows(gang, more)

    def _behind(self, known: GangFacts) -> Wait | None:
        ahead = self.claims.ahead(known.eligible)
        return known.behind(ahead) if ahead else None

    def _blocked(self, gang: Gang, shortage: Shortage) -> Admission:
        decision = self._behind(self._memory.known(gang, self.capacity)) or self._stopping(gang) or self._preempt(gang)
        self._keep_nodes(gang)
        return decision or Wait(gang, Reason.INSUFFICIENT_GPUS, shortage.message)

    def _stopping(self, gang: Gang) -> Wait | None:
        """Wait for pods that are on their way out, where that will be enough."""
        found = place(gang, self.capacity.settled())
        if isinstance(found, Shortage):
            return None
        return Wait(gang, Reason.PODS_STOPPING, f"waits for pods that are stopping; then has {describe(found)}", keeps=found)

    def _preempt(self, gang: Gang) -> Preempt | None:
        """The least that has to go: lowest priority first, of these the last to have started."""
        if Preempt not in self.settings.verbs:
            return None
        lower = [g for g in self.running if g.preemptible and g.priority < gang.priority]
        victims: list[Gang] = []
        for victim in sorted(lower, key=lambda g: (g.priority, -g.started, g.name)):
            victims.append(victim)
            if found := self._without(gang, victims):
                break
        else:
            return None
        for victim in victims[-2::-1]:
            fewer = [v for v in victims if v is not victim]
            if among := self._without(gang, fewer):
                victims, found = fewer, among
        self.running = [g for g in self.running if g not in victims]
        names = ", ".join(v.name for v in victims)
        return Preempt(gang, tuple(victims), Reason.PREEMPTING, f"takes the place of {names} (lower priority)", found)

    def _without(self, gang: Gang, victims: Sequence[Gang]) -> Placement | None:
        """Where the gang would start once these have gone."""
        return find(gang, self._left_by(victims, self.capacity.settled()))

    def _left_by(self, gone: Sequence[Gang], capacity: FreeCapacity) -> FreeCapacity:
        """The room once these gangs have gone: their GPUs are free, but those on which others have a place as well."""
        for gang in gone:
            capacity.give_back(gang.placement)
        for node in {share.node for gang in gone for share in gang.placement}:
            for name, gpus in self._sharers.get(node, ()):
                if all(gang.name != name for gang in gone):
                    capacity.set(node, capacity.free[node] & ~gpus)
        return capacity

    @cached_property
    def _sharers(self) -> dict[str, list[tuple[str, GpuSet]]]:
        """The gangs that may have a place where others have one, by node."""
        found: dict[str, list[tuple[str, GpuSet]]] = {}
        for gang in self._placed:
            if gang.sharing.slices or gang.sharing.packs:
                for node, gpus in gpus_by_node(gang.placement).items():
                    found.setdefault(node, []).append((gang.name, gpus))
        return found

    def _keep_nodes(self, gang: Gang) -> None:
        """From here on nobody behind the gang gets a GPU of a node that the gang may use."""
        names = [name for name in self.capacity.eligible(gang.tasks) if name not in self.claims.nodes]
        self.claims.claim_nodes(gang, names)
        self._to_close += names

    def _left_behind(self, gang: Gang) -> list[str]:
        if gang.leave is None:
            return []
        if gang.leave == "":
            return [a.node for a in gang.placement]
        return [n.name for n in self.capacity.nodes.values() if gang.leave in (n.name, n.rack)]
