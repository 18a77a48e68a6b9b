"""A job as it truly is, and the gang that a policy sees of it.

`work` is in the physics' unit of progress (mini-batches, or seconds at full speed for traces that know no more). A policy
never sees it, nor the rates that the physics would give elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from muster.scheduling.gang import EXCLUSIVE, Gang, Sensitivity, Sharing, Task
from muster.scheduling.resources import ONE_POD, WHOLE, Resources
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint
from muster.scheduling.topology.node import Level


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a trace: what it asks for, and what it has to do."""

    name: str
    arrival: float
    tasks: tuple[int, ...]
    """GPUs of each worker that it asks for."""
    work: float
    kind: str = ""
    fewest: int | None = None
    """Workers with which it can start; None: all that it asks for."""
    most: int | None = None
    """Workers to which it can grow, each like its first."""
    queue: str = "default"
    priority: int = 0
    sharing: Sharing = EXCLUSIVE
    spread: bool = False
    required: Level = Level.CLUSTER
    preferred: Level = Level.NODE
    sensitivity: Sensitivity = Sensitivity.AUTO
    start_seconds: float = 0.0
    """From its first placement to its first progress."""
    share: int = WHOLE
    """The thousandths that each worker takes of its GPU; less than all of it only with one GPU."""
    resources: Resources = ONE_POD
    """What each worker needs beside GPUs."""
    where: Constraint = ANYWHERE

    @property
    def gpus(self) -> int:
        return sum(self.tasks)

    @property
    def amount(self) -> float:
        """The GPUs that it asks for, parts of one as what they are."""
        return self.gpus if self.share == WHOLE else self.gpus * self.share / WHOLE


def gang(job: Job) -> Gang:
    """The gang that is queued when the job is submitted."""
    sizes = job.tasks + (job.tasks[0],) * max(0, (job.most or 0) - len(job.tasks))
    tasks = (
        Task(f"{job.name}-{index}", gpus, job.resources, job.where, index=index, share=job.share)
        for index, gpus in enumerate(sizes)
    )
    return Gang(
        name=job.name,
        queue=job.queue,
        arrived=job.arrival,
        tasks=tuple(tasks),
        priority=job.priority,
        spread=job.spread,
        required=job.required,
        preferred=job.preferred,
        sensitivity=job.sensitivity,
        fewest=job.fewest,
        kind=job.kind,
        asked=len(job.tasks) if len(sizes) > len(job.tasks) else None,
        sharing=job.sharing,
        since=job.arrival,
    )


def pods(gpus: int, per_pod: int) -> tuple[int, ...]:
    """The workers of a job of `gpus` GPUs whose pods have at most `per_pod` each."""
    whole, resources = divmod(gpus, per_pod)
    return (per_pod,) * whole + ((resources,) if resources else ())
