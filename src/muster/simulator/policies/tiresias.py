"""Tiresias with two queues (Gu et al., NSDI'19) as implemented in Pollux's simulator, to validate this one.

Discretised least attained service: a job with 16 attained GPU-hours is demoted to the second queue and never promoted. Each
queue is first come, first served; jobs that fit into the remaining GPUs run, the others are stopped. It decides once an
interval and fills the emptiest nodes first.
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
"""Attained GPU-seconds at which a job is demoted to the second queue."""


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
        free = sum(node.healthy.bit_count() for node in snapshot.nodes.values())
        chosen = []
        for gang in (gangs[name] for queue in self._queues for name in queue):
            if gang.gpus <= free:
                free -= gang.gpus
                chosen.append((gang, len(shrunk(gang.tasks, gang.asked or len(gang.tasks)))))
        return reassign(snapshot, chosen)

    def _update(self, gangs: dict[str, Gang], now: float) -> None:
        """Remove ended jobs, add new ones to the first queue, and demote those at the limit."""
        first, second = ([name for name in queue if name in gangs] for queue in self._queues)
        queued = {*first, *second}
        first += [name for name in gangs if name not in queued]
        demoted = [name for name in first if gangs[name].attained_at(now) >= self._limit]
        self._queues = ([name for name in first if name not in demoted], second + demoted)


def reassign(snapshot: Snapshot, chosen: Sequence[tuple[Gang, int]]) -> list[Decision]:
    """Run exactly the chosen gangs with their numbers of workers, placed in this order; unchanged gangs stay in place."""
    workers_of = {gang.name: workers for gang, workers in chosen}
    capacity = FreeCapacity(snapshot.nodes)
    decisions: list[Decision] = []
    for gang in snapshot.gangs:
        if gang.placement and len(gang.placement) != workers_of.get(gang.name):
            capacity.give_back(gang.placement)
            decisions.append(Requeue(gang, Reason.PREEMPTED, "its GPUs are reassigned"))
    for gang, workers in chosen:
        if len(gang.placement) != workers:
            placement = emptiest_first(gang, workers, capacity)
            capacity.take(placement)
            decisions.append(
                Place(gang, placement, Reason.PLACED, f"{workers} workers")
                if placement
                else Wait(gang, Reason.INSUFFICIENT_GPUS, f"not enough free GPUs for {workers} workers")
            )
    return decisions


def emptiest_first(gang: Gang, workers: int, capacity: FreeCapacity) -> Placement:
    """Place workers on the nodes with the most free GPUs, filling each before the next; empty if they do not all fit."""
    free: dict[str, GpuSet] = dict(capacity.free)
    placement: list[Assigned] = []
    node = ""
    for task in shrunk(gang.tasks, workers):
        if not node or free[node].bit_count() < task.gpus:
            node = min(free, key=lambda name: (-free[name].bit_count(), name))
        if free[node].bit_count() < task.gpus:
            return ()
        gpus = capacity.nodes[node].machine.fastest(free[node], task.gpus)
        free[node] &= ~gpus
        placement.append(Assigned(task, node, gpus, len(placement)))
    return tuple(placement)
