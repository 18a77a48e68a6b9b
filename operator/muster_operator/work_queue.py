"""What is on the operator's desk: the jobs as last read, what has changed, and the work that is under way.

Everything here can be rebuilt from the stores; nothing here is the only copy of anything. Listeners mark and ring; whatever
they mark is looked at afresh, so a missed or doubled event does no harm. A job has at most one piece of work under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from muster.allocation.pods import gpus_of
from muster.api import names
from muster.kube.errors import Forbidden, KubeError
from muster.kube.events import EventType, Recorder, Reference
from muster.kube.objects import DLJob, DLQueue, Meta, Node, Pod
from muster_operator import metrics
from muster_operator.api_writer import ApiWriter
from muster_operator.jobs import Job, Unreadable, read
from muster_operator.record import Record
from muster_operator.stores import Stores
from muster_operator.watch_health import own_pod

log = logging.getLogger("muster.operator")

RETRY_SECONDS = 2.0
"""Before work that failed is tried again."""
T = TypeVar("T")
NEVER = float("inf")
_BAD_NEWS = ("Failed", "Restarting", "Requeued", "Preempted")


class WorkQueue:
    """Working state; `ring` wakes the loop."""

    def __init__(
        self, stores: Stores, api_writer: ApiWriter, recorder: Recorder, clock: Callable[[], float] = time.time
    ) -> None:
        self.stores, self.view, self.api_writer, self.recorder, self.clock = stores, stores.view, api_writer, recorder, clock
        self.jobs: dict[str, Job] = {}
        self.in_flight: set[str] = set()
        self.deferred: set[str] = set()
        """Jobs that a plan could not consider because work was under way: once it ends, there is something to plan."""
        self.checked: set[str] = set()
        """uids of jobs whose templates the API server has agreed to."""
        self.requeue_at: dict[str, float] = {}
        self.plan_at = 0.0
        """When to plan next although nothing changes."""
        self.changed = asyncio.Event()
        self._dirty: set[str] = set()
        self._pods: dict[str, dict[str, Pod]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.view.jobs.subscribe(lambda old, new: self.mark(_either(old, new).metadata.key))
        self.view.pods.subscribe(self._pod_changed)
        self.view.nodes.subscribe(self._node_changed)
        stores.services.subscribe(lambda old, new: self.mark(_either(old, new).metadata.key))
        stores.queues.subscribe(self._queue_changed)
        stores.priorities.subscribe(lambda *_: self.plan_by(0.0))

    # What has changed

    def mark(self, key: str) -> None:
        """Have a job looked at."""
        self._dirty.add(key)
        self.changed.set()

    def plan_by(self, at: float) -> None:
        """Have everything planned by then; 0: as soon as may be."""
        if at < self.plan_at:
            self.plan_at = at
            self.changed.set()

    def due(self, now: float) -> list[str]:
        """Take the jobs that are to be looked at, read as they are now; those with work under way come again after it."""
        self._dirty |= {key for key, at in self.requeue_at.items() if at <= now}
        for key in self._dirty:
            self.requeue_at.pop(key, None)
            self._read(key)
        free, self._dirty = self._dirty - self.in_flight, self._dirty & self.in_flight
        return sorted(key for key in free if key in self.jobs)

    def pods_of(self, job: Job) -> list[Pod]:
        """The pods that belong to this very job, not to an earlier one of its name."""
        return [pod for pod in self._pods.get(job.key, {}).values() if _owned(pod, job)]

    def alive(self, node: str) -> bool:
        """Whether a node is there and ready."""
        found = self.view.nodes.get(node)
        return found is not None and found.ready

    def _read(self, key: str) -> None:
        obj, before = self.view.jobs.get(key), self.jobs.get(key)
        if obj is not None and before is not None and before.meta is obj.metadata:
            return  # a pod of it has changed, not the job
        job = self._readable(obj, before) if obj is not None else None
        if job is not None:
            self.jobs[key] = job
        elif before is not None:
            del self.jobs[key]
            self.checked.discard(before.meta.uid)
        if _matters_to_plan(before, job):
            self.plan_by(0.0)

    def _readable(self, obj: DLJob, before: Job | None) -> Job | None:
        try:
            return read(obj, before)
        except Unreadable as error:
            log.error("%s", error)
            self.recorder.event(reference(obj.metadata), "Warning", "Unreadable", str(error))
            return None

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = _either(old, new)
        name, key = pod.metadata.label(names.JOB), pod.metadata.key
        if name is not None:
            job = f"{pod.metadata.namespace}/{name}"
            mine = self._pods.setdefault(job, {})
            if new is not None:
                mine[key] = new
            elif mine.pop(key, None) and not mine:
                del self._pods[job]
            if _matters_to_job(old, new):
                self.mark(job)
        if _frees(old, new):
            self.plan_by(0.0)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is not None and new is not None and _same_for_planning(old, new):
            return
        name = _either(old, new).metadata.name
        for key, job in self.jobs.items():
            if any(place.node == name for place in job.status.placement):
                self.mark(key)
        for key, pods in self._pods.items():
            if any(pod.spec.node_name == name for pod in pods.values()):
                self.mark(key)
        self.plan_by(0.0)

    def _queue_changed(self, old: DLQueue | None, new: DLQueue | None) -> None:
        if old is None or new is None or bytes(old.spec) != bytes(new.spec):
            self.plan_by(0.0)

    # Work under way

    def start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a job's work beside the loop; until it ends the job gets no other. What fails is tried again."""
        self.in_flight.add(key)
        task = asyncio.create_task(self._guarded(key, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Drop all work."""
        for task in self._tasks:
            task.cancel()

    async def _guarded(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.failed(key, error)
            self.requeue_at[key] = self.clock() + RETRY_SECONDS
        finally:
            self.in_flight.discard(key)
            if key in self.deferred:
                self.deferred.discard(key)
                self.plan_by(0.0)
            self.changed.set()

    def failed(self, what: str, error: Exception) -> None:
        """Count and log what failed and will be tried again; of a right that is missing, tell about the operator's own pod."""
        metrics.ERRORS.inc()
        log.warning("%s: %s; tries again", what, error, exc_info=None if isinstance(error, KubeError) else error)
        if isinstance(error, Forbidden) and (me := own_pod()):
            self.recorder.event(me, "Warning", "Forbidden", error.message)

    async def write(self, record: Record) -> None:
        """Write a job's status, and tell people what is new in its timeline."""
        patch = record.patch()
        if not patch:
            return
        before = record.job.status.timeline
        await self.api_writer.patch_status(record.job.meta, patch)
        for event in record.status.timeline:
            if event not in before:
                kind: EventType = "Warning" if event.event in _BAD_NEWS else "Normal"
                self.recorder.event(reference(record.job.meta), kind, event.reason or event.event, event.message)


async def all_of(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; when some fail, wait for the others, then raise the first error."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def reference(meta: Meta) -> Reference:
    """The DLJob that an event is about."""
    return Reference(names.API_VERSION, "DLJob", meta.name, meta.namespace or "", meta.uid)


def pod_reference(meta: Meta) -> Reference:
    """The pod that an event is about."""
    return Reference("v1", "Pod", meta.name, meta.namespace or "", meta.uid)


def _either(old: T | None, new: T | None) -> T:
    found = new if new is not None else old
    assert found is not None, "a change is from something or to something"
    return found


def _owned(pod: Pod, job: Job) -> bool:
    owner = pod.metadata.controller
    return owner is not None and owner.uid == job.meta.uid


def _matters_to_job(old: Pod | None, new: Pod | None) -> bool:
    """Whether a change of a pod may bring its job on. That it is bound, which every pod is, does not."""
    if old is None or new is None:
        return True
    before, after = old.metadata, new.metadata
    return (
        (old.status.phase, old.refused, old.leaving) != (new.status.phase, new.refused, new.leaving)
        or (before.uid, before.annotations) != (after.uid, after.annotations)
        or old.status.container_statuses != new.status.container_statuses
        or old.status.init_container_statuses != new.status.init_container_statuses
        or old.condition("DisruptionTarget") != new.condition("DisruptionTarget")
    )


def _frees(old: Pod | None, new: Pod | None) -> bool:
    """Whether GPUs come free, or are about to, by this change of a pod."""
    if old is None or old.finished or not gpus_of(old):
        return False
    return new is None or new.finished or (new.leaving and not old.leaving)


def _same_for_planning(old: Node, new: Node) -> bool:
    return (
        old.ready == new.ready
        and old.spec == new.spec
        and old.status.allocatable == new.status.allocatable
        and old.metadata.labels == new.metadata.labels
        and old.metadata.annotation(names.TOPOLOGY) == new.metadata.annotation(names.TOPOLOGY)
    )


def _matters_to_plan(old: Job | None, new: Job | None) -> bool:
    if old is None or new is None:
        return old is not new
    return (
        (old.meta.uid, old.meta.generation) != (new.meta.uid, new.meta.generation)
        or old.meta.annotations != new.meta.annotations
        or old.meta.deletion_timestamp != new.meta.deletion_timestamp
        or (old.status.phase, old.status.attempt) != (new.status.phase, new.status.attempt)
        or bool(old.status.placement) != bool(new.status.placement)
    )
