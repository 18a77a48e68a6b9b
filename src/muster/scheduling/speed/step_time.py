"""How long a step of a kind of gang takes, by the number of its GPUs and what its links carry: a law fitted to measurements.

A step is the time in which every GPU does one mini-batch. It is taken to be

    compute + each * (GPUs - 1) + volume * exchange

where `exchange` is the seconds in which these GPUs sum 1 GB (`network.exchange`), so `volume` is in GB; `each` is what every
GPU more costs whatever the links. Where the measured points do not tell a coefficient, it comes from a prior; none is negative,
so faster links never hurt and speed-up never exceeds the number of GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from muster.scheduling.gang import Sensitivity
from muster.scheduling.profile import Profile

USUAL_STEP = 0.2
"""Seconds: ResNet-50 and VGG16 take 0.16 and 0.22 on a P100 at batch 32 (TensorFlow's benchmarks, 2017)."""
USUAL_GB = 0.2
"""The median size of Tiresias's ten models (NSDI'19, table 6)."""
SENSITIVE_GB = 0.53
"""VGG16, the model that both Gandiva and Tiresias call sensitive."""
EACH = 0.05
"""The prior loss for each GPU more, of `compute`: 4 P100 give 3.8 times one on VGG16 (TensorFlow's benchmarks, 2017)."""
LEAST_COMPUTE = 0.05
"""The share of the shortest step that is computing at least."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: seconds of a step on so many GPUs whose exchange takes so long."""

    gpus: int
    exchange: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Law:
    """The three coefficients, in seconds, seconds a GPU, and GB."""

    compute: float
    each: float
    volume: float
    each_measured: bool = False
    volume_measured: bool = False
    """Whether the points tell the coefficient; else it comes from a prior."""

    def seconds(self, gpus: int, exchange: float) -> float:
        """Return the time of a step."""
        return self.compute + self.each * (gpus - 1) + self.volume * exchange


def exposure(profile: Profile, sensitivity: Sensitivity, step: float | None) -> float:
    """Return the prior volume beside compute, in GB a second, for a kind of which one step time is known, or none."""
    if sensitivity is Sensitivity.LOW:
        return 0.0
    if sensitivity is Sensitivity.HIGH:
        return SENSITIVE_GB / USUAL_STEP
    if profile.model_mb is not None:
        return profile.model_mb / 1000 / (step or USUAL_STEP)
    return USUAL_GB / USUAL_STEP


def fit(points: Sequence[Point], exposed: float) -> Law:
    """Return the law nearest to the points by least squares; `exposed` is the prior of volume beside compute."""
    if not points:
        return Law(1.0, EACH, exposed)
    volume = _slope([(p.gpus, p.exchange, p.seconds) for p in points])
    volume_measured = volume is not None
    if volume is None:
        volume = exposed * _mean(p.seconds / (1 + EACH * (p.gpus - 1) + exposed * p.exchange) for p in points)
    rest = [(p.gpus, p.seconds - volume * p.exchange) for p in points]
    each = _slope([(0, gpus, seconds) for gpus, seconds in rest])
    each_measured = each is not None and volume_measured
    if each is None:
        each = EACH * max(0.0, _mean(seconds / (1 + EACH * (gpus - 1)) for gpus, seconds in rest))
    compute = _mean(seconds - each * (gpus - 1) for gpus, seconds in rest)
    compute = max(compute, LEAST_COMPUTE * min(p.seconds for p in points))
    return Law(compute, each, volume, each_measured, volume_measured)


def _slope(points: Iterable[tuple[int, float, float]]) -> float | None:
    """The slope of y over x within groups, at least 0; None where no group has two different x."""
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
    found = list(values)
    return sum(found) / len(found)
