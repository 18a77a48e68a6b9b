"""Jobs listed in the scenario itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from muster.simulator.jobs import Job
from muster.simulator.yaml_errors import Strict


class Listed(Strict):
    """One job, or `count` equal jobs."""

    name: Annotated[str, Field(min_length=1)]
    arrival: Annotated[float, Field(ge=0)] = 0.0
    gpus: Annotated[int, Field(ge=1, le=4096)] = 1
    """GPUs of each worker."""
    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    work: Annotated[float, Field(gt=0)]
    """In the unit of the physics: seconds for `ideal`."""
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    every: Annotated[float, Field(ge=0)] = 0.0
    """Seconds between the arrivals of equal jobs."""
    kind: str = ""
    fewest: Annotated[int | None, Field(ge=1)] = None
    most: Annotated[int | None, Field(ge=1)] = None
    priority: int = 0


def jobs(jobs: Annotated[list[Listed], Field(min_length=1)]) -> list[Job]:
    """Return the listed jobs; equal jobs have a number after the name."""
    return [
        Job(
            name=f"{listed.name}-{index:03}" if listed.count > 1 else listed.name,
            arrival=listed.arrival + index * listed.every,
            tasks=(listed.gpus,) * listed.workers,
            work=listed.work,
            kind=listed.kind,
            fewest=listed.fewest,
            most=listed.most,
            priority=listed.priority,
        )
        for listed in jobs
        for index in range(listed.count)
    ]
