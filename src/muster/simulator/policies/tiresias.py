"""Tiresias with two queues (Gu et al., NSDI'19), as the simulator of Pollux has it: a check of ours.

Least attained service in steps: a job that had 16 GPU-hours falls into the second queue. In each queue those that entered it
first come first, and whoever fits into what is left of the GPUs runs; the others are stopped. Nobody rises again. It decides
once an interval, and fills the emptiest nodes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from muster.scheduling.decisions import Decision, Place, Reason, Requeue, Wait
from muster.scheduling.gang import Assigned, Gang, Placement, shrunk
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.links import GpuSet

INTERVAL = 60.0
LIMIT = 16 * 3600.0
"""GPU-seconds after which a job falls into the second queue."""


class Tiresias:
    """Two queues by attained GPU-seconds."""

    def __init__(self, limit: Annotated[float, Field(gt=0)] = LIMIT) -> None:
        self.period: float | None = INTERVAL
        self._limit = limit
        self._queues: tuple[list[str], list[str]] = ([], [])

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        gangs = {gang.name: gang for gang in sorted(snapshot.gangs, key=lambda gang: (gang.arrived, gang.name))}
        self._update(gangs, now)
        left = sum(node.healthy.bit_count() for node in snapshot.nodes.values())
        chosen = []
        for gang in (gangs[name] for queue in self._queues for name in queue):
            if gang.gpus <= left:
                left -= gang.gpus
                chosen.append((gang, len(shrunk(gang.tasks, gang.asked or len(gang.tasks)))))
        return reassign(snapshot, chosen)

    def _update(self, gangs: dict[str, Gang], now: float) -> None:
        """Let those that ended leave, newcomers enter the first queue, and those that had their share fall."""
        first, second = ([name for name in queue if name in gangs] for queue in self._queues)
        known = {*first, *second}
        first += [name for name in gangs if name not in known]
        fallen = [name for name in first if gangs[name].attained_at(now) >= self._limit]
        self._queues = ([name for name in first if name not in fallen], second + fallen)


def reassign(snapshot: Snapshot, chosen: Sequence[tuple[Gang, int]]) -> list[Decision]:
    """Let exactly these run, in this order, each with so many workers; those that have as many already stay where they are."""
    wanted = {gang.name: workers for gang, workers in chosen}
    capacity = FreeCapacity(snapshot.nodes)
    decisions: list[Decision] = []
    for gang in snapshot.gangs:
        if gang.placement and len(gang.placement) != wanted.get(gang.name):
            capacity.give_back(gang.placement)
            decisions.append(Requeue(gang, Reason.PREEMPTED, "its GPUs are given out anew"))
    for gang, workers in chosen:
        if len(gang.placement) != workers:
            found = emptiest_first(gang, workers, capacity)
            capacity.take(found)
            decisions.append(
                Place(gang, found, Reason.PLACED, f"{workers} workers")
                if found
                else Wait(gang, Reason.INSUFFICIENT_GPUS, f"no room for {workers} workers")
            )
    return decisions


def emptiest_first(gang: Gang, workers: int, capacity: FreeCapacity) -> Placement:
    """Put so many workers on the nodes with the most free GPUs, each filled before the next; nowhere if they do not all fit."""
    free: dict[str, GpuSet] = dict(capacity.free)
    places: list[Assigned] = []
    node = ""
    for task in shrunk(gang.tasks, workers):
        if not node or free[node].bit_count() < task.gpus:
            node = min(free, key=lambda name: (-free[name].bit_count(), name))
        if free[node].bit_count() < task.gpus:
            return ()
        part = capacity.nodes[node].machine.fastest(free[node], task.gpus)
        free[node] &= ~part
        places.append(Assigned(task, node, part, len(places)))
    return tuple(places)
