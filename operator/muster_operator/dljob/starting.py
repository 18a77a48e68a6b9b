"""What a start that failed teaches: which nodes refuse the gang, how often in a row it did not start, and how long that holds.

Kueue's waitForPodsReady is the model (KEP-349): a time within which all pods run, a number of tries, then deactivation. A
refusal or failure holds for one generation of the spec and for the node as it is: a change of either ends it.

- A node that refused the gang once is avoided: kube-scheduler's cache may have been stale. One that refused it again is left
  out, for longer each time: then nothing but a change helps.
- A start that fails for another reason (an image, a mount, nothing at all for too long) counts against startRetries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from muster.api.status import REFUSALS_LIMIT, FailedStart, Refusal
from muster.kube.objects import Pod
from muster.scheduling.counting import counted
from muster_operator.dljob.faults import Trouble
from muster_operator.dljob.job import Job
from muster_operator.dljob.step import Step
from muster_operator.pod_faults import hold_up
from muster_operator.timestamps import moment, stamp

REFUSED_SECONDS = 600.0
"""How long a node is left out that has refused a gang twice; doubled each further time."""
LONGEST_REFUSED_SECONDS = 3600.0
MOST_WORDS = 200
"""Characters of a refusal."""
Digest = Callable[[str], str]
"""From a node's name to a digest of what decides which pods it takes."""
UNCHANGED: Digest = "".format
"""Of nodes that never change."""


def overdue(job: Job, current: Mapping[str, Pod], now: float, step: Step) -> Trouble | None:
    """Return that a gang has not started by its deadline, with the pod and the words that say most; None before that."""
    if job.status.phase != "Admitted":
        return None
    until = _admitted_at(job) + job.spec.start_deadline_seconds
    if until > now:
        step.check_by(min(until, now + job.spec.start_deadline_seconds))  # a time ahead of this clock is another clock's
        return None
    waiting = [
        place for place in job.status.placement if (pod := current.get(place.pod)) is None or pod.status.phase == "Pending"
    ]
    if not waiting:
        return None
    place = min(waiting, key=lambda each: each.pod not in current)
    pod = current.get(place.pod)
    more = f", as have {counted(len(waiting) - 1, 'other')}" if len(waiting) > 1 else ""
    missed = f"pod {place.pod} on node {place.node} has not started within {job.spec.start_deadline_seconds} s{more}"
    words = hold_up(pod) if pod is not None else "it has not been created"
    return Trouble("StartDeadlineExceeded", f"{missed}: {words}", [place.node], place.pod, is_start=True)


def _admitted_at(job: Job) -> float:
    """When the gang was placed; a version that did not write it down left the time of the condition."""
    condition = next((each for each in job.status.conditions if each.type == "Admitted"), None)
    return stamp(job.status.admitted_at or (condition.last_transition_time if condition is not None else None))


def refused(job: Job, found: Trouble, digest: Digest, now: float) -> list[Refusal]:
    """Return the refusals of a job, with those that a start has met; the oldest go where they are too many."""
    before = {each.node: each for each in job.status.refusals}
    for node, words in found.refused.items():
        last = before.pop(node, None)
        before[node] = _again(node, words, 1 + (last.times if last is not None else 0), _of(job, node, digest), now)
    return list(before.values())[-REFUSALS_LIMIT:]


def _again(node: str, words: str, times: int, digest: str, now: float) -> Refusal:
    pause = min(REFUSED_SECONDS * 2.0 ** min(times - 2, 10), LONGEST_REFUSED_SECONDS)
    until = moment(now + pause) if times > 1 else None
    return Refusal(node=node, message=words[:MOST_WORDS], times=times, until=until, digest=digest)


def failed(job: Job, found: Trouble, digest: Digest) -> FailedStart | None:
    """Return the start of a job that failed by this trouble; None where it says nothing of the next start."""
    if job.status.phase != "Admitted" or not (found.is_start or found.refused):
        return None
    node = found.avoid[0] if found.avoid else ""
    times = (job.status.failed_start.times if job.status.failed_start is not None else 0) + found.is_start
    return FailedStart(
        reason=found.reason, message=found.message, pod=found.pod, node=node, times=times, digest=_of(job, node, digest)
    )


def not_created(job: Job, message: str) -> FailedStart:
    """Return the start of a job of which the API server refused a pod: trying again may help, preempting others does not."""
    times = job.status.failed_start.times if job.status.failed_start is not None else 0
    return FailedStart(reason="FailedCreate", message=message, times=times, digest=str(job.meta.generation))


def standing(job: Job, digest: Digest, now: float) -> tuple[list[Refusal], FailedStart | None]:
    """Return the refusals and the failed start that still hold; a node left out for long enough is only avoided again."""
    refusals = [
        each.model_copy(update={"until": None}) if stamp(each.until) <= now else each
        for each in job.status.refusals
        if each.digest == _of(job, each.node, digest)
    ]
    last = job.status.failed_start
    return refusals, last if last is not None and last.digest == _of(job, last.node, digest) else None


def exhausted(job: Job) -> bool:
    """Say whether so many starts in a row have failed that the job is to be set aside."""
    return job.status.failed_start is not None and job.status.failed_start.times > job.spec.start_retries


def _of(job: Job, node: str, digest: Digest) -> str:
    return f"{job.meta.generation}-{digest(node)}" if node else f"{job.meta.generation}"
