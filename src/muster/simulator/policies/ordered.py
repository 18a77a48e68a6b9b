"""Schedulers that are only an order: who comes first runs, and nobody packs, migrates or takes turns.

They are what muster is measured against (Tiresias, NSDI'19, section 2 and its simulator): arrival, job length, size, and
attained service, which needs no job length. An order that preempts is walked anew at each event, over running and waiting
gangs alike, as if the cluster were empty; one that does not is walked over those that wait. Either the first that finds no
room blocks all behind it, or later ones may start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from muster.scheduling.decisions import Decision, Place, Reason, Requeue, Wait
from muster.scheduling.gang import Gang, describe
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.profile import Shape
from muster.scheduling.snapshot import Snapshot
from muster.simulator.policies import Oracle


class Untold:
    """Who knows no job length."""

    def remaining(self, name: str) -> float:
        raise RuntimeError(f"the order asks how long {name} will run; give the policy an oracle that knows")

    def rate_on(self, name: str, shape: Shape) -> float:
        raise RuntimeError(f"the order asks how fast {name} would run; give the policy an oracle that knows")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A gang as an order sees it."""

    gang: Gang
    now: float
    oracle: Oracle

    @property
    def gpus(self) -> int:
        return self.gang.gpus

    @property
    def attained(self) -> float:
        return self.gang.attained_at(self.now)

    @property
    def remaining(self) -> float:
        return self.oracle.remaining(self.gang.name)


@dataclass(frozen=True, slots=True)
class Order:
    """Less comes first; of equals the one that arrived first, then by name."""

    key: Callable[[Candidate], tuple[float, ...]]
    preempts: bool = False
    skips: bool = True
    """Whether a gang may start before one that is ahead of it and finds no room."""
    period: float | None = None
    """Seconds between passes, for orders that change as time goes by."""


QUEUE_LIMITS = (3250.0,)
"""GPU-seconds after which a job falls into the next queue: the first limit of Tiresias' simulator."""


def _queue(job: Candidate) -> tuple[float, ...]:
    """Its queue by attained service; within one, those that had started first (Tiresias, section 3.3)."""
    return (sum(job.attained >= limit for limit in QUEUE_LIMITS), job.gang.started or float("inf"))


ORDERS: Mapping[str, Order] = {
    "fifo": Order(lambda _: (), skips=False),
    "first-fit": Order(lambda _: ()),
    "srtf": Order(lambda job: (job.remaining,), preempts=True),
    "srsf": Order(lambda job: (job.remaining * job.gpus,), preempts=True),
    "fewest-gpus": Order(lambda job: (job.gpus,), preempts=True),
    "las": Order(lambda job: (job.attained,), preempts=True, period=60.0),
    "las-queues": Order(_queue, preempts=True, period=60.0),
}
"""fifo and first-fit by arrival; srtf the shortest remaining time, srsf the least remaining GPU-seconds (both are told job
lengths); fewest-gpus the smallest; las the least attained GPU-seconds, las-queues the same in steps."""


class Ordered:
    """A scheduler that is only an order."""

    def __init__(self, order: Order, oracle: Oracle | None = None) -> None:
        self.order, self.period = order, order.period
        self.oracle: Oracle = oracle or Untold()

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        gangs = sorted(
            snapshot.gangs, key=lambda gang: (*self.order.key(Candidate(gang, now, self.oracle)), gang.arrived, gang.name)
        )
        if not self.order.preempts:
            return self._start(snapshot, [gang for gang in gangs if not gang.placement], [])
        chosen = _fitting(gangs, sum(node.healthy.bit_count() for node in snapshot.nodes.values()), self.order.skips)
        stopped = [gang for gang in gangs if gang.placement and gang.name not in chosen]
        return self._start(snapshot, [gang for gang in gangs if not gang.placement and gang.name in chosen], stopped)

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return self.react(snapshot, now) if self.order.preempts else ()

    def _start(self, snapshot: Snapshot, waiting: Sequence[Gang], stopped: Sequence[Gang]) -> list[Decision]:
        """Stop some, then start those that find room, in turn."""
        capacity = FreeCapacity(snapshot.nodes)
        decisions: list[Decision] = []
        for gang in stopped:
            capacity.give_back(gang.placement)
            decisions.append(Requeue(gang, Reason.PREEMPTED, "others come first"))
        full: dict[object, Shortage] = {}
        """Requests that found no room: from here on it only shrinks."""
        for gang in waiting:
            tasks = tuple((task.gpus, task.resources, task.where) for task in gang.tasks)
            request = (tasks, gang.spread, gang.required, gang.fewest)
            found = full.get(request) or place(gang, capacity)
            if not isinstance(found, Shortage):
                capacity.take(found)
                decisions.append(Place(gang, found, Reason.PLACED, describe(found)))
                continue
            full[request] = found
            decisions.append(Wait(gang, Reason.INSUFFICIENT_GPUS, found.message))
            if not self.order.skips:
                break
        return decisions


def _fitting(gangs: Sequence[Gang], gpus: int, skips: bool) -> set[str]:
    """The names of those that run when the GPUs are given out in this order, just counted."""
    chosen: set[str] = set()
    for gang in gangs:
        if gang.gpus <= gpus:
            chosen.add(gang.name)
            gpus -= gang.gpus
        elif not skips:
            break
    return chosen
