"""What a job's status is to say of why it waits, or does not change as its user wishes; and the writing of it."""

from __future__ import annotations

from dataclasses import replace

from muster.api import names
from muster.scheduling.decisions import Reason, Wait
from muster.scheduling.gang import Gang
from muster_operator.controller import Context, News
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record
from muster_operator.dljob.status_writer import StatusWriter
from muster_operator.dljob.watch import key_of
from muster_operator.reporting import in_words

_PENDING = "ChangePending"
"""The timeline event of a job that does not change as its user wishes."""


def news(job: Job, wait: Wait) -> News:
    """Return what of a wait the job's status does not say; nothing where the job is not what the wait is about any more."""
    if wait.gang.stopping or wait.reason is Reason.BACK_OFF:
        return News.NONE  # the lifecycle says what it waits for, or why it backs off
    if bool(job.status.placement) != bool(wait.gang.placement) or not job.plannable:
        return News.NONE
    known, told = _told(job)
    if known != wait.reason:
        return News.REASON
    moved_up = wait.position and wait.position != job.status.position
    return News.NUMBERS if told != wait.message or moved_up else News.NONE


def _told(job: Job) -> tuple[str | None, str]:
    """The reason and the sentence that the status has."""
    if job.status.placement:
        last = job.status.timeline[-1] if job.status.timeline else None
        return (last.reason, job.status.message) if last is not None and last.event == _PENDING else (None, "")
    admitted = next((condition for condition in job.status.conditions if condition.type == "Admitted"), None)
    return (admitted.reason, admitted.message) if admitted is not None and job.status.phase == "Queued" else (None, "")


class JobTelling:
    """Writes to single jobs why they wait."""

    def __init__(self, context: Context, writer: StatusWriter) -> None:
        self._work_queue, self._api_writer, self._writer = context.work_queue, context.api_writer, writer

    async def write(self, job: Job, wait: Wait, now: float) -> None:
        """Write why a job waits, or does not change; a wish that is met already is taken off it."""
        if job.status.placement and wait.reason is Reason.NOT_THERE:
            annotated = await self._api_writer.annotate(DLJOBS, job.meta, {names.MIGRATE: None})
            if annotated is None:
                return
            job = replace(job, meta=annotated.metadata)
        record = Record(job, now)
        if job.status.placement:
            record.note(_PENDING, wait.reason, wait.message)
        else:
            record.wait(wait.reason, wait.message, wait.position or None)
        await self._writer.write(record)

    def fault(self, job: Job, error: Exception) -> None:
        """Start the write that tells a job of a fault of muster's own, by which it cannot be brought on."""
        if job.status.message != _fault(job, error).message and not self._work_queue.is_busy(key_of(job.key)):
            self._work_queue.start(key_of(job.key), self.write_fault(job, error))

    async def write_fault(self, job: Job, error: Exception) -> None:
        """Write to a job's status that a fault of muster's own keeps it from being brought on, unless it says so."""
        wait = _fault(job, error)
        if job.status.message != wait.message:
            await self.write(job, wait, self._work_queue.clock())


def _fault(job: Job, error: Exception) -> Wait:
    message = f"a fault of muster keeps this job from being brought on ({in_words(error)}); muster tries again"
    return Wait(Gang(job.key, "", 0.0, ()), Reason.UNPLANNABLE, message)
