"""Asks the API server, by dry runs, whether the pods that a resize adds can be created, while the gang runs on as it is.

One dry run has one of the new pods as it will be. Another has the containers of all of them in one pod: a ResourceQuota counts
what containers ask for, so it judges the sum, which it does not for pods one after the other: a dry run uses nothing up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from muster.kube.errors import AlreadyExists, ApiError, Forbidden, Invalid
from muster.scheduling.gang import Placement
from muster_operator.controller import Context
from muster_operator.dljob import manifests
from muster_operator.dljob.gang import written
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record
from muster_operator.dljob.status_writer import StatusWriter
from muster_operator.dljob.templates import JobGone, Templates
from muster_operator.dljob.watch import Jobs
from muster_operator.pinning import Manifest
from muster_operator.resources import PODS

ASK_AGAIN_SECONDS = 30.0
"""Before a size that quota or policy refused is tried again."""
_REFUSALS = (400, 403, 422)


class ResizeCheck:
    """Which jobs' new sizes were refused lately; by uid, since a job of the same name may follow."""

    def __init__(self, context: Context, jobs: Jobs, writer: StatusWriter) -> None:
        self._work_queue, self._api_writer = context.work_queue, context.api_writer
        self._jobs, self._writer, self._templates = jobs, writer, Templates(context)
        self._refused: dict[str, tuple[str, int, float]] = {}
        """By name: uid and generation of the job, and when to ask again."""

    def is_refused(self, job: Job) -> bool:
        """Return whether the job's new size was refused lately; it is planned again when it is time to ask again."""
        uid, generation, until = self._refused.get(job.key, ("", 0, 0.0))
        refused = (uid, generation) == (job.meta.uid, job.meta.generation) and self._work_queue.pace() < until
        if refused:
            self._work_queue.plan_in(until - self._work_queue.pace())
        return refused

    def forget(self, name: str) -> None:
        """Forget a job that is gone."""
        self._refused.pop(name, None)

    async def passes(self, job: Job, placement: Placement, now: float) -> bool:
        """Return whether the job can have this placement; where it cannot, the job is told and keeps its size for now."""
        try:
            refusal = self._jobs.in_the_way(job) or await self._refusal(job, placement)
        except JobGone:
            return False
        if refusal:
            self._refused[job.key] = job.meta.uid, job.meta.generation, self._work_queue.pace() + ASK_AGAIN_SECONDS
            record = Record(job, now)
            record.refuse_resize(refusal)
            await self._writer.write(record)
        return not refusal

    async def _refusal(self, job: Job, placement: Placement) -> str:
        """The API server's words about the pods that a placement adds; empty if it would create them."""
        gang = written(placement)
        present = {place.pod for place in job.status.placement}
        added = [place for place in gang if place.pod not in present]
        if not added:
            return ""
        resized = replace(job, status=job.status.model_copy(update={"placement": gang, "attempt": job.status.attempt + 1}))
        async with self._templates.of(job) as templates:
            sample = manifests.pod(resized, added[0], gang, templates[added[0].role])
        try:
            await self._api_writer.dry_run(PODS, sample)
        except ApiError as error:
            if error.status not in _REFUSALS and not isinstance(error, AlreadyExists):
                raise  # a Conflict, say: the quota was changed at the same moment
            return error.message
        return await self._over_quota(together(sample, len(added))) if len(added) > 1 else ""

    async def _over_quota(self, manifest: Manifest) -> str:
        """What a ResourceQuota says about a sum; other refusals concern a pod that nobody is going to create."""
        try:
            await self._api_writer.dry_run(PODS, manifest)
        except Forbidden as error:
            return error.message if "exceeded quota" in error.message else ""
        except Invalid:
            pass
        return ""


def together(pod: Manifest, count: int) -> Manifest:
    """Return a pod that asks for what this many pods ask for."""
    copies = [_ask(container, number) for number in range(count - 1) for container in pod["spec"]["containers"]]
    return {**pod, "spec": {**pod["spec"], "containers": [*pod["spec"]["containers"], *copies]}}


def _ask(container: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A container that asks for the same, and has nothing else that has to be checked."""
    kept = {key: container[key] for key in ("image", "resources") if key in container}
    return {**kept, "name": f"more-{number}-{container['name']}"[:63].rstrip("-")}
