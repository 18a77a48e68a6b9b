"""Philly: jobs of Microsoft's clusters from September to December 2017, as benchmarks/data/philly has them.

Jeon et al., "Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training Workloads", ATC'19. The trace knows when a job
was submitted, how many GPUs it had and how long it ran in all: `work` is seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, NaiveDatetime

from muster.simulator.jobs import Job, pods
from muster.simulator.traces.table import read_table
from muster.simulator.yaml_errors import BadInput, Problem

LARGEST_POD = 8
"""GPUs of a pod unless the scenario says otherwise: Philly's servers have at most 8."""


class Row(BaseModel):
    """A line of the file."""

    timestamp: NaiveDatetime
    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    num_gpus: Annotated[int, Field(ge=1, le=4096)]
    cluster: str


def jobs(
    path: Path,
    cluster: str | None = None,
    limit: Annotated[int | None, Field(ge=1)] = None,
    gpu_scale: Annotated[float, Field(gt=0)] = 1.0,
    most_gpus: Annotated[int | None, Field(ge=1)] = None,
) -> list[Job]:
    """Return the jobs by submission, the first at 0; raise BadInput.

    `cluster`: of this virtual cluster only; `limit`: so many, from the first; `gpu_scale`: times as many GPUs each, rounded, at
    least one; `most_gpus`: leave out jobs of more.
    """
    rows = [row for row in read_table(path, Row) if cluster in (None, row.cluster)]
    if not rows:
        raise BadInput(path, [Problem(None, "cluster", f"no job is of virtual cluster {cluster!r}")])
    rows.sort(key=lambda row: row.timestamp)  # stable: jobs of one second stay in the order of the file
    first = rows[0].timestamp
    sized = [(row, max(1, round(row.num_gpus * gpu_scale))) for row in rows]
    fitting = [(row, gpus) for row, gpus in sized if most_gpus is None or gpus <= most_gpus][:limit]
    return [
        Job(f"philly-{index:05}", (row.timestamp - first).total_seconds(), pods(gpus, LARGEST_POD), row.duration)
        for index, (row, gpus) in enumerate(fitting)
    ]
