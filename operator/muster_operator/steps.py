"""One job at a time: what `lifecycle` says comes next for it is carried out; a job that has just come is checked first."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from muster.api import names
from muster.api.status import TaskPlacement
from muster.kube.errors import ApiError, Invalid
from muster_operator import manifests
from muster_operator.api_writer import Refused
from muster_operator.jobs import Job, read
from muster_operator.lifecycle import Step, next_step
from muster_operator.record import Record
from muster_operator.work_queue import WorkQueue, all_of

CHECK_AGAIN_SECONDS = 30.0
"""Before a template that quota or policy refused is tried again."""
_UNCHECKED = ("TemplateRefused", "Resumed", "Suspended")
"""Reasons of the condition Admitted of a job whose templates the API server may never have seen."""


class Steps:
    """Bring single jobs on."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue

    def look_at(self, key: str, now: float) -> None:
        """Start the job's next piece of work, if there is one."""
        work_queue, job = self._work_queue, self._work_queue.jobs[key]
        step = next_step(job, work_queue.pods_of(job), work_queue.alive, now)
        if step.wake_at is not None:
            work_queue.requeue_at[key] = step.wake_at
        if self._has_work(job, step):
            work_queue.start(key, self._carry_out(job, step))
        elif self._needs_check(job):
            work_queue.start(key, self._check(job))

    def _has_work(self, job: Job, step: Step) -> bool:
        if step.service is (self._work_queue.stores.services.get(job.key) is not None):
            step.service = None
        if step.status is not None and not step.status.patch():
            step.status = None
        writes = (step.status, step.annotate_job, step.annotate_pods, step.delete, step.destroy, step.create, step.remove)
        return any(writes) or step.service is not None

    async def _carry_out(self, job: Job, step: Step) -> None:
        api_writer = self._work_queue.api_writer
        if step.annotate_job:
            await api_writer.annotate_job(job.meta, step.annotate_job)
        if step.status is not None:
            await self._work_queue.write(step.status)
        try:
            if step.service:
                await api_writer.create_service(job)
            bodies = (msgspec.json.encode(manifests.pod(job, place, job.status.placement)) for place in step.create)
            await all_of(api_writer.create_pod(job, body) for body in bodies)
        except Refused as refused:
            await self._refused(job.key, str(refused))
            return
        if step.service is False:
            await api_writer.delete_service(job)
        await all_of(api_writer.annotate_pod(pod, {**notice}) for pod, notice in step.annotate_pods)
        await all_of(api_writer.delete_pod(pod) for pod in step.delete)
        await all_of(api_writer.delete_pod(pod, grace_seconds=0) for pod in step.destroy)
        if step.remove:
            await api_writer.remove_job(job.meta)

    async def _refused(self, key: str, words: str) -> None:
        """A pod or the Service was refused at creation: the whole gang goes back, with the API server's words."""
        obj = self._work_queue.view.jobs.get(key)
        job = read(obj, self._work_queue.jobs.get(key)) if obj is not None else None
        if job is not None and job.status.placement:
            record = Record(job, self._work_queue.clock())
            record.requeue("PodRefused", words)
            await self._work_queue.write(record)

    def _needs_check(self, job: Job) -> bool:
        """Whether the API server has not been asked about the job's templates yet; they never change."""
        work_queue = self._work_queue
        if job.meta.uid in work_queue.checked or job.finished or job.suspended or job.meta.deletion_timestamp is not None:
            return False
        told = next((condition for condition in job.status.conditions if condition.type == "Admitted"), None)
        if job.status.attempt or (told and told.reason not in _UNCHECKED):
            self._agreed(job)
            return False
        return job.status.phase in (None, "Queued")

    def _agreed(self, job: Job) -> None:
        self._work_queue.checked.add(job.meta.uid)
        self._work_queue.plan_by(0.0)

    async def _check(self, job: Job) -> None:
        """Ask for one pod of each role as a dry run, on no particular node, and under no name that may be taken."""
        sample = [
            TaskPlacement(
                pod=names.pod_name(job.meta.name, role, 0), role=role, index=0, rank=rank, node="any", gpus=list(range(s.gpus))
            )
            for rank, (role, s) in enumerate(job.shapes.items())
        ]
        placed = replace(job, status=job.status.model_copy(update={"placement": sample}))
        try:
            for me in sample:
                body = manifests.pod(placed, me, sample)
                body["metadata"]["generateName"] = f"{body['metadata'].pop('name')}-"
                await self._work_queue.api_writer.try_pod(job, msgspec.json.encode(body))
        except ApiError as error:
            await self._template_refused(job, error)
        else:
            self._agreed(job)

    async def _template_refused(self, job: Job, error: ApiError) -> None:
        """A template that can never become a pod ends the job; one that quota or policy refuses today is tried again."""
        record = Record(job, self._work_queue.clock())
        if isinstance(error, Invalid) or error.status == 400:
            record.finish(False, "InvalidTemplate", error.message)
        elif error.status in (403, 409):
            record.wait("TemplateRefused", error.message)
            self._work_queue.requeue_at[job.key] = self._work_queue.clock() + CHECK_AGAIN_SECONDS
        else:
            raise error
        await self._work_queue.write(record)
