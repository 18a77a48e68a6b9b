"""When jobs that back off may start again, and since when gangs start, by the clocks of this process.

notBefore and releasedAt of a status are of one moment and by one clock, which may have been another host's. So only the time
between them counts, from when this process first sees them. A gang starts from when this process first sees its placement: an
operator that starts anew gives it the whole of its deadline again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from muster_operator.backoff import LONGEST_BACKOFF
from muster_operator.dljob.job import Job
from muster_operator.timestamps import stamp
from muster_operator.work_queue import WorkQueue


class _Rest(NamedTuple):
    said: datetime
    until: float
    """By the clock that paces."""


class Rests:
    """The rests of jobs, as their statuses say them."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        self._rests: dict[str, _Rest] = {}

    def end(self, job: Job) -> float:
        """Return when a job's rest ends, by the clock that dates, to a tenth of a second; 0 if it has none, or it is over."""
        said, rest, pace = job.status.not_before, self._rests.get(job.key), self._work_queue.pace()
        if said is None:
            self.forget(job.key)
            return 0.0
        if rest is None or rest.said != said:
            seconds = stamp(said) - stamp(job.status.released_at)
            rest = self._rests[job.key] = _Rest(said, pace + max(0.0, min(seconds, LONGEST_BACKOFF + 1.0)))
        return round(self._work_queue.clock() + rest.until - pace, 1) if rest.until > pace else 0.0

    def forget(self, name: str) -> None:
        """Forget a job that is gone or rests no more."""
        self._rests.pop(name, None)


class _Start(NamedTuple):
    uid: str
    attempt: int
    at: float
    """By the clock that paces."""


class Starts:
    """Since when the gangs start that are placed and do not run yet."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        self._starts: dict[str, _Start] = {}

    def dated(self, job: Job) -> Job:
        """Return a job with the time at which its placement was first seen, in place of that by another's clock."""
        if job.status.phase != "Admitted":
            self.forget(job.key)
            return job
        pace, start = self._work_queue.pace(), self._starts.get(job.key)
        if start is None or (start.uid, start.attempt) != (job.meta.uid, job.status.attempt):
            start = self._starts[job.key] = _Start(job.meta.uid, job.status.attempt, pace)
        at = datetime.fromtimestamp(self._work_queue.clock() - (pace - start.at), UTC)
        return replace(job, status=job.status.model_copy(update={"admitted_at": at}))

    def forget(self, name: str) -> None:
        """Forget a job that is gone or starts no more."""
        self._starts.pop(name, None)
