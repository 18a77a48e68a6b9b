"""The DLJobs as last read, their pods, and what a change marks.

A job that cannot be read is left out, which harms no other (see `unreadable`); its reservation still counts in the view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import get_args

from muster.allocation.pods import may_hold_gpus
from muster.api import names
from muster.api.status import RoleName
from muster.kube.objects import Node, Pod
from muster_operator.controller import Context
from muster_operator.dljob.completion import completed
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.job import Job, Unreadable
from muster_operator.dljob.leftovers import in_the_way, is_own, job_of_pod
from muster_operator.dljob.resources import PRIORITY_CLASSES, SERVICES, PriorityClass, Service
from muster_operator.pod_faults import is_refused
from muster_operator.reporting import about, about_pod
from muster_operator.sightings import Sightings
from muster_operator.wishes import answer
from muster_operator.work_queue import Key

KIND = "DLJob"
ROLES = frozenset(get_args(RoleName))


def key_of(name: str) -> Key:
    """Return the key by which the work queue knows a DLJob."""
    return Key(KIND, name)


class Jobs:
    """DLJobs by name ("NAMESPACE/NAME"), with their pods."""

    def __init__(self, context: Context) -> None:
        self._stores, self._work_queue, self._reporter = context.stores, context.work_queue, context.reporter
        self._jobs: dict[str, Job] = {}
        self._pods: dict[str, dict[str, Pod]] = {}
        """By job: the pods that have its label, or a name of its pods."""
        self._touched: set[str] = set()
        self.phases: Counter[str] = Counter()
        """How many jobs are in each phase."""
        self._finished: set[str] = set()
        self._sightings = Sightings(self._stores, self._work_queue)
        self.finished_version = 0
        """Counts up whenever a job finishes, or a finished one changes or goes."""
        view = self._stores.view
        self._stores.of(DLJOBS).subscribe(self._job_changed)
        view.pods.subscribe(self._pod_changed)
        view.nodes.subscribe(self._node_changed)
        self._services = self._stores.of(SERVICES)
        self._services.subscribe(self._service_changed)
        self._stores.of(PRIORITY_CLASSES).subscribe(self._class_changed)
        self._stores.defaults.subscribe(self._defaults_changed)

    # Jobs

    def get(self, name: str) -> Job | None:
        """Return a job; None if it is gone, or cannot be read."""
        return self._jobs.get(name)

    def all(self) -> Collection[Job]:
        """Return every job that can be read."""
        return self._jobs.values()

    def finished(self) -> list[Job]:
        """Return the jobs that have finished."""
        return [self._jobs[name] for name in self._finished]

    def take_touched(self) -> set[str]:
        """Take the names of the jobs of which something has changed since: the job, its pods, or what has its names."""
        touched, self._touched = self._touched, set()
        return touched

    def pods_of(self, job: Job) -> list[Pod]:
        """Return the pods that belong to this very job, not to an earlier one of its name."""
        return [self._sightings.dated(pod) for pod in self._pods.get(job.key, {}).values() if is_own(pod.metadata, job)]

    def in_the_way(self, job: Job) -> str:
        """Return the sentence about what has the names of this job and is not its own; empty if nothing has."""
        service = self._services.get(job.key)
        return in_the_way(job, self._pods.get(job.key, {}).values(), service.metadata if service is not None else None)

    # Changes

    def _mark(self, name: str) -> None:
        self._touched.add(name)
        self._work_queue.mark(key_of(name))

    def _job_changed(self, old: Job | Unreadable | None, new: Job | Unreadable | None) -> None:
        obj = new or old
        if obj is None:
            return
        name = obj.metadata.key
        before, job = self._jobs.get(name), None
        if isinstance(new, Job):
            job = self._jobs[name] = self._completed(new)
            answer(self._reporter, about(KIND, new.meta), before.meta if before is not None else None, new.meta)
        else:
            self._jobs.pop(name, None)
        self._note_finished(name, job)
        self._count(before, -1)
        self._count(job, 1)
        self._mark(name)
        if _matters_to_plan(before, job):
            self._plan(before, job)

    def _plan(self, before: Job | None, job: Job | None) -> None:
        """Have everything planned: at once where a job gets or has GPUs or had some, for one that only waits at leisure."""
        if any(each is not None and each.status.placement for each in (before, job)):
            self._work_queue.plan_now()
        else:
            self._work_queue.plan_soon()

    def _note_finished(self, name: str, job: Job | None) -> None:
        finished = job is not None and job.finished
        if finished or name in self._finished:
            self.finished_version += 1
        (self._finished.add if finished else self._finished.discard)(name)

    def _count(self, job: Job | None, change: int) -> None:
        if job is not None:
            self.phases[job.status.phase or "Queued"] += change

    def _class_changed(self, old: PriorityClass | None, new: PriorityClass | None) -> None:
        """Mark the jobs that name the class, whose templates the API server may accept by now, and plan."""
        changed = new or old
        for job in self._jobs.values():
            if changed is not None and job.spec.priority_class_name == changed.metadata.name:
                self._mark(job.key)
        self._work_queue.plan_now()

    def _completed(self, job: Job) -> Job:
        return completed(job, self._stores.defaults.of(job.meta.namespace))

    def _defaults_changed(self, namespace: str | None) -> None:
        """Look anew at the jobs whose pods get something else from now on, and plan."""
        for job in self._stores.of(DLJOBS).values():
            if isinstance(job, Job) and namespace in (None, job.meta.namespace):
                self._jobs[job.key] = self._completed(job)
                self._mark(job.key)
        self._work_queue.plan_now()

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        obj = new or old
        if obj is not None:
            self._mark(obj.metadata.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and new.metadata.label(names.JOB) is not None:
            answer(self._reporter, about_pod(new.metadata), old.metadata if old is not None else None, new.metadata)
        concerned = _jobs_of(new) if new is not None else set()
        matters = _matters_to_job(old, new)
        for job in concerned | (_jobs_of(old) if old is not None and matters else set()):
            self._keep_pod(job, new if job in concerned else None, old)
            if matters:
                self._mark(job)
        if _frees_gpus(old, new):
            self._work_queue.plan_now()

    def _keep_pod(self, job: str, new: Pod | None, old: Pod | None) -> None:
        pods = self._pods.setdefault(job, {})
        if new is not None:
            pods[new.metadata.key] = new
        elif old is not None:
            pods.pop(old.metadata.key, None)
        if not pods:
            del self._pods[job]

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Mark the jobs that a node concerns: placed there, or with pods there."""
        node = new or old
        if node is None or (old is not None and new is not None and _same_for_planning(old, new)):
            return
        name = node.metadata.name
        for job in self._jobs.values():
            if any(place.node == name for place in job.status.placement) or job.lessons.are_about(name):
                self._mark(job.key)
        for key, pods in self._pods.items():
            if any(pod.spec.node_name == name for pod in pods.values()):
                self._mark(key)
        self._work_queue.plan_now()


def _jobs_of(pod: Pod) -> set[str]:
    """The jobs that a pod concerns: whose label it has, or the name of one of whose pods."""
    found = {pod.metadata.label(names.JOB), job_of_pod(pod.metadata.name, ROLES)}
    return {f"{pod.metadata.namespace}/{name}" for name in found if name is not None}


def _matters_to_job(old: Pod | None, new: Pod | None) -> bool:
    """Whether a change of a pod may lead to a next step of its job. Being bound, which happens to every pod, does not."""
    if old is None or new is None:
        return True
    before, after = old.metadata, new.metadata
    return (
        (old.status.phase, is_refused(old), old.leaving) != (new.status.phase, is_refused(new), new.leaving)
        or (before.uid, before.annotations) != (after.uid, after.annotations)
        or (before.labels, before.owner_references) != (after.labels, after.owner_references)
        or old.status.container_statuses != new.status.container_statuses
        or old.status.init_container_statuses != new.status.init_container_statuses
        or old.condition("DisruptionTarget") != new.condition("DisruptionTarget")
    )


def _frees_gpus(old: Pod | None, new: Pod | None) -> bool:
    """Whether GPUs come free, or are about to, by this change of a pod."""
    if old is None or old.finished or not may_hold_gpus(old):
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
        or (old.status.phase or "Queued", old.status.attempt) != (new.status.phase or "Queued", new.status.attempt)
        or bool(old.status.placement) != bool(new.status.placement)
        or old.status.gpus != new.status.gpus
        or old.lessons != new.lessons
    )
