"""Carries out what `lifecycle` says comes next for one job, in the order that keeps it safe against a crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from muster.api import names
from muster.api.status import TaskPlacement
from muster.kube.errors import AlreadyExists, ApiError, Conflict, KubeError
from muster.kube.objects import Meta, Pod
from muster.scheduling.decisions import Reason
from muster_operator import pod_events
from muster_operator.controller import Context
from muster_operator.dljob import manifests, starting
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.job import Job
from muster_operator.dljob.leftovers import is_own, sentence
from muster_operator.dljob.lifecycle import next_step
from muster_operator.dljob.resources import SERVICES
from muster_operator.dljob.rests import Starts
from muster_operator.dljob.status import NAME_TAKEN, Record
from muster_operator.dljob.status_writer import StatusWriter
from muster_operator.dljob.step import Nodes, Step
from muster_operator.dljob.telling import JobTelling
from muster_operator.dljob.template_check import TemplateCheck
from muster_operator.dljob.templates import JobGone, Templates
from muster_operator.dljob.watch import Jobs, key_of
from muster_operator.pinning import Manifest
from muster_operator.reporting import about
from muster_operator.resources import PODS
from muster_operator.work_queue import Work, all_of


class CreationFailed(Exception):
    """The API server refused a pod or the Service of a gang; the message has its words."""


class Reconciler:
    """Brings single jobs on."""

    def __init__(self, context: Context, jobs: Jobs, check: TemplateCheck, writer: StatusWriter, telling: JobTelling) -> None:
        self._stores, self._work_queue, self._api_writer = context.stores, context.work_queue, context.api_writer
        self._jobs, self._check, self._writer, self._telling = jobs, check, writer, telling
        self._node_loss = context.node_loss
        self._nodes = Nodes(context.node_loss.is_alive, context.node_loss.is_ready, context.stores.node_digest)
        self._templates, self._starts = Templates(context), Starts(context.work_queue)
        self._services, self._reporter = context.stores.of(SERVICES), context.reporter

    def reconcile(self, job: Job, now: float) -> None:
        """Start the job's next piece of work, if there is one; a fault of muster's own is told to the job, and raised."""
        try:
            self._next(job, now)
        except Exception as error:
            self._telling.fault(job, error)
            raise

    def forget(self, name: str) -> None:
        """Forget a job that is gone."""
        self._starts.forget(name)

    def _next(self, job: Job, now: float) -> None:
        job = self._starts.dated(job)
        blocked = self._jobs.in_the_way(job) if self._check.has_passed(job) else ""
        pods = self._jobs.pods_of(job)
        step = next_step(job, pods, self._nodes, now, blocked)
        if step.check_at is not None:
            self._work_queue.mark_at(key_of(job.key), step.check_at)
        nodes = {place.node for place in job.status.placement} | {pod.spec.node_name for pod in pods if pod.spec.node_name}
        if (seconds := self._node_loss.check_in(nodes)) is not None:
            self._work_queue.mark_in(key_of(job.key), seconds)
        if self._has_work(job, step):
            self._work_queue.start(key_of(job.key), self._told(job, self._carry_out(job, step)))
        elif self._check.is_needed(job):
            self._work_queue.start(key_of(job.key), self._told(job, self._check.run(job)))
        elif not blocked and job.waits_for == NAME_TAKEN:
            self._work_queue.plan_now()

    async def _told(self, job: Job, work: Work) -> None:
        """Do work for a job; a fault of muster's own is told to the job as it is by then, and raised."""
        try:
            await work
        except KubeError:
            raise
        except Exception as error:
            current = self._jobs.get(job.key)
            if current is not None:
                await self._telling.write_fault(current, error)
            raise

    def _has_work(self, job: Job, step: Step) -> bool:
        """Whether a step changes anything; parts that hold already are removed from it."""
        if step.service is (self._service_of(job) is not None):
            step.service = None
        if step.status is not None and not step.status.patch():
            step.status = None
        writes = (step.status, step.annotate_job, step.annotate_pods, step.delete, step.destroy, step.create, step.remove)
        return any(writes) or step.service is not None

    async def _carry_out(self, job: Job, step: Step) -> None:
        writer = self._api_writer
        if step.unexplained is not None and step.status is not None:
            await self._explain(step.status, step.unexplained)
        written = await self._write_job(job, step)
        if written is None:
            return  # the garbage collector has what was the job's
        job = written
        try:
            if step.service:
                await self._create_service(job)
            if step.create:
                await self._create_pods(job, step.create)
        except JobGone:
            return
        except CreationFailed as failure:
            await self._requeue(job, str(failure))
            return
        if step.service is False:
            await self._delete_service(job)
        await all_of(writer.annotate(PODS, pod.metadata, {**notice}) for pod, notice in step.annotate_pods)
        await all_of(writer.delete(PODS, pod.metadata) for pod in step.delete)
        await all_of(writer.delete(PODS, pod.metadata, grace_seconds=0) for pod in step.destroy)
        if step.remove:
            await writer.delete_unchanged(DLJOBS, job.meta, propagation="Background")

    async def _explain(self, record: Record, pod: Pod) -> None:
        """Say why a pod has not started as far as Events know."""
        if words := await pod_events.warning_about(pod, self._api_writer, self._reporter):
            record.explain(words)

    async def _write_job(self, job: Job, step: Step) -> Job | None:
        """Write a step's annotations of the job, then its status; return the job as it is then, None if it is gone."""
        if step.annotate_job:
            annotated = await self._api_writer.annotate(DLJOBS, job.meta, step.annotate_job)
            if annotated is None:
                return None
            if step.annotate_job.get(names.MIGRATE, "") is None:
                message = "does not move: the job has no placement"
                self._reporter.event(about("DLJob", job.meta), "Warning", Reason.NOT_THERE, message)
            job = replace(job, meta=annotated.metadata)
        if step.status is None:
            return job
        step.status.job = job  # of the version that the status is written upon
        return await self._writer.write(step.status)

    async def _requeue(self, job: Job, message: str) -> None:
        """A pod or the Service could not be created: the whole gang is requeued, with the API server's words."""
        record = Record(job, self._work_queue.clock())
        record.requeue("FailedCreate", message, lessons=starting.not_created(job, message))
        await self._writer.write(record)

    async def _create_pods(self, job: Job, places: Sequence[TaskPlacement]) -> None:
        async with self._templates.of(job) as templates:
            await all_of(self._create_pod(job, place, templates[place.role]) for place in places)

    async def _create_pod(self, job: Job, place: TaskPlacement, template: Manifest) -> None:
        try:
            await self._api_writer.create(PODS, manifests.pod(job, place, job.status.placement, template))
        except AlreadyExists as error:
            raise CreationFailed(f"{error.message}: a pod of that name is not this job's") from error
        except Conflict:
            raise  # the quota, say, was changed at the same moment
        except ApiError as error:
            raise CreationFailed(error.message) from error

    async def _create_service(self, job: Job) -> None:
        if self._service_of(job) is not None:
            return
        manifest = manifests.service(job)
        try:
            await self._api_writer.create(SERVICES, manifest)
        except AlreadyExists as error:
            await self._adopt_service(job, error)
        except Conflict:
            raise
        except ApiError as error:
            raise CreationFailed(error.message) from error

    async def _adopt_service(self, job: Job, error: AlreadyExists) -> None:
        """Go on with a Service that is the job's own, though the watch has not brought it yet."""
        whole = await self._api_writer.read(SERVICES, Meta(job.meta.name, namespace=job.meta.namespace))
        meta = msgspec.convert(whole["metadata"], Meta)
        if not is_own(meta, job):
            raise CreationFailed(sentence("Service", meta)) from error
        self._api_writer.adopt(SERVICES, whole)

    async def _delete_service(self, job: Job) -> None:
        service = self._service_of(job)
        if service is not None:
            await self._api_writer.delete(SERVICES, service)

    def _service_of(self, job: Job) -> Meta | None:
        """The Service in the store, if it is this very job's."""
        service = self._services.get(job.key)
        return service.metadata if service is not None and is_own(service.metadata, job) else None
