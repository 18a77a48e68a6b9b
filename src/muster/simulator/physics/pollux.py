"""How fast the six models of Pollux (Qiao et al., OSDI'21) train on nodes of four T4: measured step times, measured noise.

The unit of progress is a mini-batch of the smallest batch size: a larger batch makes less progress for each example, as the
noise of the gradients at that point of the training says (section 3.1). So a rate is what Pollux calls goodput. A job's kind
names its model and, after a slash, the batch size that its user chose ("cifar10/2048"); without one the job adapts its batch
size to the GPUs that it has, for the best goodput (as AdaptDL does, section 4.1; but AdaptDL fits a model to the step times).

Step times: `data/pollux`, by GPUs on each node and local batch size, linear in between. Where a batch does not fit into the
memory of the GPUs, gradients are accumulated over several passes, of which only the last synchronises.
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
"""What a start, a move or another number of GPUs costs: checkpoint and restart (their simulator's constant)."""
APPLICATIONS = ("bert", "cifar10", "deepspeech2", "imagenet", "ncf", "yolov3")
LOCAL_BATCH_LIMITS = {"yolov3": 8}
"""Examples that a GPU's memory holds, where it is less than the largest that was measured."""
BATCHES_TRIED = 50
"""Batch sizes, in equal ratios, of which an adapting job takes the best: as many as AdaptDL tries."""

Times = tuple[float, float]
"""Seconds of a step, and those of them in which it waits for other GPUs."""
Rows = Sequence[tuple[int, Times]]
"""Times by local batch size, ascending."""


class Application:
    """What was measured of one model; use `application`, which reads each once."""

    def __init__(self, name: str) -> None:
        self._on_nodes = _placements(name)
        self._on_many = _surface(self._on_nodes, name)
        self._noise, self.epochs = _epochs(name)
        """Squared norm and variance of the gradients in each epoch by batch size; the progress at which each epoch ends."""
        local = [batch for rows in self._on_nodes.values() for batch, _ in rows]
        self.least_local, self.most_local = min(local), LOCAL_BATCH_LIMITS.get(name, max(local))
        self.least_batch, self.most_batch = min(self._noise), max(self._noise)
        self._best: dict[tuple[tuple[int, ...], int], int] = {}

    def epoch(self, done: float) -> int:
        """Return the number, from 0, of the epoch in which a job with so much progress is."""
        return min(bisect_right(self.epochs, done), len(self.epochs) - 1)

    def split(self, batch: int, gpus: int) -> tuple[int, int]:
        """Return the local batch of one pass, and the passes of a step that makes about `batch`, never over the largest."""
        local = ceil(batch / gpus - 1e-8)
        passes = ceil(local / self.most_local - 1e-8)
        if gpus == 1 and batch > self.least_batch:
            passes = max(2, passes)  # the noise is estimated from the difference of two gradients
        return min(ceil(local / passes - 1e-8), self.most_batch // (gpus * passes)), passes

    def times(self, counts: tuple[int, ...], local: int) -> Times:
        """Return the times of a pass on `counts` GPUs of each node, most first."""
        rows = self._on_nodes.get(counts)
        return _between(local, rows) if rows else self._between_nodes(len(counts), sum(counts), local)

    def step_seconds(self, counts: tuple[int, ...], batch: int) -> Times:
        """Return the times of a whole step with this batch size."""
        local, passes = self.split(batch, sum(counts))
        step, wait = self.times(counts, local)
        return step + (passes - 1) * (step - wait), wait

    def progress(self, batch: float, epoch: int) -> float:
        """Return the progress that one step of this batch size makes in an epoch, from 1 for the smallest."""
        square, variance = _between(batch, [(size, noise[epoch]) for size, noise in self._noise.items()])
        return (variance + square) / (variance * self.least_batch / batch + square)

    @cache  # noqa: B019 (there are six applications, and they stay)
    def goodput(self, counts: tuple[int, ...], batch: int, epoch: int) -> float:
        """Return the progress a second."""
        local, passes = self.split(batch, sum(counts))
        return self.progress(sum(counts) * local * passes, epoch) / self.step_seconds(counts, batch)[0]

    def best_batch(self, counts: tuple[int, ...], epoch: int) -> int:
        """Return the batch size with the best goodput that the GPUs can hold in as many passes as it takes."""
        found = self._best.get((counts, epoch))
        if found is None:
            tried = sorted(set(self._candidates(sum(counts))))
            found = self._best[counts, epoch] = max(tried, key=lambda batch: self.goodput(counts, batch, epoch))
        return found

    def most_gpus(self, batch: int | None = None) -> int:
        """Return the GPUs over which a batch (the largest, unless told) can be spread."""
        return max(1, (batch or self.most_batch) // self.least_local)

    def _candidates(self, gpus: int) -> Iterator[int]:
        least = max(self.least_batch, self.least_local * gpus)
        for index in range(BATCHES_TRIED):
            batch = round(least * (self.most_batch / least) ** (index / (BATCHES_TRIED - 1)))
            if self.least_local <= self.split(batch, gpus)[0]:
                yield batch

    def _between_nodes(self, nodes: int, gpus: int, local: int) -> Times:
        """Times on more nodes than were measured one by one: between numbers of nodes, at as many GPUs on each."""
        levels = [
            (level, _between(gpus * level / nodes, [(count, _between(local, rows)) for count, rows in by_gpus.items()]))
            for level, by_gpus in self._on_many.items()
        ]
        return _between(nodes, levels)


@cache
def application(name: str) -> Application:
    """Return what was measured of a model; raise KeyError for one that is not in `APPLICATIONS`."""
    if name not in APPLICATIONS:
        raise KeyError(name)
    return Application(name)


class Pollux:
    """The six models on T4 nodes; neighbours do not disturb each other, as in the published base case."""

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
    """Return the model that jobs of a kind train, and their batch size, None where they adapt it."""
    name, _, batch = kind.partition("/")
    return application(name), int(batch) if batch else None


def _placements(name: str) -> dict[tuple[int, ...], Rows]:
    found: dict[tuple[int, ...], list[tuple[int, Times]]] = defaultdict(list)
    for row in _read(name, "placements"):
        found[tuple(map(int, row["counts"]))].append(_times(row))
    return {counts: sorted(rows) for counts, rows in found.items()}


def _surface(on_nodes: Mapping[tuple[int, ...], Rows], name: str) -> dict[int, dict[int, Rows]]:
    """Times by nodes, GPUs and local batch; the mean of placements that differ only in how the GPUs are spread."""
    found: dict[tuple[int, int], dict[int, list[Times]]] = defaultdict(lambda: defaultdict(list))
    for counts, rows in on_nodes.items():
        for local, times in rows:
            found[len(counts), sum(counts)][local].append(times)
    for row in _read(name, "scalability"):
        local, times = _times(row)
        found[int(row["nodes"]), int(row["gpus"])][local].append(times)
    surface: dict[int, dict[int, Rows]] = defaultdict(dict)
    for nodes, gpus in sorted(found):
        several = found[nodes, gpus].items()
        surface[nodes][gpus] = sorted(
            (local, (fmean(s for s, _ in all_), fmean(w for _, w in all_))) for local, all_ in several
        )
    return surface


def _epochs(name: str) -> tuple[dict[int, list[Times]], list[float]]:
    noise: dict[int, list[Times]] = defaultdict(list)
    ends: dict[int, list[float]] = defaultdict(list)
    for row in _read(name, "epochs"):
        noise[int(row["batch"])].append((float(row["grad_sqr"]), float(row["grad_var"])))
        ends[int(row["batch"])].append(float(row["progress"]))
    return dict(noise), [min(together) for together in zip(*ends.values(), strict=True)]


def _read(name: str, table: str) -> list[dict[str, str]]:
    path = files("muster.simulator") / "data" / "pollux" / name / f"{table}.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _times(row: Mapping[str, str]) -> tuple[int, Times]:
    return int(row["local_batch"]), (float(row["step_seconds"]), float(row["sync_seconds"]))


def _between(x: float, points: Sequence[tuple[float, Times]]) -> Times:
    """The values at `x`, linear between the two points around it, or beyond the last two; `points` ascend."""
    if len(points) == 1:
        return points[0][1]
    index = min(max(bisect_right(points, x, key=lambda point: point[0]), 1), len(points) - 1)
    (low, before), (high, after) = points[index - 1], points[index]
    part = (x - low) / (high - low)
    return before[0] + part * (after[0] - before[0]), before[1] + part * (after[1] - before[1])
