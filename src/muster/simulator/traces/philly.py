"""Philly: jobs of Microsoft's clusters from September to December 2017 (benchmarks/data/philly).

Jeon et al., "Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training Workloads", ATC'19. The trace records a job's
submission, GPUs and total running time: `work` is in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, NaiveDatetime

from muster.simulator.jobs import Job, pods
from muster.simulator.traces.table import read_table
from muster.simulator.yaml_errors import BadInput, Problem

LARGEST_POD = 8
"""GPUs of a pod unless the scenario sets `pod_gpus`: Philly's servers have at most 8."""


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
    """Return the jobs in order of submission, the first at 0; raise BadInput.

    `cluster`: only this virtual cluster; `limit`: only the first jobs; `gpu_scale`: a factor on each job's GPUs, rounded to at
    least one; `most_gpus`: only jobs with at most this many GPUs.
    """
    rows = [row for row in read_table(path, Row) if cluster in (None, row.cluster)]
    if not rows:
        raise BadInput(path, [Problem(None, "cluster", f"no job is of virtual cluster {cluster!r}")])
    rows.sort(key=lambda row: row.timestamp)  # stable: jobs of one second stay in file order
    first = rows[0].timestamp
    sized = [(row, max(1, round(row.num_gpus * gpu_scale))) for row in rows]
    fitting = [(row, gpus) for row, gpus in sized if most_gpus is None or gpus <= most_gpus][:limit]
    return [
        Job(f"philly-{index:05}", (row.timestamp - first).total_seconds(), pods(gpus, LARGEST_POD), row.duration)
        for index, (row, gpus) in enumerate(fitting)
    ]
