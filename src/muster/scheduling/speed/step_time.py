"""The step time of a kind of gang, by GPUs and links: a law fitted to measurements.

A step is the time in which every GPU does one mini-batch. Its law is

    compute + each * (GPUs - 1) + volume * exchange

where `exchange` is the seconds in which these GPUs sum 1 GB (`network.exchange`), `volume` is in GB, and `each` is the cost of
one more GPU whatever the links. A coefficient that the measurements leave open comes from a prior. None is negative, so faster
links never hurt and the speed-up never exceeds the number of GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from muster.scheduling.gang import Sensitivity
from muster.scheduling.profile import Profile

USUAL_STEP = 0.2
"""Seconds of a step: ResNet-50 and VGG16 take 0.16 and 0.22 on a P100 at batch 32 (TensorFlow's benchmarks, 2017)."""
USUAL_GB = 0.2
"""The median size of Tiresias's ten models (NSDI'19, table 6)."""
SENSITIVE_GB = 0.53
"""VGG16, the model that both Gandiva and Tiresias call sensitive."""
EACH = 0.05
"""The prior of `each`, as a share of `compute`: VGG16 is 3.8 times as fast on 4 P100 (TensorFlow's benchmarks, 2017)."""
LEAST_COMPUTE = 0.05
"""The least `compute`, as a share of the shortest measured step."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measured step, in seconds, with the number of GPUs and the seconds of their `exchange`."""

    gpus: int
    exchange: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Law:
    """The coefficients, in seconds, seconds a GPU, and GB."""

    compute: float
    each: float
    volume: float
    each_measured: bool = False
    volume_measured: bool = False
    """Whether the coefficient follows from measurements alone; else from a prior."""

    def seconds(self, gpus: int, exchange: float) -> float:
        """Return the seconds of a step."""
        return self.compute + self.each * (gpus - 1) + self.volume * exchange


def exposure(profile: Profile, sensitivity: Sensitivity, step: float | None) -> float:
    """Return the prior of `volume`, in GB a second of `compute`, for a kind with a measured step time, or with none."""
    if sensitivity is Sensitivity.LOW:
        return 0.0
    if sensitivity is Sensitivity.HIGH:
        return SENSITIVE_GB / USUAL_STEP
    if profile.model_mb is not None:
        return profile.model_mb / 1000 / (step or USUAL_STEP)
    return USUAL_GB / USUAL_STEP


def fit(points: Sequence[Point], exposed: float) -> Law:
    """Return the law nearest to the points by least squares; `exposed` is the prior of `volume` (see `exposure`)."""
    if not points:
        return Law(1.0, EACH, exposed)
    volume = _slope([(p.gpus, p.exchange, p.seconds) for p in points])
    volume_measured = volume is not None
    if volume is None:
        volume = exposed * _mean(p.seconds / (1 + EACH * (p.gpus - 1) + exposed * p.exchange) for p in points)
    unlinked = [(p.gpus, p.seconds - volume * p.exchange) for p in points]
    each = _slope([(0, gpus, seconds) for gpus, seconds in unlinked])
    each_measured = each is not None and volume_measured
    if each is None:
        each = EACH * max(0.0, _mean(seconds / (1 + EACH * (gpus - 1)) for gpus, seconds in unlinked))
    compute = _mean(seconds - each * (gpus - 1) for gpus, seconds in unlinked)
    compute = max(compute, LEAST_COMPUTE * min(p.seconds for p in points))
    return Law(compute, each, volume, each_measured, volume_measured)


def _slope(points: Iterable[tuple[int, float, float]]) -> float | None:
    """The common slope of (group, x, y) within groups, at least 0; None if x is the same throughout each group."""
    groups: dict[int, list[tuple[float, float]]] = {}
    for group, x, y in points:
        groups.setdefault(group, []).append((x, y))
    square = product = 0.0
    for members in groups.values():
        x0, y0 = _mean(x for x, _ in members), _mean(y for _, y in members)
        square += sum((x - x0) ** 2 for x, _ in members)
        product += sum((x - x0) * (y - y0) for x, y in members)
    return max(0.0, product / square) if square > 1e-12 else None


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
