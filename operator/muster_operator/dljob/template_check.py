"""Asks the API server, by dry runs, whether the pod templates of a new job can become pods.

Fields that the API server does not know are refused, as kubectl refuses them in a pod: dropped, they would change what runs.

Where gangs wait behind others anyway, one job is checked at a time: the API server has decisions to write.

A template never changes, so one check of each job is enough; until it has passed, the job is not planned. The API server's
consent is not written down: a status in which the planner has spoken of the job shows that it was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from muster.api import names
from muster.api.status import RoleName, TaskPlacement
from muster.kube.errors import ApiError, Forbidden, Invalid
from muster_operator.controller import Context
from muster_operator.dljob import manifests
from muster_operator.dljob.amounts import endless
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import READABLE, UNREADABLE, Record
from muster_operator.dljob.status_writer import StatusWriter
from muster_operator.dljob.templates import JOBS_AT_ONCE, JobGone, Templates
from muster_operator.dljob.watch import key_of
from muster_operator.pinning import Manifest
from muster_operator.resources import PODS

CHECK_AGAIN_SECONDS = 30.0
"""Before a template that quota or policy rejected is tried again."""
MOST_CHARACTERS = 4096
"""Of what is told about a template: the API server repeats what it rejects, however long that is."""
QUOTA_EXCEEDED = "exceeded quota: "
"""How the API server's plugin ResourceQuota, which comes last, begins what is short; its answer has no other mark."""
_UNCHECKED = frozenset({"TemplateRejected", "TemplateRefused", "Unplannable", "Resumed", "Suspended", UNREADABLE, READABLE})
"""Reasons of the condition Admitted of a job whose templates may be unchecked. TemplateRefused is what muster 0.1 wrote."""


class TemplateCheck:
    """Which jobs have passed the check, by name and uid."""

    def __init__(self, context: Context, writer: StatusWriter) -> None:
        self._work_queue, self._api_writer, self._writer = context.work_queue, context.api_writer, writer
        self._templates = Templates(context)
        self._passed: dict[str, str] = {}
        self._turns, self._one = asyncio.Semaphore(JOBS_AT_ONCE), asyncio.Lock()
        self.behind_others = False
        """Whether gangs wait behind others, as a new job will. With 3,000 that arrive, GPUs that come free are given out after
        120 ms, after 200 with all turns taken."""

    def has_passed(self, job: Job) -> bool:
        """Return whether the API server would accept this job's pods."""
        return self._passed.get(job.key) == job.meta.uid

    def forget(self, name: str) -> None:
        """Forget a job that is gone."""
        self._passed.pop(name, None)

    def is_needed(self, job: Job) -> bool:
        """Return whether the API server has to be asked about the job's templates now."""
        if self.has_passed(job) or job.finished or job.suspended or job.meta.deletion_timestamp is not None:
            return False
        admitted = next((condition for condition in job.status.conditions if condition.type == "Admitted"), None)
        if job.status.attempt or (admitted and admitted.reason not in _UNCHECKED):
            self._pass(job)
            return False
        return job.status.phase in (None, "Queued")

    async def run(self, job: Job) -> None:
        """Ask for one pod of each role, and note the answer. Nobody need be asked about a template that is none."""
        if job.flaw:
            await self._end(job, job.flaw)
            return
        try:
            async with self._turns, self._turn(), self._templates.of(job) as templates:
                flaws = (f"roles.{role}.{flaw}" for role, template in templates.items() if (flaw := endless(template)))
                if flaw := next(flaws, ""):
                    await self._end(job, flaw)
                    return
                rejection = await self._ask(job, templates)
        except JobGone:
            return
        if rejection is not None:
            await self._rejected(job, *rejection)
        else:
            self._pass(job)

    def _turn(self) -> AbstractAsyncContextManager[object]:
        """What a job that has one of the turns waits for besides."""
        return self._one if self.behind_others else nullcontext()

    async def _ask(self, job: Job, templates: Mapping[RoleName, Manifest]) -> tuple[RoleName, ApiError] | None:
        """Ask for one pod of each role as a dry run, on no particular node, and under no name that may be taken.

        The name is the same each time, since a rejection names the pod: a new message would be a change of the job, and that
        asks for the next check at once. Return the first role that is rejected, and the API server's words.
        """
        sample = [
            TaskPlacement(
                pod=names.pod_name(job.meta.name, role, 0), role=role, index=0, rank=rank, node="any", gpus=list(range(s.gpus))
            )
            for rank, (role, s) in enumerate(job.shapes.items())
        ]
        placed = replace(job, status=job.status.model_copy(update={"placement": sample}))
        for me in sample:
            try:
                await self._try_one(placed, me, sample, templates[me.role])
            except ApiError as error:
                return me.role, error
        return None

    async def _try_one(self, job: Job, me: TaskPlacement, gang: Sequence[TaskPlacement], template: Manifest) -> None:
        """Raise ApiError if a template could not become this pod; of one that is no template the API server says why."""
        name = f"{me.pod}-{job.meta.uid[:8]}"
        try:
            manifest = _whole(template, manifests.pod(job, me, gang, template))
        except (TypeError, ValueError, LookupError, AttributeError):
            metadata = {"name": name, "namespace": job.meta.namespace}
            await self._try({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
            raise
        manifest["metadata"]["name"] = name
        await self._try(manifest)

    async def _try(self, manifest: Manifest) -> None:
        """Raise ApiError if this could not become a pod. A quota that is used up now is checked by each plan, for the gang."""
        try:
            await self._api_writer.dry_run(PODS, manifest, strict=True)
        except Forbidden as error:
            if QUOTA_EXCEEDED not in error.message:
                raise

    def _pass(self, job: Job) -> None:
        self._passed[job.key] = job.meta.uid
        self._work_queue.mark(key_of(job.key))  # something else may be in its way
        self._work_queue.plan_soon()

    async def _rejected(self, job: Job, role: RoleName, error: ApiError) -> None:
        """A template that can never become a pod ends the job; one that quota or policy rejects today is tried again."""
        if isinstance(error, Invalid) or error.status == 400:
            await self._end(job, f"roles.{role}.template: {error.message}")
        elif error.status in (403, 409):
            record = Record(job, self._work_queue.clock())
            record.wait("TemplateRejected", error.message)
            self._work_queue.mark_in(key_of(job.key), CHECK_AGAIN_SECONDS)
            await self._writer.write(record)
        else:
            raise error

    async def _end(self, job: Job, message: str) -> None:
        """End a job whose pods can never be."""
        record = Record(job, self._work_queue.clock())
        record.finish(False, "InvalidTemplate", message[:MOST_CHARACTERS])
        await self._writer.write(record)


def _whole(template: Manifest, pod: Manifest) -> Manifest:
    """The pod with all that its template says, be it of no effect: a misspelt field must be refused wherever it is."""
    metadata = {key: value for key, value in (template.get("metadata") or {}).items() if key != "resourceVersion"}
    return {**template, **pod, "metadata": {**metadata, **pod["metadata"]}}
