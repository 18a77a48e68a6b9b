"""What an answer of a policy makes of the cluster, worked out anew: for those who check the policy.

It is worked out apart from the session on which the policies decide, so that a fault of theirs does not hide itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from muster.scheduling.admission.queue_order import in_order
from muster.scheduling.decisions import Assignment, Decision, Join, Pack, Preempt, Requeue, Resume, Suspend, Wait
from muster.scheduling.gang import Gang, Placement, gpus_by_node
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.links import GpuSet


@dataclass(frozen=True, slots=True)
class Change:
    """What one decision makes of one gang."""

    decision: Decision
    before: Gang
    after: Gang


class Outcome:
    """The snapshot, the decisions, and every gang as they leave it."""

    def __init__(self, snapshot: Snapshot, now: float, decisions: Sequence[Decision]) -> None:
        self.snapshot, self.now, self.decisions = snapshot, now, decisions
        self.before = {gang.name: gang for gang in snapshot.gangs}
        self.gangs = dict(self.before)
        self.changes = [change for decision in decisions for change in self._carried_out(decision)]
        self.preempts = any(isinstance(decision, Preempt) for decision in decisions)
        """GPUs of victims come free after the pass, and are nobody's to use in it."""
        self.usable = {name: node.free for name, node in snapshot.nodes.items()}
        """GPUs in order that no pod of others holds."""
        for gang in snapshot.gangs:
            for name, gpus in gpus_by_node(gang.placement).items():
                self.usable[name] |= gpus & snapshot.nodes[name].healthy
        self.spare_before = self.without(as_asked(gang) for gang in self.before.values() if gang.placement)
        """GPUs that were idle, or beyond what elastic gangs asked for: who moves in the pass makes room for the next one."""
        self.wait = {decision.gang.name: decision for decision in decisions if isinstance(decision, Wait)}

    def waiting(self) -> list[Gang]:
        """The gangs without a place that could start now, by turn."""
        return self._waiting(self.gangs)

    def first(self) -> Gang | None:
        """The gang whose turn it was when the pass began; who comes after it is asked in the next one."""
        return next(iter(self._waiting(self.before)), None)

    def _waiting(self, gangs: Mapping[str, Gang]) -> list[Gang]:
        return in_order(gang for gang in gangs.values() if not gang.placement and gang.is_ready(self.now))

    def taking_turns(self) -> list[Gang]:
        """The gangs that have a place and wait there for their turn."""
        return [gang for gang in self.gangs.values() if gang.placement and not gang.running]

    def placed(self) -> Iterator[Gang]:
        return (gang for gang in self.gangs.values() if gang.placement)

    def running(self) -> Iterator[Gang]:
        return filter(runs, self.gangs.values())

    def idle(self) -> dict[str, GpuSet]:
        """GPUs on which nobody has a place."""
        return self.without(self.placed())

    def free(self) -> dict[str, GpuSet]:
        """GPUs on which nobody runs."""
        return self.without(self.running())

    def without(self, gangs: Iterator[Gang]) -> dict[str, GpuSet]:
        """The usable GPUs but those of these gangs."""
        left = dict(self.usable)
        for gang in gangs:
            for name, gpus in gpus_by_node(gang.placement).items():
                left[name] &= ~gpus
        return left

    def fits(self, gang: Gang, spots: dict[str, GpuSet]) -> bool:
        """Say whether a gang that waits could start on these GPUs, as far as its queue's quota goes."""
        if not self.quota_allows(gang):
            return False
        capacity = FreeCapacity({name: replace(node, free=spots[name]) for name, node in self.snapshot.nodes.items()})
        return not isinstance(place(gang, capacity), Shortage)

    def quota_allows(self, gang: Gang) -> bool:
        """What is left of a quota is kept for who comes first, in the order of the policy: sure of it is who waits alone."""
        queue = self.snapshot.queues.get(gang.queue)
        if queue is None or queue.quota is None:
            return True
        held = (sum(g.held for g in gangs.values() if g.queue == gang.queue) for gangs in (self.before, self.gangs))
        alone = not any(g.queue == gang.queue and not g.placement and g.name != gang.name for g in self.gangs.values())
        return alone and max(held) + gang.fewest_gpus <= queue.quota

    def _carried_out(self, decision: Decision) -> list[Change]:
        if isinstance(decision, Wait):
            return []
        about = decision.victims if isinstance(decision, Preempt) else (decision.gang,)
        befores = [self.gangs[gang.name] for gang in about]
        changes = [Change(decision, before, _after(decision, before)) for before in befores]
        self.gangs |= {change.after.name: change.after for change in changes}
        return changes


def runs(gang: Gang) -> bool:
    """Say whether a gang is on its GPUs."""
    return bool(gang.placement) and gang.running


def bundle(gang: Gang) -> str:
    """The name that gangs packed onto the same GPUs have in common."""
    return gang.packed or gang.name


def _after(decision: Decision, before: Gang) -> Gang:
    match decision:
        case Assignment():
            placement, running = decision.placement, bool(decision.placement) and not isinstance(decision, Join)
        case Suspend():
            placement, running = before.placement, False
        case Requeue():
            placement, running = (), False
        case _:
            placement, running = (), False
    packed = before.packed if isinstance(decision, Resume | Suspend) and placement else ""
    return replace(before, placement=placement, running=running, packed=decision.onto if isinstance(decision, Pack) else packed)


def surplus(gang: Gang) -> Placement:
    """The places that an elastic gang has beyond what it asked for."""
    asked = len(gang.tasks) if gang.asked is None else gang.asked
    return tuple(one for one in gang.placement if one.task.role == "worker" and one.task.index >= asked)


def as_asked(gang: Gang) -> Gang:
    """A gang that runs without what it has beyond what it asked for."""
    return replace(gang, placement=tuple(one for one in gang.placement if one not in surplus(gang))) if gang.running else gang
