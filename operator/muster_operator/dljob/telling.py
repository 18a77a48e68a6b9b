"""Tells jobs why they wait, in their status, no more often than people can read.

Another reason is told at once; newer numbers to the same reason only now and then; and of thousands of jobs that wait, so many
after each plan.
"""

from __future__ import annotations

from dataclasses import replace

from muster.api import names
from muster.scheduling.decisions import Reason, Wait
from muster.scheduling.gang import Gang
from muster_operator.controller import Context
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record
from muster_operator.dljob.status_writer import StatusWriter
from muster_operator.dljob.watch import key_of
from muster_operator.reporting import in_words
from muster_operator.resources import DLJOBS

SAME_REASON_SECONDS = 10.0
"""Least time between two status writes that only bring newer numbers to the same reason."""
MOST_TOLD = 100
"""Most waiting jobs whose reason is written after one plan; the others follow after the next."""


class Telling:
    """When each job's reason was written last, and how many were written after this plan."""

    def __init__(self, context: Context, writer: StatusWriter) -> None:
        self._work_queue, self._api_writer, self._writer = context.work_queue, context.api_writer, writer
        self._told_at: dict[str, float] = {}
        self._told = 0

    def begin_plan(self) -> None:
        """Start counting the jobs that are told after this plan."""
        self._told = 0

    def forget(self, name: str) -> None:
        """Forget a job that is gone."""
        self._told_at.pop(name, None)

    def tell(self, job: Job, wait: Wait, now: float) -> None:
        """Start the write of why a job waits, or does not change as its user wishes, if that is worth telling now."""
        if not self._is_news(job, wait, now):
            return
        self._told += 1
        if self._told > MOST_TOLD:
            self._work_queue.plan_by(now + 1.0)
            return
        self._told_at[job.key] = now
        self._work_queue.start(key_of(job.key), self._write(job, wait, now))

    def fault(self, job: Job, error: Exception) -> None:
        """Start the write that tells a job of a fault of muster's own, by which it cannot be brought on."""
        if job.status.message != _fault(job, error).message and not self._work_queue.is_busy(key_of(job.key)):
            self._work_queue.start(key_of(job.key), self.write_fault(job, error))

    async def write_fault(self, job: Job, error: Exception) -> None:
        """Write to a job's status that a fault of muster's own keeps it from being brought on, unless it says so."""
        wait = _fault(job, error)
        if job.status.message != wait.message:
            await self._write(job, wait, self._work_queue.clock())

    def _is_news(self, job: Job, wait: Wait, now: float) -> bool:
        if self._work_queue.is_busy(key_of(job.key)) or wait.reason is Reason.BACK_OFF:
            return False  # during a back-off its cause says more
        if job.status.placement:
            return job.status.message != wait.message
        admitted = next((condition for condition in job.status.conditions if condition.type == "Admitted"), None)
        if admitted is None or admitted.reason != wait.reason or job.status.phase != "Queued":
            return True
        if admitted.message == wait.message:
            return False
        soonest = self._told_at.get(job.key, 0.0) + SAME_REASON_SECONDS
        if soonest > now:
            self._work_queue.plan_by(soonest)
        return soonest <= now

    async def _write(self, job: Job, wait: Wait, now: float) -> None:
        if job.status.placement and wait.reason is Reason.NOT_THERE:
            annotated = await self._api_writer.annotate(DLJOBS, job.meta, {names.MIGRATE: None})
            if annotated is None:
                return
            job = replace(job, meta=annotated.metadata)
        record = Record(job, now)
        if job.status.placement:
            record.note("ChangePending", wait.reason, wait.message)
        else:
            record.wait(wait.reason, wait.message)
        await self._writer.write(record)


def _fault(job: Job, error: Exception) -> Wait:
    message = f"a fault of muster keeps this job from being brought on ({in_words(error)}); muster tries again"
    return Wait(Gang(job.key, "", 0.0, ()), Reason.UNPLANNABLE, message)
