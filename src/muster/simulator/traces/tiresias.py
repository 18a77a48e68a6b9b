"""The trace format of the Tiresias simulator (Gu et al., NSDI'19): jobs by submission, with the model that they train.

`work` is in seconds. The trace counts single GPUs, so each GPU is a pod unless the scenario sets `pod_gpus`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from muster.simulator.jobs import Job, pods
from muster.simulator.traces.table import bad_row, read_table


class Row(BaseModel):
    """A line of the file."""

    job_id: Annotated[int, Field(ge=0)]
    num_gpu: Annotated[int, Field(ge=1, le=4096)]
    submit_time: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    model_name: str


def jobs(path: Path) -> list[Job]:
    """Return the jobs in file order; raise BadInput."""
    rows = read_table(path, Row)
    index_of: dict[int, int] = {}
    for index, row in enumerate(rows):
        if row.job_id in index_of:
            raise bad_row(path, index, "job_id", f"found {row.job_id}, a duplicate of line {index_of[row.job_id] + 2}")
        index_of[row.job_id] = index
    return [Job(f"job-{row.job_id:03}", row.submit_time, pods(row.num_gpu, 1), row.duration, row.model_name) for row in rows]
