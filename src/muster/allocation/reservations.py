"""The GPUs that DLJobs' placements reserve, by task, and for whom.

A reservation belongs to a DLJob by namespace, name and uid, and to one of its placements by the attempt. A task is named by
its pod: "NAMESPACE/NAME".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from muster.allocation.holding import Holding
from muster.kube.objects import Meta, ReservationStatus, Reserved
from muster.scheduling.resources import NOTHING, Resources
from muster.scheduling.topology.links import MOST_GPUS, GpuSet, gpu_set


class Reserving(Protocol):
    """A DLJob, however much of it is read: what it reserves is."""

    @property
    def metadata(self) -> Meta: ...
    @property
    def reserved(self) -> ReservationStatus: ...


ResourcesOf = Callable[[Reserving, str], Resources]
"""What a pod of a job takes besides GPUs, by its role."""


def not_known(job: Reserving, role: str) -> Resources:  # noqa: ARG001 (whoever reads no templates knows nothing)
    return NOTHING


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """A DLJob at the newest of its placements."""

    key: str
    uid: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """The GPUs of one node that a DLJob's status reserves for one of its pods."""

    job: JobAttempt
    node: str
    gpus: GpuSet
    resources: Resources = NOTHING
    """What the pod will take besides GPUs, as far as it is known before the pod is there."""

    @property
    def holding(self) -> Holding:
        """The reservation as the ledger counts it."""
        return Holding(self.node, self.gpus, self.gpus.bit_count(), self.resources)


class Reservations:
    """Reservations by task. Where two jobs reserve for a task of the same name, the one written last counts."""

    def __init__(self, resources: ResourcesOf = not_known) -> None:
        self._resources = resources
        self._by_task: dict[str, Reservation] = {}
        self._jobs: dict[str, JobAttempt] = {}
        self._tasks: dict[str, Collection[str]] = {}
        """The tasks for which each job reserves."""

    def __len__(self) -> int:
        return len(self._by_task)

    def __contains__(self, task: str) -> bool:
        return task in self._by_task

    def get(self, task: str) -> Reservation | None:
        """Return the reservation for a task."""
        return self._by_task.get(task)

    def values(self) -> Collection[Reservation]:
        """Return all reservations."""
        return self._by_task.values()

    def job(self, key: str) -> JobAttempt | None:
        """Return a job, "NAMESPACE/NAME", whether it has a placement or not."""
        return self._jobs.get(key)

    def put(self, key: str, job: Reserving | None) -> set[str]:
        """Take in a job that changed (None: deleted); return the tasks whose reservations may have changed."""
        tasks = self._withdraw(key)
        return tasks | self._enter(job, job.reserved) if job is not None else tasks

    def _withdraw(self, key: str) -> set[str]:
        self._jobs.pop(key, None)
        tasks = {task for task in self._tasks.pop(key, ()) if task in self._by_task and self._by_task[task].job.key == key}
        for task in tasks:
            del self._by_task[task]
        return tasks

    def _enter(self, job: Reserving, reserved: ReservationStatus) -> set[str]:
        meta = job.metadata
        owner = self._jobs[meta.key] = JobAttempt(meta.key, meta.uid, reserved.attempt)
        entries = {
            f"{meta.namespace}/{place.pod}": Reservation(owner, place.node, _gpus(place), self._resources(job, place.role))
            for place in reserved.placement
        }
        self._by_task.update(entries)
        if entries:
            self._tasks[meta.key] = tuple(entries)
        return set(entries)


def _gpus(place: Reserved) -> GpuSet:
    """The GPUs of a reservation, without numbers that no GPU has."""
    return gpu_set([gpu for gpu in place.gpus if 0 <= gpu < MOST_GPUS])
