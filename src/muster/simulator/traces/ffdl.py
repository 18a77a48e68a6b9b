"""The jobs of FfDL's two scheduling studies (IBM; Jayaram et al., Middleware'19).

`learners` is the gang scheduling study: synchronous jobs submitted together, more than the cluster holds. `days` replaces the
private 60-day trace of the placement study: Philly's jobs (`traces.philly`), sampled to a given load. Recorded jobs keep their
bursts, lengths and sizes, which a generator would lose.
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
    """Return jobs submitted at time 0, each with `fewest` to `most` learners, all of a size drawn from `gpus`."""
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
    """Return `length` days of Philly from a random start, each job sampled or repeated to a load of `load` on `gpus` GPUs.

    The load counts a job's GPU time within these days. Raise BadInput for a bad file.
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
