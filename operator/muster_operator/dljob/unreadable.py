"""Tells of jobs that this version of the operator cannot read: in an Event, and in the status as far as that can be written.

Once for each version of the spec, since the answer to the write is a change of a job that is unreadable again. What the job
reserves stays reserved, and the rest of its status stays as it is: it may have been written by a version that knows more.
"""

from __future__ import annotations

import logging
from typing import Any

from muster.api.status import Condition
from muster.kube.errors import Invalid, NotFound
from muster_operator.controller import Context
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.job import Unreadable
from muster_operator.dljob.status import UNREADABLE
from muster_operator.dljob.watch import key_of
from muster_operator.reporting import about
from muster_operator.timestamps import moment

log = logging.getLogger("muster.operator")


class UnreadableJobs:
    """Which unreadable jobs have been told, by name: uid and generation."""

    def __init__(self, context: Context) -> None:
        self._work_queue, self._api_writer, self._reporter = context.work_queue, context.api_writer, context.reporter
        self._jobs = context.stores.of(DLJOBS)
        self._told: dict[str, tuple[str, int]] = {}

    def reconcile(self, name: str, now: float) -> None:
        """Have a job told if it cannot be read, and has not been told yet."""
        job, key = self._jobs.get(name), key_of(name)
        if not isinstance(job, Unreadable):
            self._told.pop(name, None)
        elif self._told.get(name) != _version(job) and not self._work_queue.is_busy(key):
            self._work_queue.start(key, self._tell(name, job, now), tells=True)

    async def _tell(self, name: str, job: Unreadable, now: float) -> None:
        log.error("%s", job.problem)
        self._reporter.event(about("DLJob", job.metadata), "Warning", "Unreadable", job.problem)
        try:
            whole = await self._api_writer.read(DLJOBS, job.metadata)
            if patch := status_patch(whole.get("status") or {}, job, now):
                await self._api_writer.patch_status(DLJOBS, job.metadata, patch)
        except NotFound:
            return
        except Invalid as error:
            log.warning("DLJob %s: its status cannot be written either: %s", name, error)
        self._told[name] = _version(job)


def status_patch(status: dict[str, Any], job: Unreadable, now: float) -> dict[str, Any]:
    """Return what is to be merged into the status; empty where it says so already, or the job is at its end."""
    conditions = status.get("conditions") or []
    before: dict[str, Any] = next((condition for condition in conditions if condition.get("type") == "Admitted"), {})
    told = (before.get("reason"), before.get("observedGeneration")) == (UNREADABLE, job.metadata.generation)
    if told or status.get("phase") in ("Succeeded", "Failed") or job.metadata.deletion_timestamp is not None:
        return {}
    condition = Condition(
        type="Admitted",
        status="True" if status.get("placement") else "False",
        observed_generation=job.metadata.generation,
        last_transition_time=moment(now),
        reason=UNREADABLE,
        message=job.problem,
    ).model_dump(mode="json", by_alias=True)
    if before.get("status") == condition["status"]:
        condition["lastTransitionTime"] = before["lastTransitionTime"]
    others = [other for other in conditions if other is not before]
    return {"phase": status.get("phase") or "Queued", "message": job.problem, "conditions": [condition, *others]}


def _version(job: Unreadable) -> tuple[str, int]:
    return job.metadata.uid, job.metadata.generation
