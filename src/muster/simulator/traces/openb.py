"""openb: a production cluster of Alibaba whose pods share GPUs (benchmarks/data/openb).

Weng et al., "Beware of Fragmentation", ATC'23. Pods request CPU, memory, and whole GPUs or thousandths of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from muster.scheduling.gang import Gang
from muster.scheduling.resources import WHOLE, Resources
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint, Requirement
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.jobs import Job, gang_of
from muster.simulator.traces.table import read_table
from muster.simulator.yaml_errors import complaint

MODEL = "gpu-model"
"""The node label with the GPU model."""
PODS = 1 << 16
"""The pod capacity of a node: the trace sets no limit."""
_MIB = 1 << 20
Amount = Annotated[int, Field(ge=0, le=1 << 40)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NodeRow(BaseModel):
    """A line of the list of nodes."""

    sn: Annotated[str, Field(min_length=1)]
    cpu_milli: Amount
    memory_mib: Amount
    gpu: Annotated[int, Field(ge=0, le=16)]
    model: str


class PodRow(BaseModel):
    """A line of a list of pods."""

    name: Annotated[str, Field(min_length=1)]
    cpu_milli: Amount
    memory_mib: Amount
    num_gpu: Annotated[int, Field(ge=0, le=16)]
    gpu_milli: Annotated[int, Field(ge=0, le=WHOLE)]
    gpu_spec: str
    creation_time: Seconds
    deletion_time: Seconds

    @field_validator("gpu_milli")
    @classmethod
    def _parts_are_of_one(cls, milli: int, info: ValidationInfo) -> int:
        gpus = info.data.get("num_gpu", 0)
        if gpus and (not milli or (gpus > 1 and milli < WHOLE)):
            raise complaint(f"found '{milli}' with num_gpu {gpus}; expected {WHOLE}, or with one GPU 1 to {WHOLE}")
        return milli


def nodes(path: Path) -> list[Node]:
    """Return the nodes in file order, with unknown GPU links; raise BadInput."""
    return [_node(row) for row in read_table(path, NodeRow)]


def pods(path: Path) -> list[Gang]:
    """Return each pod as a queued gang, in file order; raise BadInput."""
    return [gang_of(_job(row)) for row in read_table(path, PodRow)]


def jobs(path: Path) -> list[Job]:
    """Return the pods as jobs with the duration of the pod; raise BadInput."""
    return [_job(row) for row in read_table(path, PodRow) if row.deletion_time > row.creation_time]


def _node(row: NodeRow) -> Node:
    machine, resources = unknown_machine(row.gpu), Resources(row.cpu_milli, row.memory_mib * _MIB, PODS)
    labels = {MODEL: row.model}
    return Node(row.sn, machine, machine.all, machine.all, row.model, resources=resources, allocatable=resources, labels=labels)


def _job(row: PodRow) -> Job:
    resources = Resources(row.cpu_milli, row.memory_mib * _MIB, 1)
    share = row.gpu_milli if row.num_gpu else WHOLE
    seconds = row.deletion_time - row.creation_time
    where = _constraint(row.gpu_spec)
    return Job(row.name, row.creation_time, (row.num_gpu,), seconds, share=share, resources=resources, where=where)


def _constraint(models: str) -> Constraint:
    """A constraint to nodes with one of the GPU models, separated by "|"."""
    named = tuple(model for model in models.split("|") if model)
    return Constraint(terms=((Requirement(MODEL, "In", named),),)) if named else ANYWHERE
