"""When the start of a gang has failed, and what that teaches (see `lessons`) for one generation of the job's spec.

Kueue's waitForPodsReady is the model (KEP-349): a time within which all pods run, a number of tries, then deactivation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from muster.api.status import FailedStart
from muster.kube.objects import Pod
from muster.scheduling.counting import counted
from muster_operator.dljob.faults import Trouble
from muster_operator.dljob.gang import NOTES
from muster_operator.dljob.job import Job
from muster_operator.dljob.step import Step
from muster_operator.lessons import Digest, Lessons
from muster_operator.pod_faults import hold_up, is_unexplained, is_unheard
from muster_operator.timestamps import stamp


def overdue(job: Job, current: Mapping[str, Pod], left_over: Sequence[Pod], now: float, step: Step) -> Trouble | None:
    """Return that a gang has not started by its deadline, with the pod and the words that say most; None before that.

    That pods of an earlier placement (`left_over`) do not end, and so keep new ones back, is no fault of this start.
    """
    if job.status.phase != "Admitted":
        return None
    until = _admitted_at(job) + job.spec.start_deadline_seconds
    if until > now:
        step.check_by(min(until, now + job.spec.start_deadline_seconds))  # a time ahead of this clock is another clock's
        return None
    waiting = [
        place
        for place in job.status.placement
        if not place.ended and ((pod := current.get(place.pod)) is None or pod.status.phase == "Pending")
    ]
    if not waiting:
        return None
    place = min(waiting, key=lambda each: each.pod not in current)
    pod = current.get(place.pod)
    more = f", like {counted(len(waiting) - 1, 'other')}" if len(waiting) > 1 else ""
    missed = f"pod {place.pod} on node {place.node} has not started within {job.spec.start_deadline_seconds} s{more}"
    if pod is None and left_over:
        words = f"waits for the end of pod {left_over[0].metadata.name} on node {left_over[0].spec.node_name}"
        return Trouble("StartDeadlineExceeded", f"{missed}: {words}")
    words = hold_up(pod) if pod is not None else "it has not been created"
    step.unexplained = pod if pod is not None and is_unexplained(pod) else None
    counts = pod is None or not is_unheard(pod)
    return Trouble("StartDeadlineExceeded", f"{missed}: {words}", [place.node], place.pod, is_start=counts)


def _admitted_at(job: Job) -> float:
    """When the gang was placed; a version that did not write it down left the time of the condition."""
    condition = next((each for each in job.status.conditions if each.type == "Admitted"), None)
    return stamp(job.status.admitted_at or (condition.last_transition_time if condition is not None else None))


def learnt(job: Job, found: Trouble, digest: Digest, now: float) -> Lessons:
    """Return what is known of the starts of a job, with what this trouble teaches."""
    before, of = job.lessons, for_generation(job, digest)
    after = before.refused_by(found.refused, of, now)
    if job.status.phase != "Admitted" or not (found.pod or _failed_before(job)):
        return after
    if found.is_start:
        after = after.failed_on(next(place.node for place in job.status.placement if place.pod == found.pod), found.message, of)
    node, pod = found.avoid[0] if found.avoid else "", found.pod
    times = before.failures + found.is_start
    failed = FailedStart(reason=found.reason, message=found.message, pod=pod, node=node, times=times, digest=of(node))
    return after._replace(failed=failed)


def _failed_before(job: Job) -> bool:
    """Whether the last start failed too, whosever fault it was: once may be chance, from the second on others must not lose."""
    events = [past.event for past in job.status.timeline if past.event not in NOTES]
    return events[-3:] == ["Admitted", "Requeued", "Admitted"]


def not_created(job: Job, message: str) -> Lessons:
    """Return the same where the API server refused a pod: trying again may help, preempting others does not."""
    before, digest = job.lessons, str(job.meta.generation)
    return before._replace(failed=FailedStart(reason="FailedCreate", message=message, times=before.failures, digest=digest))


def exhausted(job: Job) -> bool:
    """Say whether so many starts in a row have failed that the job is to be set aside."""
    return job.lessons.failures > job.spec.start_retries


def for_generation(job: Job, digest: Digest) -> Digest:
    """Return a digest that changes with the job's spec as well."""
    return lambda node: f"{job.meta.generation}-{digest(node)}" if node else f"{job.meta.generation}"
