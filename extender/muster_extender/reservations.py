"""The cluster as the extender sees it: the shared view, and beside it whose each reservation is.

A reservation belongs to a DLJob by namespace, name and uid, and to one of its placements by the attempt. `outstanding`
counts, for each node, the reservations whose pod is not bound yet: only there could another pod take what is promised.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import msgspec

from muster.kube.objects import DLJob, Pod, Reserved, Struct
from muster.kube.view import ClusterView
from muster.scheduling.ledger import Holding, Source, unheld
from muster.scheduling.topology.links import GpuSet, gpu_set


class Status(Struct, frozen=True):
    """What counts of a DLJob's status."""

    attempt: int = 0
    placement: list[Reserved] = msgspec.field(default_factory=list)


_decode_status = msgspec.json.Decoder(Status | None).decode


@dataclass(frozen=True, slots=True)
class Job:
    """A DLJob as far as its reservations go."""

    key: str
    uid: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """The GPUs of one node that a job's status promises to one of its pods."""

    job: Job
    node: str
    gpus: GpuSet


class GuardedView(ClusterView):
    """ClusterView that also knows to whom reservations belong."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Job] = {}
        """Jobs by "namespace/name"."""
        self.reservations: dict[str, Reservation] = {}
        """Reservations by task ("namespace/name" of the pod)."""
        self.outstanding: Counter[str] = Counter()
        """Reservations whose pod is not bound, by node."""
        self._open: dict[str, str] = {}
        self._news = asyncio.Event()
        self.jobs.subscribe(self._record)
        self.pods.subscribe(self._review_pod)

    async def jobs_changed(self) -> None:
        """Wait for the next change of any job."""
        await self._news.wait()

    def exists(self, node: str) -> bool:
        """Return whether the API server is known to have this node, whether it takes pods or not."""
        return node in self.nodes

    def free_to_claim(self, node: str, task: str) -> GpuSet:
        """Return the GPUs that are free to a pod that claims some without owning a reservation, not even one in its name."""
        others = [holding for _, holding in self.ledger.on_node(node, but=task)]
        reserved = self.ledger.holding(task, Source.RESERVATION)
        if reserved is not None and reserved.node == node:
            others.append(reserved)
        return self._left(node, others)

    def free_to_owner(self, node: str, task: str) -> GpuSet:
        """Return the GPUs that are free to a pod that owns a reservation: claims of unbound pods without one do not count."""
        return self._left(node, [holding for other, holding in self.ledger.on_node(node, but=task) if self.firm(other)])

    def firm(self, task: str) -> bool:
        """Return whether a task holds what it holds by a reservation or because it is bound, not by its annotation alone."""
        pod = self.pods.get(task)
        return task in self.reservations or pod is None or pod.spec.node_name is not None

    def _left(self, name: str, others: list[Holding]) -> GpuSet:
        node = self.node(name)
        return unheld(node.machine, node.healthy, others) if node else 0

    def _record(self, old: DLJob | None, new: DLJob | None) -> None:
        before = self._forget(old) if old else set()
        after = self._learn(new) if new else set()
        for task in before | after:
            self._review(task)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _forget(self, job: DLJob) -> set[str]:
        key = job.metadata.key
        self.known.pop(key, None)
        tasks = {f"{job.metadata.namespace}/{place.pod}" for place in _status(job).placement}
        gone = {task for task in tasks if task in self.reservations and self.reservations[task].job.key == key}
        for task in gone:
            del self.reservations[task]
        return gone

    def _learn(self, job: DLJob) -> set[str]:
        status, meta = _status(job), job.metadata
        known = self.known[meta.key] = Job(meta.key, meta.uid, status.attempt)
        found = {
            f"{meta.namespace}/{place.pod}": Reservation(known, place.node, gpu_set(place.gpus)) for place in status.placement
        }
        self.reservations.update(found)
        return set(found)

    def _review_pod(self, old: Pod | None, new: Pod | None) -> None:
        self._review((new or old).metadata.key)  # type: ignore[union-attr]

    def _review(self, task: str) -> None:
        """Count a task's reservation as outstanding, or no longer."""
        before = self._open.pop(task, None)
        if before is not None:
            self.outstanding[before] -= 1
            if not self.outstanding[before]:
                del self.outstanding[before]
        reservation, pod = self.reservations.get(task), self.pods.get(task)
        if reservation is not None and (pod is None or pod.spec.node_name is None):
            self._open[task] = reservation.node
            self.outstanding[reservation.node] += 1


def _status(job: DLJob) -> Status:
    return _decode_status(job.status) or Status()
