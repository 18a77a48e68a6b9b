"""A job with its true amount of work, and the gang that a policy sees.

`work` is in the unit of progress of the physics: mini-batches, or seconds at full speed for traces that record only durations.
A policy sees neither the work nor the rates on other placements.
"""

from __future__ import annotations

from dataclasses import dataclass

from muster.scheduling.gang import EXCLUSIVE, Gang, Sensitivity, Sharing, Task
from muster.scheduling.resources import ONE_POD, WHOLE, Resources
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint
from muster.scheduling.topology.node import Level


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a trace: its request and its work."""

    name: str
    arrival: float
    tasks: tuple[int, ...]
    """GPUs of each requested worker."""
    work: float
    kind: str = ""
    fewest: int | None = None
    """The smallest number of workers; None: all requested workers."""
    most: int | None = None
    """The largest number of workers, each like the first; None: not elastic upwards."""
    queue: str = "default"
    priority: int = 0
    sharing: Sharing = EXCLUSIVE
    spread: bool = False
    required: Level = Level.CLUSTER
    preferred: Level = Level.NODE
    sensitivity: Sensitivity = Sensitivity.AUTO
    start_seconds: float = 0.0
    """Seconds from the first placement to the first progress."""
    share: int = WHOLE
    """Thousandths of its GPU that each worker uses; below 1,000 only with one GPU."""
    resources: Resources = ONE_POD
    """CPU, memory and pods of each worker."""
    where: Constraint = ANYWHERE

    @property
    def gpus(self) -> int:
        return sum(self.tasks)

    @property
    def amount(self) -> float:
        """Requested GPUs, a fraction of one counted as such."""
        return self.gpus if self.share == WHOLE else self.gpus * self.share / WHOLE


def gang_of(job: Job) -> Gang:
    """Return the queued gang of a submitted job."""
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
    """Return the GPUs of each pod of a job of `gpus` GPUs, at most `per_pod` each."""
    full_pods, remainder = divmod(gpus, per_pod)
    return (per_pod,) * full_pods + ((remainder,) if remainder else ())
