"""The state of the cluster after the decisions of one pass, computed independently to check a policy.

It does not use the Session on which policies decide, so that a bug there cannot hide itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from muster.scheduling.decisions import Assignment, Decision, Join, Pack, Preempt, Resume, Suspend, Wait
from muster.scheduling.gang import Gang, Placement, gpus_by_node
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.queue_order import in_order
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.links import GpuSet


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of one decision on one gang."""

    decision: Decision
    before: Gang
    after: Gang


class Outcome:
    """A snapshot, decisions, and every gang after them."""

    def __init__(self, snapshot: Snapshot, now: float, decisions: Sequence[Decision]) -> None:
        self.snapshot, self.now, self.decisions = snapshot, now, decisions
        self.before = {gang.name: gang for gang in snapshot.gangs}
        self.gangs = dict(self.before)
        self.changes = [change for decision in decisions for change in self._carried_out(decision)]
        self.preempts = any(isinstance(decision, Preempt) for decision in decisions)
        """GPUs of victims become free after the pass only."""
        self.usable = {name: node.free for name, node in snapshot.nodes.items()}
        """Healthy GPUs of each node that no external pod holds."""
        for gang in snapshot.gangs:
            for name, gpus in gpus_by_node(gang.placement).items():
                self.usable[name] |= gpus & snapshot.nodes[name].healthy
        self.spare_before = self.without(as_asked(gang) for gang in self.before.values() if gang.placement)
        """GPUs that were idle or surplus of elastic gangs before the pass; GPUs vacated in a pass serve the next one."""
        self.wait = {decision.gang.name: decision for decision in decisions if isinstance(decision, Wait)}

    def waiting(self) -> list[Gang]:
        """Return the ready gangs without a placement, in queue order."""
        return self._waiting(self.gangs)

    def first(self) -> Gang | None:
        """Return the head of the queue before the pass; later gangs may have to wait for the next pass."""
        return next(iter(self._waiting(self.before)), None)

    def _waiting(self, gangs: Mapping[str, Gang]) -> list[Gang]:
        return in_order(gang for gang in gangs.values() if not gang.placement and gang.is_ready(self.now))

    def suspended(self) -> list[Gang]:
        """Return the gangs with a placement that do not run."""
        return [gang for gang in self.gangs.values() if gang.placement and not gang.running]

    def placed(self) -> Iterator[Gang]:
        return (gang for gang in self.gangs.values() if gang.placement)

    def running(self) -> Iterator[Gang]:
        return filter(runs, self.gangs.values())

    def idle(self) -> dict[str, GpuSet]:
        """Return the GPUs of each node that no placement covers."""
        return self.without(self.placed())

    def free(self) -> dict[str, GpuSet]:
        """Return the GPUs of each node on which no gang runs."""
        return self.without(self.running())

    def without(self, gangs: Iterator[Gang]) -> dict[str, GpuSet]:
        """Return the usable GPUs of each node without those of these gangs."""
        remaining = dict(self.usable)
        for gang in gangs:
            for name, gpus in gpus_by_node(gang.placement).items():
                remaining[name] &= ~gpus
        return remaining

    def fits(self, gang: Gang, free: dict[str, GpuSet]) -> bool:
        """Say whether a waiting gang could start on these GPUs within its quota."""
        if not self.quota_allows(gang):
            return False
        capacity = FreeCapacity({name: replace(node, free=free[name]) for name, node in self.snapshot.nodes.items()})
        return not isinstance(place(gang, capacity), Shortage)

    def quota_allows(self, gang: Gang) -> bool:
        """Say whether the quota surely admits a gang: it must be the only waiting one, the policy chooses among several."""
        queue = self.snapshot.queues.get(gang.queue)
        if queue is None or queue.quota is None:
            return True
        held = (sum(g.held for g in gangs.values() if g.queue == gang.queue) for gangs in (self.before, self.gangs))
        alone = not any(g.queue == gang.queue and not g.placement and g.name != gang.name for g in self.gangs.values())
        return alone and max(held) + gang.fewest_gpus <= queue.quota

    def _carried_out(self, decision: Decision) -> list[Change]:
        if isinstance(decision, Wait):
            return []
        affected = decision.victims if isinstance(decision, Preempt) else (decision.gang,)
        befores = [self.gangs[gang.name] for gang in affected]
        changes = [Change(decision, before, _after(decision, before)) for before in befores]
        self.gangs |= {change.after.name: change.after for change in changes}
        return changes


def runs(gang: Gang) -> bool:
    """Say whether a gang runs on GPUs."""
    return bool(gang.placement) and gang.running


def bundle(gang: Gang) -> str:
    """Return the name shared by gangs that are packed onto the same GPUs."""
    return gang.packed or gang.name


def _after(decision: Decision, before: Gang) -> Gang:
    match decision:
        case Assignment():
            placement, running = decision.placement, bool(decision.placement) and not isinstance(decision, Join)
        case Suspend():
            placement, running = before.placement, False
        case _:
            placement, running = (), False
    packed = before.packed if isinstance(decision, Resume | Suspend) and placement else ""
    return replace(before, placement=placement, running=running, packed=decision.onto if isinstance(decision, Pack) else packed)


def surplus(gang: Gang) -> Placement:
    """Return the workers of an elastic gang beyond its request."""
    asked = len(gang.tasks) if gang.asked is None else gang.asked
    return tuple(assigned for assigned in gang.placement if assigned.task.role == "worker" and assigned.task.index >= asked)


def as_asked(gang: Gang) -> Gang:
    """Return a gang without its surplus workers, if it runs."""
    if not gang.running:
        return gang
    return replace(gang, placement=tuple(assigned for assigned in gang.placement if assigned not in surplus(gang)))
