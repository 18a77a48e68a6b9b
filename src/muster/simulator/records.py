"""Records of a run: a row for each job, and the numbers of held GPUs, busy GPUs and queued jobs over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from muster.scheduling.decisions import Decision, Reason
from muster.scheduling.gang import Placement
from muster.scheduling.resources import WHOLE
from muster.scheduling.topology.links import indices
from muster.scheduling.topology.node import Node
from muster.simulator.fragmentation import Fragmentation
from muster.simulator.jobs import Job


@dataclass(slots=True)
class Row:
    """One job; times are in seconds since the start of the run."""

    name: str
    gpus: float
    arrival: float
    started: float | None = None
    finished: float | None = None
    ended: float | None = None
    gpu_seconds: float = 0.0
    overhead: float = 0.0
    """Seconds without progress after starts, resumes and moves."""
    suspensions: int = 0
    migrations: int = 0

    @property
    def jct(self) -> float | None:
        """Seconds from submission to completion."""
        return None if self.finished is None else self.finished - self.arrival

    @property
    def queued(self) -> float | None:
        """Seconds from submission to the first start."""
        return None if self.started is None else self.started - self.arrival


@dataclass(slots=True)
class Span:
    """An interval in which a job ran on GPUs of one node: a bar of the timeline."""

    job: str
    node: str
    gpus: int
    start: float
    end: float


@dataclass(slots=True)
class Gauge:
    """A number that changes in steps, and its integral over time."""

    value: float = 0.0
    since: float = 0.0
    integral: float = 0.0
    steps: list[tuple[float, float]] = field(default_factory=list)

    def add(self, change: float, now: float) -> None:
        self.integral += self.value * (now - self.since)
        self.value += change
        self.since = now
        if self.steps and self.steps[-1][0] == now:
            self.steps[-1] = (now, self.value)
        else:
            self.steps.append((now, self.value))

    def between(self, start: float, end: float) -> float:
        """Return the mean from `start` to `end`."""
        total, value, since = 0.0, 0.0, start
        for time, next_value in self.steps:
            if time >= end:
                break
            if time > start:
                total += value * (time - since)
                since = time
            value = next_value
        return (total + value * (end - since)) / (end - start)


class Records:
    """The records of a run; the engine calls a method for each change."""

    def __init__(self, gpus: int, *, timeline: bool = False) -> None:
        self.gpus = gpus
        self.rows: dict[str, Row] = {}
        self.held, self.active, self.queue = Gauge(), Gauge(), Gauge()
        self.fragmentation = Fragmentation()
        self.verbs: Counter[str] = Counter()
        self.decisions: Counter[tuple[str, Reason]] = Counter()
        """Decisions by verb and reason; a waiting gang counts once for each pass."""
        self.spans: list[Span] | None = [] if timeline else None
        self.end = 0.0
        self._busy: dict[str, float] = {}
        self._used: Counter[tuple[str, int]] = Counter()
        """Thousandths of each GPU in use: the sum over its jobs, 1,000 for each packed job."""
        self._open: dict[str, tuple[Placement, float]] = {}

    def arrived(self, job: Job, now: float) -> None:
        self.rows[job.name] = Row(job.name, job.amount, job.arrival)
        self.fragmentation.arrived(job)
        self.queue.add(1, now)

    def sample(self, nodes: Mapping[str, Node], now: float) -> None:
        """Sample the free GPUs after all events of a moment."""
        if self.fragmentation.due(now):
            self.fragmentation.sample(nodes.values(), now)

    def decided(self, decision: Decision) -> None:
        self.decisions[type(decision).__name__, decision.reason] += 1

    def moved(self, job: Job, before: Placement, after: Placement, now: float, verb: str, pause: float) -> None:
        """Record a job's change from the GPUs of `before` to those of `after`; empty: it does not run."""
        row = self.rows[job.name]
        row.overhead += pause
        if verb:
            self.verbs[verb] += 1
        row.suspensions += verb == "Suspend"
        row.migrations += verb == "Migrate"
        if after and row.started is None:
            row.started = now
        self.held.add(self._use(before, -1) + self._use(after, 1), now)
        self.queue.add((not after) - (not before), now)
        self._set_busy(job.name, 0.0, now)
        self._set_span(job.name, after, now)

    def busy(self, job: Job, utilisation: float, now: float) -> None:
        """Record the utilisation of a job's GPUs, the fraction of time for which it keeps each of them busy."""
        held = sum(assigned.gpus.bit_count() for assigned in self._open[job.name][0]) if job.name in self._open else 0
        self._set_busy(job.name, utilisation * held * job.share / WHOLE, now)

    def ended(self, job: Job, gpu_seconds: float, now: float, finished: bool) -> None:
        row = self.rows[job.name]
        row.ended, row.gpu_seconds = now, gpu_seconds * job.share / WHOLE
        if finished:
            row.finished = now
        self.queue.add(-1, now)

    def close(self, now: float) -> None:
        """End the run."""
        self.end = now
        for gauge in (self.held, self.active, self.queue):
            gauge.add(0, now)
        for name in list(self._open):
            self._set_span(name, (), now)

    def _use(self, placement: Placement, step: int) -> float:
        """Add (step 1) or remove (step -1) a job as a user of its GPUs; return the change in the number of GPUs in use."""
        changed = 0
        for assigned in placement:
            for gpu in indices(assigned.gpus):
                before = self._used[assigned.node, gpu]
                after = self._used[assigned.node, gpu] = before + step * assigned.task.share
                changed += min(after, WHOLE) - min(before, WHOLE)
        return changed / WHOLE

    def _set_busy(self, name: str, gpus: float, now: float) -> None:
        self.active.add(gpus - self._busy.get(name, 0.0), now)
        self._busy[name] = gpus

    def _set_span(self, name: str, after: Placement, now: float) -> None:
        placement, start = self._open.pop(name, ((), now))
        if self.spans is not None and now > start:
            self.spans += [Span(name, assigned.node, assigned.gpus, start, now) for assigned in placement]
        if after:
            self._open[name] = (after, now)
