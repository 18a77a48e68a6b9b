"""Rates of the six models of Pollux (Qiao et al., OSDI'21) on nodes of four T4, from measured step times and gradient noise.

The unit of progress is a mini-batch of the smallest batch size. A larger batch makes less progress for each example, depending
on the gradient noise at that point of training (section 3.1), so a rate is what Pollux calls goodput. A job's kind names its
model and, after a slash, the batch size chosen by its user ("cifar10/2048"); without one the job adapts its batch size to its
GPUs for the best goodput (as AdaptDL does, section 4.1, though AdaptDL fits a model to the step times).

Step times come from `data/pollux`, by GPUs on each node and local batch size, with linear interpolation. A batch that exceeds
GPU memory is accumulated over several passes, of which only the last one synchronises gradients.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from math import ceil
from statistics import fmean

from muster.scheduling.profile import CoLocation, Profile, Shape
from muster.simulator.jobs import Job

RESTART_SECONDS = 30.0
"""The cost of a start, a move or a resize: checkpoint and restart (the constant of Pollux's simulator)."""
APPLICATIONS = ("bert", "cifar10", "deepspeech2", "imagenet", "ncf", "yolov3")
LOCAL_BATCH_LIMITS = {"yolov3": 8}
"""Examples that fit into GPU memory, for models where that is below the largest measured local batch."""
BATCHES_TRIED = 50
"""Geometrically spaced batch sizes among which an adaptive job takes the best, as many as AdaptDL tries."""

Times = tuple[float, float]
"""Seconds of a step, and seconds of it spent waiting for other GPUs."""
Rows = Sequence[tuple[int, Times]]
"""Times by local batch size, ascending."""


class Application:
    """The measurements of one model; `application` reads each once."""

    def __init__(self, name: str) -> None:
        self._on_nodes = _placements(name)
        self._on_many = _surface(self._on_nodes, name)
        self._noise, self.epochs = _epochs(name)
        """Squared norm and variance of the gradients in each epoch, by batch size; progress at the end of each epoch."""
        local = [batch for rows in self._on_nodes.values() for batch, _ in rows]
        self.least_local, self.most_local = min(local), LOCAL_BATCH_LIMITS.get(name, max(local))
        self.least_batch, self.most_batch = min(self._noise), max(self._noise)
        self._best: dict[tuple[tuple[int, ...], int], int] = {}

    def epoch(self, done: float) -> int:
        """Return the epoch, counted from 0, of a job with this progress."""
        return min(bisect_right(self.epochs, done), len(self.epochs) - 1)

    def split(self, batch: int, gpus: int) -> tuple[int, int]:
        """Return the local batch of one pass and the passes of a step, about `batch` in total and never above the largest."""
        local = ceil(batch / gpus - 1e-8)
        passes = ceil(local / self.most_local - 1e-8)
        if gpus == 1 and batch > self.least_batch:
            passes = max(2, passes)  # the noise is estimated from the difference of two gradients
        return min(ceil(local / passes - 1e-8), self.most_batch // (gpus * passes)), passes

    def times(self, counts: tuple[int, ...], local: int) -> Times:
        """Return the times of one pass; `counts` are the GPUs on each node, descending."""
        rows = self._on_nodes.get(counts)
        return _between(local, rows) if rows else self._between_nodes(len(counts), sum(counts), local)

    def step_seconds(self, counts: tuple[int, ...], batch: int) -> Times:
        """Return the times of a step with this batch size."""
        local, passes = self.split(batch, sum(counts))
        step, wait = self.times(counts, local)
        return step + (passes - 1) * (step - wait), wait

    def progress(self, batch: float, epoch: int) -> float:
        """Return the progress of one step with this batch size in an epoch, 1 for the smallest."""
        square, variance = _between(batch, [(size, noise[epoch]) for size, noise in self._noise.items()])
        return (variance + square) / (variance * self.least_batch / batch + square)

    @cache  # noqa: B019 (six applications, which live as long as the process)
    def goodput(self, counts: tuple[int, ...], batch: int, epoch: int) -> float:
        """Return the progress per second."""
        local, passes = self.split(batch, sum(counts))
        return self.progress(sum(counts) * local * passes, epoch) / self.step_seconds(counts, batch)[0]

    def best_batch(self, counts: tuple[int, ...], epoch: int) -> int:
        """Return the batch size with the best goodput on these GPUs, over any number of passes."""
        best = self._best.get((counts, epoch))
        if best is None:
            candidates = sorted(set(self._candidates(sum(counts))))
            best = self._best[counts, epoch] = max(candidates, key=lambda batch: self.goodput(counts, batch, epoch))
        return best

    def most_gpus(self, batch: int | None = None) -> int:
        """Return the most GPUs over which a batch can be split; default: the largest batch."""
        return max(1, (batch or self.most_batch) // self.least_local)

    def _candidates(self, gpus: int) -> Iterator[int]:
        least = max(self.least_batch, self.least_local * gpus)
        for index in range(BATCHES_TRIED):
            batch = round(least * (self.most_batch / least) ** (index / (BATCHES_TRIED - 1)))
            if self.least_local <= self.split(batch, gpus)[0]:
                yield batch

    def _between_nodes(self, nodes: int, gpus: int, local: int) -> Times:
        """Times on a number of nodes without measurements: interpolated between node counts at equal GPUs per node."""
        levels = [
            (level, _between(gpus * level / nodes, [(count, _between(local, rows)) for count, rows in by_gpus.items()]))
            for level, by_gpus in self._on_many.items()
        ]
        return _between(nodes, levels)


@cache
def application(name: str) -> Application:
    """Return the measurements of a model; raise KeyError for a name not in `APPLICATIONS`."""
    if name not in APPLICATIONS:
        raise KeyError(name)
    return Application(name)


class Pollux:
    """The six models on T4 nodes, without interference between neighbours, as in the published base case."""

    placement_matters = True
    rates_drift = True

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:
        app, batch = trained(job.kind)
        epoch = app.epoch(done)
        return app.goodput(shape.counts, batch or app.best_batch(shape.counts, epoch), epoch)

    def milestone(self, job: Job, done: float) -> float:
        app, _ = trained(job.kind)
        return app.epochs[app.epoch(done)]

    def resume_seconds(self, job: Job) -> float:
        return RESTART_SECONDS

    def move_seconds(self, job: Job, before: Shape, after: Shape) -> float:
        return RESTART_SECONDS

    def profile(self, job: Job) -> Profile:
        return Profile(suspend_seconds=RESTART_SECONDS, migrate_seconds=RESTART_SECONDS)

    def busy(self, job: Job, co_location: CoLocation) -> float:
        return 1.0


@cache
def trained(kind: str) -> tuple[Application, int | None]:
    """Return the model of a kind of job and its batch size, None if adaptive."""
    name, _, batch = kind.partition("/")
    return application(name), int(batch) if batch else None


def _placements(name: str) -> dict[tuple[int, ...], Rows]:
    rows_by_counts: dict[tuple[int, ...], list[tuple[int, Times]]] = defaultdict(list)
    for row in _read(name, "placements"):
        rows_by_counts[tuple(map(int, row["counts"]))].append(_times(row))
    return {counts: sorted(rows) for counts, rows in rows_by_counts.items()}


def _surface(on_nodes: Mapping[tuple[int, ...], Rows], name: str) -> dict[int, dict[int, Rows]]:
    """Times by nodes, GPUs and local batch; placements that spread the GPUs differently are averaged."""
    measured: dict[tuple[int, int], dict[int, list[Times]]] = defaultdict(lambda: defaultdict(list))
    for counts, rows in on_nodes.items():
        for local, times in rows:
            measured[len(counts), sum(counts)][local].append(times)
    for row in _read(name, "scalability"):
        local, times = _times(row)
        measured[int(row["nodes"]), int(row["gpus"])][local].append(times)
    surface: dict[int, dict[int, Rows]] = defaultdict(dict)
    for nodes, gpus in sorted(measured):
        surface[nodes][gpus] = sorted(
            (local, (fmean(step for step, _ in times), fmean(wait for _, wait in times)))
            for local, times in measured[nodes, gpus].items()
        )
    return surface


def _epochs(name: str) -> tuple[dict[int, list[Times]], list[float]]:
    noise: dict[int, list[Times]] = defaultdict(list)
    ends: dict[int, list[float]] = defaultdict(list)
    for row in _read(name, "epochs"):
        noise[int(row["batch"])].append((float(row["grad_sqr"]), float(row["grad_var"])))
        ends[int(row["batch"])].append(float(row["progress"]))
    return dict(noise), [min(progress) for progress in zip(*ends.values(), strict=True)]


def _read(name: str, table: str) -> list[dict[str, str]]:
    path = files("muster.simulator") / "data" / "pollux" / name / f"{table}.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _times(row: Mapping[str, str]) -> tuple[int, Times]:
    return int(row["local_batch"]), (float(row["step_seconds"]), float(row["sync_seconds"]))


def _between(x: float, points: Sequence[tuple[float, Times]]) -> Times:
    """The values at `x` by linear interpolation, or extrapolation from the nearest two points; `points` ascend."""
    if len(points) == 1:
        return points[0][1]
    index = min(max(bisect_right(points, x, key=lambda point: point[0]), 1), len(points) - 1)
    (low, before), (high, after) = points[index - 1], points[index]
    weight = (x - low) / (high - low)
    return before[0] + weight * (after[0] - before[0]), before[1] + weight * (after[1] - before[1])
