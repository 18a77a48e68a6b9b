"""kube-scheduler without gang scheduling: each pod is bound independently.

Pending pods are bound in the order of the scheduling queue; a pod that does not fit is skipped. Pods of several jobs therefore
interleave, and a job may hold GPUs for some of its pods while it waits for the others: the deadlock that FfDL (Middleware'19)
measures. Job controllers create pods concurrently, so the order of pods is random, from a seed. The node is the one with the
most free GPUs (NodeResourcesFit's LeastAllocated), with random ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from random import Random

from muster.scheduling.decisions import Decision, Join, Place, Reason
from muster.scheduling.gang import Assigned, Gang, Placement, Task
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.snapshot import Snapshot


class Order(StrEnum):
    """The order of pods in the queue, for jobs submitted together."""

    PODS = "pods"
    """All pods in random order."""
    JOBS = "jobs"
    """The jobs in random order, the pods of each together, as the controller of a batch Job creates them."""


class KubeScheduler:
    """The scheduler. A partially bound gang holds the GPUs of its bound pods (Join) and does not run."""

    period: float | None = None

    def __init__(self, seed: int, order: Order = Order.PODS) -> None:
        self._random, self._order = Random(seed), order

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        capacity = FreeCapacity(snapshot.nodes)
        partial = [gang for gang in snapshot.gangs if len(gang.placement) < len(gang.tasks)]
        bound = {gang.name: list(gang.placement) for gang in partial}
        changed: dict[str, Gang] = {}
        for gang, task in self._queue(partial):
            node = self._emptiest(capacity, task)
            if node is None:
                continue
            gpus = capacity.nodes[node].machine.leftover(capacity.free[node], task.gpus)
            assigned = Assigned(task, node, gpus, task.index)
            capacity.take((assigned,))
            bound[gang.name].append(assigned)
            changed[gang.name] = gang
        return [_decision(gang, tuple(bound[gang.name])) for gang in changed.values()]

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def _queue(self, gangs: Iterable[Gang]) -> list[tuple[Gang, Task]]:
        """The pending pods in queue order."""
        pending = [_pending(gang) for gang in gangs]
        self._random.shuffle(pending)
        pods = [pod for gang_pods in pending for pod in gang_pods]
        if self._order is Order.PODS:
            self._random.shuffle(pods)
        return pods

    def _emptiest(self, capacity: FreeCapacity, task: Task) -> str | None:
        free: Mapping[str, int] = {node: gpus.bit_count() for node, gpus in capacity.free.items() if gpus}
        most = max(free.values(), default=0)
        if most < task.gpus or not free:
            return None
        return self._random.choice([node for node, count in free.items() if count == most])


def stuck(gangs: Iterable[Gang]) -> tuple[int, int]:
    """Return the number of bound pods in partially bound gangs, and the number of GPUs that they hold idle."""
    held = [assigned for gang in gangs if len(gang.placement) < len(gang.tasks) for assigned in gang.placement]
    return len(held), sum(assigned.gpus.bit_count() for assigned in held)


def _pending(gang: Gang) -> list[tuple[Gang, Task]]:
    bound = {assigned.task.name for assigned in gang.placement}
    return [(gang, task) for task in gang.tasks if task.name not in bound]


def _decision(gang: Gang, placement: Placement) -> Decision:
    if len(placement) == len(gang.tasks):
        return Place(gang, placement, Reason.PLACED, "all of its pods have a node")
    message = f"{len(placement)} of {len(gang.tasks)} pods have a node"
    return Join(gang, placement, Reason.INSUFFICIENT_GPUS, message)
