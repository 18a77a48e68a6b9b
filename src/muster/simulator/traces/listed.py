"""Jobs written into the scenario itself, one by one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from muster.simulator.jobs import Job
from muster.simulator.yaml_errors import Strict


class Listed(Strict):
    """One job, or several alike."""

    name: Annotated[str, Field(min_length=1)]
    arrival: Annotated[float, Field(ge=0)] = 0.0
    gpus: Annotated[int, Field(ge=1, le=4096)] = 1
    """GPUs of each worker."""
    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    work: Annotated[float, Field(gt=0)]
    """In the unit of the physics: seconds for the ideal one."""
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    every: Annotated[float, Field(ge=0)] = 0.0
    """Seconds between the arrivals of those that are alike."""
    kind: str = ""
    fewest: Annotated[int | None, Field(ge=1)] = None
    most: Annotated[int | None, Field(ge=1)] = None
    priority: int = 0


def jobs(jobs: Annotated[list[Listed], Field(min_length=1)]) -> list[Job]:
    """Return the jobs that are listed; of several alike, each with its number after the name."""
    return [
        Job(
            name=f"{one.name}-{index:03}" if one.count > 1 else one.name,
            arrival=one.arrival + index * one.every,
            tasks=(one.gpus,) * one.workers,
            work=one.work,
            kind=one.kind,
            fewest=one.fewest,
            most=one.most,
            priority=one.priority,
        )
        for one in jobs
        for index in range(one.count)
    ]
