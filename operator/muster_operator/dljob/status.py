"""What happens to a job, as its status says it: phase, conditions, timeline and back-off (`status_edit` has how).

Reasons follow Kubernetes' and Kueue's words where these have one: machines read them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from muster.api import names
from muster.api.status import (
    FAILURES_LIMIT,
    Condition,
    FailedStart,
    NodeFailures,
    TaskPlacement,
    TimelineEvent,
)
from muster.scheduling.counting import counted
from muster.scheduling.decisions import Reason
from muster.scheduling.gang import Placement
from muster_operator.backoff import FAILURE_BACKOFF, FIRST_BACKOFF, doubled
from muster_operator.dljob.gang import written
from muster_operator.dljob.rendezvous import outlives_change
from muster_operator.dljob.status_edit import StatusEdit
from muster_operator.lessons import Lessons
from muster_operator.timestamps import moment

NAME_TAKEN = "NameTaken"
"""The reason of a job that is not planned because something that is not its own has the name of a pod or of its Service."""
RESIZE_REFUSED = "ResizeRefused"
"""The reason of a job that keeps its size because the API server would refuse the pods of another."""
SET_ASIDE = "StartRetriesExceeded"
"""The reason of a job that muster suspended because it failed to start too often in a row."""
UNREADABLE = "Unreadable"
"""The reason of a job that this version of the operator cannot read, or could not before another one did."""
READABLE = "Readable"
"""The reason of a job that is read again, until there is more to say of it."""
UNMET = frozenset({RESIZE_REFUSED, Reason.NO_OTHER_PLACE, Reason.QUOTA_EXHAUSTED})
"""Reasons for which a running gang does not change as its user wishes, as long as the wish stands."""


class Record(StatusEdit):
    """The status of a job, changed by what happens to it."""

    def wait(self, reason: str, message: str, position: int | None = None) -> None:
        """The job waits, and why; `position` is its place among those of its queue that wait."""
        self.status.position = position
        self._arrive(reason, message)
        self._phase("Queued", message)
        self._condition("Admitted", False, reason, message)

    def block(self, message: str) -> None:
        """The job is not planned while something else has its names; that ends a back-off."""
        self.status.not_before = None
        self._arrive("Submitted", f"needs {counted(self.job.gpus, 'GPU')}")
        self.wait(NAME_TAKEN, message)
        self._event("Blocked", NAME_TAKEN, message)

    def admit(self, placement: Placement, reason: str, message: str) -> None:
        """The job is placed: this is its reservation."""
        status, moving = self.status, bool(self.status.placement)
        self._arrive("Submitted", f"needs {counted(self.job.gpus, 'GPU')}")
        self._count_service()
        status.attempt += 1
        status.placement = _beside(written(placement), self._over())
        status.placed_uid = self.job.meta.uid
        self._summarise()
        status.replicas = sum(place.role == "worker" for place in status.placement)
        status.wanted_replicas = self.job.replicas["worker"]
        status.selector = f"{names.JOB}={self.job.meta.name},{names.ROLE}=worker"
        status.not_before = status.started_at = None
        status.admitted_at = moment(self.now)
        self._phase("Admitted", message)
        self._condition("Admitted", True, reason, message)
        self._condition("Running", False, "Starting", "the gang's pods are being started")
        self._condition("Suspended", False, "Admitted", "the job holds GPUs")
        self._event(reason if moving else "Admitted", reason, message)

    def refuse_resize(self, message: str) -> None:
        """The API server would refuse the pods of the new size: the gang goes on as it is."""
        message = f"keeps its size: {message}"
        self._condition("Admitted", True, RESIZE_REFUSED, message)
        self.note("ChangePending", RESIZE_REFUSED, message)

    def settle(self) -> None:
        """The user has taken a wish back that could not be met."""
        message = self._all_running()
        self._condition("Admitted", True, "Placed", "the job holds GPUs")
        self.note("ChangeWithdrawn", "Unchanged", message)

    def run(self) -> None:
        """The whole gang runs."""
        self.status.started_at = moment(self.now)
        self.status.avoid = []
        self.status.refusals = [refusal for refusal in self.status.refusals if refusal.until is not None]
        self.status.failed_start = None
        message = self._all_running()
        self._phase("Running", message)
        self._condition("Running", True, "GangRunning", message)
        self._event("Running", "GangRunning", message)

    def count_running(self, over: Collection[str], *, end_alone: bool) -> None:
        """These pods of a running gang have ended well, and hold nothing any more where pods of the gang end alone."""
        ending = [place for place in self.status.placement if end_alone and place.pod in over and not place.ended]
        self._count_gpus(ending)
        for place in ending:
            place.ended, place.gpus = True, []
        self._summarise()
        count = len(self.status.placement)
        ended = sum(bool(place.ended) or place.pod in over for place in self.status.placement)
        said = next((each.message for each in self.status.conditions if each.type == "Running"), "")
        message = f"{count - ended} of {counted(count, 'pod')} running, {ended} ended" if ended else said
        if message != said:
            self.status.message = message
            self._condition("Running", True, "GangRunning", message)

    def _over(self) -> list[TaskPlacement]:
        """The entries of pods that have ended, are still wanted, and are not started anew where the gang changes."""
        over = (place for place in self.status.placement if place.ended and outlives_change(self.job, place.role))
        return [place for place in over if place.index < self.job.replicas.get(place.role, 0)]

    def requeue(
        self, reason: str, message: str, *, failed: bool = False, avoid: Sequence[str] = (), lessons: Lessons | None = None
    ) -> None:
        """The job is off its GPUs and in the queue again, with back-off; `failed` if the gang itself is to blame.

        `lessons` are what is known of its starts by now; None: nothing that was not known.
        """
        pause = self._pause(failed, lessons)
        self._release()
        self.status.restarts += failed
        self.status.requeues += not failed
        self.status.not_before = moment(self.now + pause + 0.999)
        self.status.avoid = sorted(set(avoid))
        if lessons is not None:
            self.learn(lessons)
        self._event("Restarting" if failed else "Requeued", reason, message)
        self._phase("Queued", message)
        self._condition("Admitted", False, reason, message)
        self._condition("Running", False, reason, message)

    def blame(self, node: str) -> None:
        """The program has failed on this node: from the second time on, the gang prefers others."""
        before = {each.node: each for each in self.status.failures}
        times = before.pop(node).times if node in before else 0
        self.status.failures = [*before.values(), NodeFailures(node=node, times=times + 1)][-FAILURES_LIMIT:]

    def _pause(self, failed: bool, lessons: Lessons | None) -> float:
        """The seconds of back-off: longer where the gang itself is to blame, or cannot start wherever it is placed."""
        before = self.status.failed_start.times if self.status.failed_start is not None else 0
        if failed:
            return doubled(FAILURE_BACKOFF, self.status.restarts)
        if lessons is not None and lessons.failures > before:
            return doubled(FAILURE_BACKOFF, before)
        return doubled(FIRST_BACKOFF, self._requeued_in_a_row())

    def explain(self, words: str) -> None:
        """Add to what was just said of a start that failed."""
        status, said, message = self.status, self.status.message, f"{self.status.message}; {words}"
        told: list[Condition | TimelineEvent | FailedStart | None]
        told = [*status.conditions, *status.timeline[-1:], status.failed_start]
        for each in told:
            if each is not None and each.message == said:
                each.message = message
        status.message = message

    def learn(self, lessons: Lessons) -> None:
        """Starts of the gang have taught this by now, and nothing else."""
        self.status.refusals, self.status.failed_start = list(lessons.refusals), lessons.failed

    def await_end(self, message: str) -> None:
        """Pods of an earlier placement have not ended yet."""
        if self.status.phase == "Queued":
            self.wait(Reason.PODS_STOPPING, message)
        else:
            self.status.message = message

    def preempt(self, message: str) -> None:
        """Another gang takes the GPUs; the job is queued again as of its arrival, without back-off."""
        self._release()
        self.status.requeues += 1
        self._event("Preempted", "Preempted", message)
        self._phase("Queued", message)
        self._condition("Admitted", False, "Preempted", message)
        self._condition("Running", False, "Preempted", message)

    def stop(self, message: str) -> None:
        """The user wants the job suspended: the reservation is given up while its pods still stop."""
        self._release()
        self._phase("Suspending", message)
        self._condition("Running", False, "Suspending", message)
        self._event("Suspending", "Suspended", message)

    def suspend(self) -> None:
        """The last pod is gone of a job that its user suspended, or that muster sets aside because it does not start."""
        failed, resuming = self.status.failed_start, f"annotate it with {names.SUSPEND}=false to queue it again"
        event, reason, message = "Suspended", "Suspended", f"suspended; {resuming}"
        if failed is not None and failed.times > self.job.spec.start_retries:
            tries = f"set aside after {counted(failed.times, 'start')} that failed; the last: {failed.message}"
            event, reason, message = "SetAside", SET_ASIDE, f"{tries}; {resuming}"
        self._arrive("Submitted", f"needs {counted(self.job.gpus, 'GPU')}")
        self._phase("Suspended", message)
        self._condition("Suspended", True, reason, message)
        self._condition("Admitted", False, "Suspended", message)
        self._event(event, reason, message)

    def resume(self) -> None:
        """The user resumes the job: it is queued again as of its arrival."""
        message = "resumed; waits in its queue"
        self.status.not_before = None
        self.learn(Lessons())
        self._phase("Queued", message)
        self._condition("Suspended", False, "Resumed", message)
        self._condition("Admitted", False, "Resumed", message)
        self._event("Resumed", "Resumed", message)

    def finish(self, succeeded: bool, reason: str, message: str) -> None:
        """The job has ended."""
        self._arrive("Submitted", f"needs {counted(self.job.gpus, 'GPU')}")
        started = self.status.started_at
        self._release()
        self.status.started_at = started
        self.status.finished_at = moment(self.now)
        self._phase("Succeeded" if succeeded else "Failed", message)
        self._condition("Admitted", False, "Finished", "the job has finished and holds no GPUs")
        self._condition("Running", False, reason, message)
        self._condition("Succeeded" if succeeded else "Failed", True, reason, message)
        self._event("Succeeded" if succeeded else "Failed", reason, message)

    def read_again(self) -> None:
        """The job can be read, which it could not before."""
        message = "can be read again"
        self._condition("Admitted", bool(self.status.placement), READABLE, message)
        self.status.message = message

    def give_up(self) -> None:
        """A job that has ended holds nothing, whatever its status says."""
        self._release()

    def note(self, event: str, reason: str, message: str) -> None:
        """Add an event that changes no phase to the timeline; the same event twice in a row counts once."""
        self.status.message = message
        self._event(event, reason, message)

    def _all_running(self) -> str:
        return f"{counted(len(self.status.placement), 'pod')} running, the whole gang"

    def _requeued_in_a_row(self) -> int:
        count = 0
        for past in reversed(self.status.timeline):
            if past.event == "Running":
                break
            count += past.event == "Requeued"
        return count


def _beside(placement: Sequence[TaskPlacement], over: Sequence[TaskPlacement]) -> list[TaskPlacement]:
    """A placement with the entries of pods that have ended, which keep their ranks; the others have the ranks between."""
    if not over:
        return list(placement)
    taken = {place.rank for place in over}
    ranks = (rank for rank in range(len(placement) + len(taken)) if rank not in taken)
    moved = [place.model_copy(update={"rank": rank}) for place, rank in zip(placement, ranks, strict=False)]
    both = sorted([*moved, *over], key=lambda place: place.rank)
    return [place.model_copy(update={"rank": rank}) for rank, place in enumerate(both)]
