"""The jobs of FfDL's two scheduling studies (IBM; Jayaram et al., Middleware'19).

`learners` is the study of gangs: synchronous jobs submitted together, more than fit. `days` stands in for the 60-day trace of
the study of placement, which is not public: Philly's jobs (`traces.philly`), thinned until they ask for a given share of the
cluster. Arrivals keep their bursts, jobs their lengths and sizes, none of which a generator would have.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import Field

from muster.simulator.jobs import Job, pods
from muster.simulator.traces import philly

DAY = 86_400.0


def learners(
    seed: int,
    count: Annotated[int, Field(ge=1, le=100_000)] = 50,
    fewest: Annotated[int, Field(ge=1)] = 2,
    most: Annotated[int, Field(ge=1)] = 4,
    gpus: Annotated[list[int], Field(min_length=1)] = [1],  # noqa: B006 (never changed)
    seconds: Annotated[float, Field(gt=0)] = 3600.0,
) -> list[Job]:
    """Return jobs submitted at once: each of `fewest` to `most` learners, each learner with one of `gpus`."""
    random = Random(seed)
    return [
        Job(f"job-{index:03}", 0.0, (random.choice(gpus),) * random.randint(fewest, most), seconds * random.uniform(0.5, 1.5))
        for index in range(count)
    ]


def days(
    seed: int,
    path: Path,
    length: Annotated[float, Field(gt=0)] = 60.0,
    gpus: Annotated[int, Field(ge=1)] = 400,
    load: Annotated[float, Field(gt=0)] = 0.6,
    most_gpus: Annotated[int, Field(ge=1)] = 32,
    pod_gpus: Annotated[int, Field(ge=1)] = 4,
    spread: bool = False,
) -> list[Job]:
    """Return `length` days of Philly from a day drawn at random, of each job so many that they ask for `load` of `gpus`.

    A job counts with the GPU time that it has within the days. Raise BadInput where the file is bad.
    """
    random = Random(seed)
    recorded = philly.jobs(path, most_gpus=most_gpus)
    start = random.uniform(0.0, max(0.0, recorded[-1].arrival - length * DAY))
    end = start + length * DAY
    inside = [job for job in recorded if start <= job.arrival < end]
    asked = sum(job.gpus * min(job.work, end - job.arrival) for job in inside)
    keep = load * gpus * length * DAY / asked
    return [
        replace(job, name=f"{job.name}-{copy}", arrival=job.arrival - start, tasks=pods(job.gpus, pod_gpus), spread=spread)
        for job in inside
        for copy in range(int(keep) + (random.random() < keep % 1.0))
    ]
