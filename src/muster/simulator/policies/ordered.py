"""Schedulers defined by a sort order alone, without packing, migration or time sharing.

They are baselines from Tiresias (NSDI'19, section 2 and its simulator): arrival, job length, size, and attained service, which
needs no job length. A preemptive order allocates all gangs again at each event, as if the cluster were empty; a non-preemptive
one allocates waiting gangs only. A gang that does not fit either blocks all gangs after it or is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from muster.scheduling.decisions import Decision, Place, Reason, Requeue, Wait
from muster.scheduling.gang import Gang, describe
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.profile import Shape
from muster.scheduling.snapshot import Snapshot
from muster.simulator.policies import Oracle


class NoOracle:
    """The oracle of a policy that was given none: every question fails."""

    def remaining(self, name: str) -> float:
        raise RuntimeError(f"the order needs the remaining work of {name}; give the policy an oracle")

    def rate_on(self, name: str, shape: Shape) -> float:
        raise RuntimeError(f"the order needs the rate of {name}; give the policy an oracle")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A gang with the values that sort keys use."""

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
    """A sort key, ascending; ties by arrival, then by name."""

    key: Callable[[Candidate], tuple[float, ...]]
    preempts: bool = False
    skips: bool = True
    """Whether a gang may start before an earlier one that does not fit."""
    period: float | None = None
    """Seconds between passes, for keys that change with time."""


QUEUE_LIMITS = (3250.0,)
"""Attained GPU-seconds at which a job is demoted to the next queue: the first limit of Tiresias' simulator."""


def _queue(job: Candidate) -> tuple[float, ...]:
    """The queue by attained service; within a queue by start time (Tiresias, section 3.3)."""
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
"""fifo, first-fit: by arrival. srtf: shortest remaining time; srsf: least remaining GPU-seconds (both need an oracle).
fewest-gpus: smallest size. las: least attained GPU-seconds; las-queues: the same in discrete queues."""


class Ordered:
    """A scheduler that follows one order."""

    def __init__(self, order: Order, oracle: Oracle | None = None) -> None:
        self.order, self.period = order, order.period
        self.oracle: Oracle = oracle or NoOracle()

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
        """Suspend the stopped gangs, then start waiting ones that fit, in order."""
        capacity = FreeCapacity(snapshot.nodes)
        decisions: list[Decision] = []
        for gang in stopped:
            capacity.give_back(gang.placement)
            decisions.append(Requeue(gang, Reason.PREEMPTED, "gangs ahead of it in the order need its GPUs"))
        shortages: dict[object, Shortage] = {}
        """Requests that do not fit; capacity only shrinks from here on, so equal requests need no search."""
        for gang in waiting:
            tasks = tuple((task.gpus, task.resources, task.where) for task in gang.tasks)
            request = (tasks, gang.spread, gang.required, gang.fewest)
            result = shortages.get(request) or place(gang, capacity)
            if not isinstance(result, Shortage):
                capacity.take(result)
                decisions.append(Place(gang, result, Reason.PLACED, describe(result)))
                continue
            shortages[request] = result
            decisions.append(Wait(gang, Reason.INSUFFICIENT_GPUS, result.message))
            if not self.order.skips:
                break
        return decisions


def _fitting(gangs: Sequence[Gang], gpus: int, skips: bool) -> set[str]:
    """The names of the gangs that run when GPUs are allocated in this order, by count alone."""
    chosen: set[str] = set()
    for gang in gangs:
        if gang.gpus <= gpus:
            chosen.add(gang.name)
            gpus -= gang.gpus
        elif not skips:
            break
    return chosen
