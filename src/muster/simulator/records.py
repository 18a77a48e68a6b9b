"""What happened in a run: a row for each job, and how many GPUs were held and busy over time."""

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
    """One job; times in seconds since the start of the run."""

    name: str
    gpus: float
    arrival: float
    started: float | None = None
    finished: float | None = None
    ended: float | None = None
    gpu_seconds: float = 0.0
    overhead: float = 0.0
    """Seconds lost to being suspended, resumed and moved."""
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
class Stay:
    """A job on GPUs of a node for a while: a bar of the timeline."""

    job: str
    node: str
    gpus: int
    start: float
    end: float


@dataclass(slots=True)
class Level:
    """A number that changes in steps, integrated over time."""

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
        """The mean from `start` to `end`."""
        total, value, last = 0.0, 0.0, start
        for when, then in self.steps:
            if when >= end:
                break
            if when > start:
                total += value * (when - last)
                last = when
            value = then
        return (total + value * (end - last)) / (end - start)


class Records:
    """What the engine tells of a run as it goes."""

    def __init__(self, gpus: int, *, timeline: bool = False) -> None:
        self.gpus = gpus
        self.rows: dict[str, Row] = {}
        self.held, self.active, self.queue = Level(), Level(), Level()
        self.fragmentation = Fragmentation()
        self.verbs: Counter[str] = Counter()
        self.decisions: Counter[tuple[str, Reason]] = Counter()
        """Decisions by verb and reason; a gang that waits is told so in every pass."""
        self.stays: list[Stay] | None = [] if timeline else None
        self.end = 0.0
        self._busy: dict[str, float] = {}
        self._users: Counter[tuple[str, int]] = Counter()
        """The thousandths of each GPU on which jobs run, all of it for each of those that are packed."""
        self._open: dict[str, tuple[Placement, float]] = {}

    def arrived(self, job: Job, now: float) -> None:
        self.rows[job.name] = Row(job.name, job.amount, job.arrival)
        self.fragmentation.arrived(job)
        self.queue.add(1, now)

    def looks(self, nodes: Mapping[str, Node], now: float) -> None:
        """All that happens now has happened."""
        if self.fragmentation.due(now):
            self.fragmentation.look(nodes.values(), now)

    def decided(self, decision: Decision) -> None:
        self.decisions[type(decision).__name__, decision.reason] += 1

    def moved(self, job: Job, before: Placement, after: Placement, now: float, verb: str, pause: float) -> None:
        """A job leaves the GPUs of `before` (empty: it did not run) for those of `after`."""
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
        self._stay(job.name, after, now)

    def busy(self, job: Job, share: float, now: float) -> None:
        """The share of time in which a running job keeps each of its GPUs busy has changed."""
        holds = sum(place.gpus.bit_count() for place in self._open[job.name][0]) if job.name in self._open else 0
        self._set_busy(job.name, share * holds * job.share / WHOLE, now)

    def ended(self, job: Job, gpu_seconds: float, now: float, finished: bool) -> None:
        row = self.rows[job.name]
        row.ended, row.gpu_seconds = now, gpu_seconds * job.share / WHOLE
        if finished:
            row.finished = now
        self.queue.add(-1, now)

    def close(self, now: float) -> None:
        """The run is over."""
        self.end = now
        for level in (self.held, self.active, self.queue):
            level.add(0, now)
        for name in list(self._open):
            self._stay(name, (), now)

    def _use(self, placement: Placement, step: int) -> float:
        """Count a job on or off its GPUs; return by how much the GPUs that have any job changed."""
        changed = 0
        for place in placement:
            for gpu in indices(place.gpus):
                before = self._users[place.node, gpu]
                after = self._users[place.node, gpu] = before + step * place.task.share
                changed += min(after, WHOLE) - min(before, WHOLE)
        return changed / WHOLE

    def _set_busy(self, name: str, gpus: float, now: float) -> None:
        self.active.add(gpus - self._busy.get(name, 0.0), now)
        self._busy[name] = gpus

    def _stay(self, name: str, after: Placement, now: float) -> None:
        placement, start = self._open.pop(name, ((), now))
        if self.stays is not None and now > start:
            self.stays += [Stay(name, place.node, place.gpus, start, now) for place in placement]
        if after:
            self._open[name] = (after, now)
