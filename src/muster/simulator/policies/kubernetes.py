"""kube-scheduler without gangs: one pod at a time, each as if it were alone.

Pods that wait are bound in the order in which they come up in the scheduler's queue; where none fits, the next pod is tried. So
pods of several jobs interleave, a job may get GPUs for some of its pods only, and these wait, holding GPUs, for the rest: the
deadlock that FfDL (Middleware'19) counts. Job controllers create pods at the same time, so the order among pods is chance; a
seed gives it. The node is the one with the most free GPUs (NodeResourcesFit's LeastAllocated), by chance among equals.
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
    """How the pods of jobs that are submitted together come into the queue."""

    PODS = "pods"
    """Every pod for itself."""
    JOBS = "jobs"
    """One job's pods after another's, as a batch Job's controller creates them; all but the first few go in together."""


class KubeScheduler:
    """The scheduler. A gang that has some of its GPUs is joined to its part: it holds them, and does not run."""

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
            place = Assigned(task, node, gpus, task.index)
            capacity.take((place,))
            bound[gang.name].append(place)
            changed[gang.name] = gang
        return [_decision(gang, tuple(bound[gang.name])) for gang in changed.values()]

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def _queue(self, gangs: Iterable[Gang]) -> list[tuple[Gang, Task]]:
        """The pods that wait, in the order of the queue."""
        waiting = [_waiting(gang) for gang in gangs]
        self._random.shuffle(waiting)
        pods = [pod for job in waiting for pod in job]
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
    """Return how many pods hold GPUs while their gang is not whole, and the GPUs that they hold idle."""
    held = [place for gang in gangs if len(gang.placement) < len(gang.tasks) for place in gang.placement]
    return len(held), sum(place.gpus.bit_count() for place in held)


def _waiting(gang: Gang) -> list[tuple[Gang, Task]]:
    bound = {place.task.name for place in gang.placement}
    return [(gang, task) for task in gang.tasks if task.name not in bound]


def _decision(gang: Gang, placement: Placement) -> Decision:
    if len(placement) == len(gang.tasks):
        return Place(gang, placement, Reason.PLACED, "each of its pods found a node")
    message = f"{len(placement)} of its {len(gang.tasks)} pods found a node"
    return Join(gang, placement, Reason.INSUFFICIENT_GPUS, message)
