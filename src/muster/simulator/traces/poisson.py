"""Random jobs: exponential gaps between arrivals, log-normal lengths, sizes by weight.

Training jobs are mostly small and short, with a long tail; a log-normal length has that shape with two parameters.
"""

from __future__ import annotations

from math import log
from random import Random
from typing import Annotated

from pydantic import Field

from muster.simulator.jobs import Job, pods

LARGEST_POD = 8


def jobs(
    seed: int,
    count: Annotated[int, Field(ge=1, le=1_000_000)],
    per_hour: Annotated[float, Field(gt=0)],
    median_seconds: Annotated[float, Field(gt=0)],
    spread: Annotated[float, Field(ge=0, le=5)] = 1.0,
    gpus: dict[Annotated[int, Field(ge=1, le=4096)], Annotated[float, Field(gt=0)]] = {1: 1.0},  # noqa: B006 (never changed)
) -> list[Job]:
    """Return `count` jobs, `per_hour` on average; `spread` is the deviation of log length, `gpus` the weight of each size."""
    random = Random(seed)
    sizes, weights = list(gpus), list(gpus.values())
    drawn, now = [], 0.0
    for index in range(count):
        now += random.expovariate(per_hour / 3600.0)
        size = random.choices(sizes, weights)[0]
        drawn.append(Job(f"job-{index:05}", now, pods(size, LARGEST_POD), random.lognormvariate(log(median_seconds), spread)))
    return drawn
