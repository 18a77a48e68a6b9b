"""The workloads of Pollux (Qiao et al., OSDI'21; benchmarks/data/pollux): jobs that train one of six models.

The authors tuned the GPUs and batch size of each job for efficiency (TunedJobs). `work` is in the unit of `physics.pollux`, so
these jobs need that physics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from muster.simulator.jobs import Job
from muster.simulator.physics.pollux import APPLICATIONS, RESTART_SECONDS, application
from muster.simulator.traces.table import bad_row, read_table
from muster.simulator.yaml_errors import BadInput

MOST_GPUS = 64
"""The largest number of GPUs of a job, the limit of the measured step times."""
ONE_GPU = ("ncf",)
"""Models that train within two minutes; they keep one GPU and the workload's batch size under every policy."""


class Row(BaseModel):
    """A line of the file."""

    name: str
    time: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    application: str
    num_replicas: Annotated[int, Field(ge=1, le=MOST_GPUS)]
    batch_size: Annotated[int, Field(ge=1)]


def jobs(path: Path, scaling: Literal["rigid", "elastic", "adaptive"] = "rigid") -> list[Job]:
    """Return the jobs in file order, one pod for each GPU; raise BadInput.

    `scaling`: a rigid job has its requested GPUs; an elastic one any number over which its batch can be split; an adaptive one
    also chooses the best batch size for its GPUs.
    """
    return [_job(path, index, row, scaling) for index, row in enumerate(read_table(path, Row))]


def _job(path: Path, index: int, row: Row, scaling: str) -> Job:
    if row.application not in APPLICATIONS:
        raise bad_row(path, index, "application", f"found {row.application!r}; expected one of {', '.join(APPLICATIONS)}")
    app = application(row.application)
    if not app.least_batch <= row.batch_size <= app.most_batch:
        raise _bad_batch(path, index, row)
    fixed = scaling != "adaptive" or row.application in ONE_GPU
    most = 1 if row.application in ONE_GPU else min(MOST_GPUS, app.most_gpus(row.batch_size if fixed else None))
    elastic = scaling != "rigid" and most > 1
    return Job(
        name=row.name,
        arrival=row.time,
        tasks=(1,) * row.num_replicas,
        work=app.epochs[-1],
        kind=f"{row.application}/{row.batch_size}" if fixed else row.application,
        fewest=1 if elastic else None,
        most=most if elastic else None,
        start_seconds=RESTART_SECONDS,
    )


def _bad_batch(path: Path, index: int, row: Row) -> BadInput:
    app = application(row.application)
    expected = f"expected {app.least_batch} to {app.most_batch}, the measured range of {row.application}"
    return bad_row(path, index, "batch_size", f"found {row.batch_size}; {expected}")
