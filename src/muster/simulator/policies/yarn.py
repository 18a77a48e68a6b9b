"""YARN's capacity scheduler as used in training clusters: first come, first served, no preemption, no locality.

It is Gandiva's baseline (OSDI'18). Jobs of a queue start in order of submission, and a job that does not fit blocks those after
it. A job fills each server that sends a heartbeat before the next one. Heartbeats arrive in random order, here from a seed, so
the job's locality is random too.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from muster.scheduling.decisions import Decision, Place, Reason, Wait
from muster.scheduling.gang import Assigned, Gang, Placement
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.queue_order import in_order
from muster.scheduling.snapshot import Snapshot


class Yarn:
    """The scheduler; `seed` orders the heartbeats."""

    period: float | None = None

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        capacity = FreeCapacity(snapshot.nodes)
        blocked: set[str] = set()
        decisions: list[Decision] = []
        for gang in in_order(gang for gang in snapshot.gangs if not gang.placement):
            if gang.queue in blocked:
                continue
            placement = self._scattered(gang, capacity)
            if placement:
                capacity.take(placement)
                decisions.append(Place(gang, placement, Reason.PLACED, "servers in order of their heartbeats"))
            else:
                blocked.add(gang.queue)
                decisions.append(
                    Wait(gang, Reason.INSUFFICIENT_GPUS, f"needs {gang.gpus} GPUs; it is at the head of queue {gang.queue}")
                )
        return decisions

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def _scattered(self, gang: Gang, capacity: FreeCapacity) -> Placement | None:
        """As many tasks as fit on each server in order of heartbeats, larger tasks first; None if some do not fit."""
        unplaced = sorted(gang.tasks, key=lambda task: (-task.gpus, task.index))
        heartbeats = sorted(node for node, gpus in capacity.free.items() if gpus)
        self._random.shuffle(heartbeats)
        placement: list[Assigned] = []
        for node in heartbeats:
            free, remaining = capacity.free[node], []
            for task in unplaced:
                gpus = lowest(free, task.gpus) if task.gpus <= free.bit_count() else 0
                free &= ~gpus
                if gpus:
                    placement.append(Assigned(task, node, gpus, task.index))
                else:
                    remaining.append(task)
            unplaced = remaining
        return tuple(placement) if not unplaced else None


def lowest(free: int, count: int) -> int:
    """Return the lowest `count` GPUs of a free set, the choice of a device plugin without topology."""
    taken = 0
    for _ in range(count):
        gpu = free & -free
        free, taken = free ^ gpu, taken | gpu
    return taken
