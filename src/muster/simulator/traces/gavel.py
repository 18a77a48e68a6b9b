"""The continuous jobs of Gavel (Narayanan et al., OSDI'20, section 7): one GPU each, of twenty-six kinds, arriving at random.

Lengths follow Philly's: 10^x minutes alone on a V100, x uniform from 1.5 to 3 for 80 % of the jobs and from 3 to 4 for the
others, which have most of the work. The random draws and their order are those of Gavel's simulator, so a seed reproduces the
jobs of its published runs.
"""

from __future__ import annotations

from math import log
from random import Random
from typing import Annotated

from pydantic import Field

from muster.scheduling.gang import Sharing
from muster.simulator.jobs import Job
from muster.simulator.physics import gavel

SHORT = 0.8
"""The fraction of short jobs."""


def jobs(
    seed: int,
    count: Annotated[int, Field(ge=1, le=1_000_000)],
    per_hour: Annotated[float, Field(gt=0)],
) -> list[Job]:
    """Return `count` jobs, the first at time 0, `per_hour` on average; `work` is in mini-batches of `physics.gavel`."""
    shapes, gaps = Random(seed + 2), Random(seed + 3)
    kinds = gavel.kinds()
    drawn, now = [], 0.0
    for index in range(count):
        shapes.random()  # Gavel's simulator draws the size of multi-GPU jobs here
        minutes = 10 ** (shapes.uniform(3, 4) if shapes.random() >= SHORT else shapes.uniform(1.5, 3))
        kind = shapes.choice(kinds)
        work = 60 * minutes * gavel.rate(kind, "V100")
        drawn.append(Job(f"job-{index:05}", now, (1,), work, kind, sharing=Sharing(slices=True, packs=True)))
        now -= log(1 - gaps.random()) * 3600 / per_hour
    return drawn
