"""YARN's capacity scheduler as training clusters ran it: first come, first served, no preemption, blind to locality.

What Gandiva (OSDI'18) is measured against. Within a queue jobs start in the order of submission, and the first
that finds no room blocks those behind it. When a server reports, the job gets as many containers there as the server has
room for, then goes on with the next that reports: heartbeats come in no order (here a seed gives one), and nobody looks for
servers on which the job would be closer together.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from muster.scheduling.admission.queue_order import in_order
from muster.scheduling.decisions import Decision, Place, Reason, Wait
from muster.scheduling.gang import Assigned, Gang, Placement
from muster.scheduling.placing.free_capacity import FreeCapacity
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
            found = self._scattered(gang, capacity)
            if found:
                capacity.take(found)
                decisions.append(Place(gang, found, Reason.PLACED, "the containers that reported first"))
            else:
                blocked.add(gang.queue)
                decisions.append(Wait(gang, Reason.INSUFFICIENT_GPUS, f"needs {gang.gpus} GPUs, first in {gang.queue}"))
        return decisions

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def _scattered(self, gang: Gang, capacity: FreeCapacity) -> Placement | None:
        """As many tasks as fit on each server in the order of their reports, larger tasks first."""
        waiting = sorted(gang.tasks, key=lambda task: (-task.gpus, task.index))
        reports = sorted(node for node, gpus in capacity.free.items() if gpus)
        self._random.shuffle(reports)
        found: list[Assigned] = []
        for node in reports:
            free, left = capacity.free[node], []
            for task in waiting:
                gpus = lowest(free, task.gpus) if task.gpus <= free.bit_count() else 0
                free &= ~gpus
                if gpus:
                    found.append(Assigned(task, node, gpus, task.index))
                else:
                    left.append(task)
            waiting = left
        return tuple(found) if not waiting else None


def lowest(free: int, count: int) -> int:
    """The first `count` GPUs of a free set: what a device plugin gives that knows no links."""
    taken = 0
    for _ in range(count):
        gpu = free & -free
        free, taken = free ^ gpu, taken | gpu
    return taken
