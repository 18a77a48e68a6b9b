"""From a job and its pods to the next step of its life: a pure function, level-triggered.

It looks at what is there, never at what happened, so it does not matter how often it is asked, or after which crash:
- status.placement is the desired state: these pods, of this attempt, on these nodes. Without a placement there are no pods.
- A pod of another attempt, or one that the placement does not name, is left over, unless it may go on where it is (a resize of
  some forms of gang): then it is told the new attempt. What is left over gets a notice (annotations that its
  program can read) and is then deleted.
- A job that is being deleted gives up its placement, although a finalizer keeps it: it is planned no more, and counts nowhere.
- Missing pods are created once nothing is left over, all together.
- A job whose names something else has, an earlier job's orphans for one, says so and is not planned until that is gone.
- A gang that has not started by its deadline, or whose program the kubelet starts again and again, gives its GPUs back too; one
  that fails to start time after time is suspended (see `starting`).
- A gang that cannot be complete (a pod failed, was deleted or is unschedulable, a node is gone) is requeued as a whole. So is
  one with a pod that is not on the node and GPUs of its placement, and one whose placement cannot be its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.api import names
from muster.kube.objects import Pod
from muster.scheduling.counting import counted
from muster_operator.dljob import placement_check, starting
from muster_operator.dljob.faults import cause, failed_at, fails, restarts, taken_before, trouble
from muster_operator.dljob.job import Job
from muster_operator.dljob.manifests import has_service, notes, stays
from muster_operator.dljob.rendezvous import end_alone
from muster_operator.dljob.status import UNMET, UNREADABLE
from muster_operator.dljob.step import Nodes, Step, record, stop
from muster_operator.lessons import Digest
from muster_operator.timestamps import stamp

STOPPING_SECONDS = 5.0
"""How long pods may be stopping before their gang says that it waits for them."""


def next_step(job: Job, pods: Iterable[Pod], nodes: Nodes, now: float, blocked: str = "") -> Step:
    """Return the next step for a job with these pods.

    `blocked` is the sentence about what has the job's names and is not its own; empty if nothing has.
    """
    step = Step()
    mine = sorted(pods, key=lambda pod: pod.metadata.name)
    for pod in mine:
        if pod.leaving and pod.spec.node_name and not nodes.is_alive(pod.spec.node_name):
            step.destroy.append(pod)
    if job.meta.deletion_timestamp is not None:
        _deleted(job, mine, nodes, now, step)
        return step
    if _was_unreadable(job):
        record(step, job, now).read_again()
    if job.finished:
        _finished(job, mine, nodes, now, step)
    elif _overdue(job, now, step):
        message = f"ran longer than {job.spec.active_deadline_seconds} s, over all attempts"
        record(step, job, now).finish(False, "DeadlineExceeded", message)
    elif job.status.placement and (misfit := placement_check.misfit(job)) is not None:
        record(step, job, now).requeue("PlacementInvalid", f"the placement in the status is not this job's: {misfit}")
    elif job.status.placement:
        _placed(job, mine, nodes, now, step)
    else:
        _unplaced(job, mine, nodes, now, step)
        if blocked and step.status is None and not job.suspended and job.status.phase != "Suspended":
            record(step, job, now).block(blocked)
    return step


def _deleted(job: Job, pods: list[Pod], nodes: Nodes, now: float, step: Step) -> None:
    """A job that a finalizer keeps holds nothing for that; its pods are stopped, unless they are to be orphaned.

    Without a finalizer there is no such job: the garbage collector deletes its pods.
    """
    if job.meta.orphans:
        return
    if job.status.placement and not job.finished:
        record(step, job, now).stop(f"is being deleted: {counted(len(pods), 'pod')} to stop")
    stop(step, (pod for pod in pods if not pod.finished), nodes.is_alive, now, names.SUSPEND)


def _was_unreadable(job: Job) -> bool:
    return any((condition.type, condition.reason) == ("Admitted", UNREADABLE) for condition in job.status.conditions)


def _finished(job: Job, pods: list[Pod], nodes: Nodes, now: float, step: Step) -> None:
    """Stop what still runs (parameter servers do not end by themselves); finished pods stay for their logs."""
    step.service = False
    if job.status.placement:
        record(step, job, now).give_up()
    stop(step, (pod for pod in pods if not pod.finished), nodes.is_alive, now, names.SUSPEND)
    if job.spec.ttl_seconds_after_finished is not None:
        end = stamp(job.status.finished_at) + job.spec.ttl_seconds_after_finished
        if end <= now:
            step.remove = True
        else:
            step.check_by(end)


def _overdue(job: Job, now: float, step: Step) -> bool:
    """Whether a gang has run for longer than it may, over all of its placements."""
    if job.spec.active_deadline_seconds is None or job.status.started_at is None or not job.status.placement:
        return False
    end = stamp(job.status.started_at) + job.spec.active_deadline_seconds - job.status.ran_seconds
    if end > now:
        step.check_by(end)
    return end <= now


def _unplaced(job: Job, pods: list[Pod], nodes: Nodes, now: float, step: Step) -> None:
    """Stop the pods of an earlier placement; then the job is suspended, or waits in its queue."""
    step.service = False
    if job.meta.annotation(names.MIGRATE) is not None:
        step.annotate_job = {names.MIGRATE: None}  # without a placement there is nothing to move
    remaining = [pod for pod in pods if not pod.finished]
    stop(step, remaining, nodes.is_alive, now, names.SUSPEND)
    if job.suspended and job.status.phase != "Suspended" and not remaining:
        record(step, job, now).suspend()
    elif not job.suspended and job.status.phase in ("Suspending", "Suspended"):
        record(step, job, now).resume()
    elif not job.suspended:
        _learnt(job, now, step, nodes.digest)
    _await_end(job, remaining, stamp(job.status.released_at), now, step)


def _await_end(job: Job, pods: Iterable[Pod], since: float, now: float, step: Step) -> None:
    """Name the pods whose end the gang waits for, once that has lasted: nothing is started beside them."""
    waited_for = [pod for pod in pods if pod.leaving and pod.spec.node_name and pod not in step.destroy]
    leaving = [f"{pod.metadata.name} on node {pod.spec.node_name}" for pod in waited_for]
    if not leaving:
        return
    tell_at = min(since, now) + STOPPING_SECONDS
    if tell_at > now:
        step.check_by(tell_at)
    else:
        others = f", and for {counted(len(leaving) - 1, 'other')}" if leaving[1:] else ""
        record(step, job, now).await_end(f"waits for the end of pod {leaving[0]}, which is terminating{others}")


def _learnt(job: Job, now: float, step: Step, digest: Digest) -> None:
    """Forget of earlier starts what does not hold any more; set a job aside that has failed to start too often."""
    known = job.lessons
    standing = known.standing(starting.for_generation(job, digest), now)
    if standing != known:
        record(step, job, now).learn(standing)
    elif starting.exhausted(job):
        step.annotate_job |= {names.SUSPEND: "true"}  # the job's change leads to its suspension
    if standing.until is not None:
        step.check_by(standing.until)


def _placed(job: Job, pods: list[Pod], nodes: Nodes, now: float, step: Step) -> None:
    attempt = str(job.status.attempt)
    placed = {place.pod: place for place in job.status.placement}
    mine = [
        pod
        for pod in pods
        if (place := placed.get(pod.metadata.name)) is not None
        and (pod.metadata.annotation(names.ATTEMPT) == attempt or (place.ended and pod.finished))
    ]
    current = {pod.metadata.name: pod for pod in mine}
    wishes = _wishes(job, current.values())
    if wishes:
        step.annotate_job = wishes
        return  # the job's change leads back here
    if job.suspended:
        record(step, job, now).stop(f"suspending: {counted(len(current), 'pod')} to stop")
        return
    staying = _staying(job, [pod for pod in pods if pod not in mine], step)
    left_over = [pod for pod in pods if pod not in mine and pod not in staying]
    stop(step, left_over, nodes.is_alive, now, names.MIGRATE)
    _await_end(job, left_over, stamp(job.status.admitted_at), now, step)
    if _succeeded(job, current):
        record(step, job, now).finish(True, "Completed", "the gang ran to its end")
    elif not _broken(job, current, left_over, nodes, now, step) and not left_over and not staying:
        _complete(job, current, now, step)


def _staying(job: Job, others: list[Pod], step: Step) -> list[Pod]:
    """Take pods of an earlier placement over that are where the present one wants them, and may go on there."""
    gang = job.status.placement
    wanted = {place.pod: place for place in gang}
    staying = [pod for pod in others if (me := wanted.get(pod.metadata.name)) is not None and stays(job, pod, me)]
    step.annotate_pods += [(pod, notes(job, wanted[pod.metadata.name], gang)) for pod in staying]
    return staying


def _wishes(job: Job, current: Iterable[Pod]) -> dict[str, str | None]:
    """The wishes that users annotated pods with, to be copied to the job, where they outlive the pods."""
    wishes: dict[str, str | None] = {}
    for pod in current:
        if pod.leaving or pod.metadata.annotation(names.STOP_AT) is not None:
            continue  # muster's own notice, not a wish
        if pod.metadata.annotation(names.SUSPEND) == "true" and not job.suspended:
            wishes[names.SUSPEND] = "true"
        leave = pod.metadata.annotation(names.MIGRATE)
        if leave is not None and job.meta.annotation(names.MIGRATE) is None:
            wishes[names.MIGRATE] = leave
    return wishes


def _succeeded(job: Job, current: dict[str, Pod]) -> bool:
    """A job ends with its chief if it has one, else with its workers; parameter servers and evaluators do not count."""
    decisive = "chief" if "chief" in job.replicas else "worker"
    deciding = [place for place in job.status.placement if place.role == decisive]
    return all(place.ended or _has_succeeded(current.get(place.pod)) for place in deciding)


def _has_succeeded(pod: Pod | None) -> bool:
    return pod is not None and pod.status.phase == "Succeeded"


def _broken(job: Job, current: dict[str, Pod], left_over: list[Pod], nodes: Nodes, now: float, step: Step) -> bool:
    """Requeue the gang, or fail the job, if the gang cannot be complete any more.

    Where a program has failed, a node that is not ready has lasted for long enough: it may be why.
    """
    failed = min((pod for pod in current.values() if fails(job, pod, nodes.is_alive)), key=failed_at, default=None)
    found = trouble(job, current, nodes.is_alive if failed is None else nodes.is_ready, now, step)
    if failed is not None and not (found is not None and taken_before(job, current, failed, nodes.is_ready)):
        _fail(job, failed, now, step)
        return True
    found = found or starting.overdue(job, current, left_over, now, step)
    if found is not None:
        lessons = starting.learnt(job, found, nodes.digest, now)
        record(step, job, now).requeue(found.reason, found.message, avoid=found.avoid, lessons=lessons)
    return found is not None


def _fail(job: Job, pod: Pod, now: float, step: Step) -> None:
    """Restart a gang whose program has failed in a pod, or fail the job; restarts by the kubelet count as the gang's do."""
    message = f"pod {pod.metadata.name} failed on node {pod.spec.node_name}: {cause(pod)}"
    used = max(job.status.restarts, restarts(pod))
    record(step, job, now).blame(pod.spec.node_name or "")
    if job.status.restarts >= job.spec.backoff_limit or used > job.spec.backoff_limit:
        limit = f"{used} of {counted(job.spec.backoff_limit, 'restart')} used"
        record(step, job, now).finish(False, "BackoffLimitExceeded", f"{message}; {limit}")
    else:
        record(step, job, now).requeue("PodFailed", message, failed=True)


def _complete(job: Job, current: dict[str, Pod], now: float, step: Step) -> None:
    """Create the missing pods; note when the whole gang runs."""
    step.service = has_service(job)
    step.create = [place for place in job.status.placement if place.pod not in current and not place.ended]
    running = all(pod.status.phase in ("Running", "Succeeded") for pod in current.values())
    if not step.create and running and job.status.phase == "Admitted":
        record(step, job, now).run()
    elif job.status.phase == "Running" and not (job.is_resized or job.migrates) and _is_unmet(job):
        record(step, job, now).settle()
    over = {name for name, pod in current.items() if _has_succeeded(pod)}
    if over and job.status.phase == "Running":
        record(step, job, now).count_running(over, end_alone=end_alone(job))


def _is_unmet(job: Job) -> bool:
    """Whether the last that was said of the job is that it does not change as its user wishes."""
    last = job.status.timeline[-1] if job.status.timeline else None
    return last is not None and last.event == "ChangePending" and last.reason in UNMET
