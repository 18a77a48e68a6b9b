"""From a job and its pods to the next step of its life: a pure function, level-triggered.

It looks at what is there, never at what happened, so it does not matter how often it is asked, or after which crash:
- status.placement is the desired state: these pods, of this attempt, on these nodes. Without a placement there are no pods.
- A pod of another attempt, or one that the placement does not name, is left over, unless it may go on where it is (a resize of
  some forms of gang): then it is told the new attempt. What is left over gets a notice (annotations that its
  program can read) and is then deleted.
- Missing pods are created once nothing is left over, all together.
- A job whose names something else has, an earlier job's orphans for one, says so and is not planned until that is gone.
- A gang that cannot be complete (a pod failed, was deleted or is unschedulable, a node is gone) is requeued as a whole. So is
  one with a pod that is not on the node and GPUs of its placement, and one whose placement cannot be its own.

A step is carried out in this order: annotations of the job, its status, its Service, then pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from muster.api import names, texts
from muster.api.status import TaskPlacement
from muster.kube.objects import Pod
from muster.scheduling.counting import counted
from muster_operator.dljob import placement_check
from muster_operator.dljob.job import Job
from muster_operator.dljob.manifests import has_service, notes, stays
from muster_operator.dljob.status import UNMET, Record
from muster_operator.pinning import UNSCHEDULABLE_SECONDS
from muster_operator.pod_faults import start_fault, statuses
from muster_operator.timestamps import moment, stamp

NOTICE_SECONDS = 1.0
"""Between the notice to a running pod and its deletion: the kubelet may take that long to show the annotation."""
LONGEST_NOTICE_SECONDS = 5.0
"""A notice of a later time is not muster's, or was given by a clock that was wrong: another one is given."""
DISRUPTIONS = frozenset(
    {"NodeLost", "Evicted", "Preempting", "NodeShutdown", "Terminated", "UnexpectedAdmissionError", "NodeAffinity"}
)
"""Reasons of a failed pod that are not its own fault."""


@dataclass(slots=True)
class Step:
    """What to do next for one job."""

    status: Record | None = None
    annotate_job: dict[str, str | None] = field(default_factory=dict)
    annotate_pods: list[tuple[Pod, dict[str, str]]] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    destroy: list[Pod] = field(default_factory=list)
    """Pods whose node is gone: no kubelet will confirm their end, so they are deleted without waiting for it."""
    create: list[TaskPlacement] = field(default_factory=list)
    service: bool | None = None
    """Whether the Service must be there; None: as it is."""
    remove: bool = False
    """The job's time to live has expired."""
    check_at: float | None = None
    """When to ask for the next step although nothing changes."""

    def check_by(self, at: float) -> None:
        """Have the next step asked for by then."""
        self.check_at = at if self.check_at is None else min(at, self.check_at)


def next_step(job: Job, pods: Iterable[Pod], alive: Callable[[str], bool], now: float, blocked: str = "") -> Step:
    """Return the next step for a job with these pods; `alive` says of a node whether it is there and ready.

    `blocked` is the sentence about what has the job's names and is not its own; empty if nothing has.
    """
    step = Step()
    mine = sorted(pods, key=lambda pod: pod.metadata.name)
    for pod in mine:
        if pod.leaving and pod.spec.node_name and not alive(pod.spec.node_name):
            step.destroy.append(pod)
    if job.meta.deletion_timestamp is not None:
        return step
    if job.finished:
        _finished(job, mine, alive, now, step)
    elif _overdue(job, now, step):
        _record(step, job, now).finish(False, "DeadlineExceeded", f"ran longer than {job.spec.active_deadline_seconds} s")
    elif job.status.placement and (misfit := placement_check.misfit(job)) is not None:
        _record(step, job, now).requeue("PlacementInvalid", f"the placement in the status is not this job's: {misfit}")
    elif job.status.placement:
        _placed(job, mine, alive, now, step)
    else:
        _unplaced(job, mine, alive, now, step)
        if blocked and step.status is None and not job.suspended and job.status.phase != "Suspended":
            _record(step, job, now).block(blocked)
    return step


def _record(step: Step, job: Job, now: float) -> Record:
    step.status = step.status or Record(job, now)
    return step.status


def _finished(job: Job, pods: list[Pod], alive: Callable[[str], bool], now: float, step: Step) -> None:
    """Stop what still runs (parameter servers do not end by themselves); finished pods stay for their logs."""
    step.service = False
    if job.status.placement:
        _record(step, job, now).give_up()
    _stop(step, (pod for pod in pods if not pod.finished), alive, now, names.SUSPEND)
    if job.spec.ttl_seconds_after_finished is not None:
        end = stamp(job.status.finished_at) + job.spec.ttl_seconds_after_finished
        if end <= now:
            step.remove = True
        else:
            step.check_by(end)


def _overdue(job: Job, now: float, step: Step) -> bool:
    if job.spec.active_deadline_seconds is None or job.status.started_at is None or not job.status.placement:
        return False
    end = stamp(job.status.started_at) + job.spec.active_deadline_seconds
    if end > now:
        step.check_by(end)
    return end <= now


def _unplaced(job: Job, pods: list[Pod], alive: Callable[[str], bool], now: float, step: Step) -> None:
    """Stop the pods of an earlier placement; then the job is suspended, or waits in its queue."""
    step.service = False
    if job.meta.annotation(names.MIGRATE) is not None:
        step.annotate_job = {names.MIGRATE: None}  # without a placement there is nothing to move
    remaining = [pod for pod in pods if not pod.finished]
    _stop(step, remaining, alive, now, names.SUSPEND)
    if job.suspended and job.status.phase != "Suspended" and not remaining:
        _record(step, job, now).suspend()
    elif not job.suspended and job.status.phase in ("Suspending", "Suspended"):
        _record(step, job, now).resume()


def _placed(job: Job, pods: list[Pod], alive: Callable[[str], bool], now: float, step: Step) -> None:
    attempt = str(job.status.attempt)
    placed = {place.pod for place in job.status.placement}
    mine = [pod for pod in pods if pod.metadata.name in placed and pod.metadata.annotation(names.ATTEMPT) == attempt]
    current = {pod.metadata.name: pod for pod in mine}
    wishes = _wishes(job, current.values())
    if wishes:
        step.annotate_job = wishes
        return  # the job's change leads back here
    if job.suspended:
        _record(step, job, now).stop(f"suspending: {counted(len(current), 'pod')} to stop")
        return
    staying = _staying(job, [pod for pod in pods if pod not in mine], step)
    left_over = [pod for pod in pods if pod not in mine and pod not in staying]
    _stop(step, left_over, alive, now, names.MIGRATE)
    if _succeeded(job, current):
        _record(step, job, now).finish(True, "Completed", "the gang ran to its end")
    elif not _requeued(job, current, alive, now, step) and not left_over and not staying:
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
    deciding = [place.pod for place in job.status.placement if place.role == decisive]
    return all(name in current and current[name].status.phase == "Succeeded" for name in deciding)


def _requeued(job: Job, current: dict[str, Pod], alive: Callable[[str], bool], now: float, step: Step) -> bool:
    """Requeue the gang, or fail the job, if the gang cannot be complete any more."""
    own_failure = next((pod for pod in current.values() if pod.status.phase == "Failed" and _to_blame(pod, alive)), None)
    if own_failure is not None:
        message = f"pod {own_failure.metadata.name} failed on node {own_failure.spec.node_name}: {_cause(own_failure)}"
        if job.status.restarts >= job.spec.backoff_limit:
            limit = f"{job.status.restarts} of {counted(job.spec.backoff_limit, 'restart')} used"
            _record(step, job, now).finish(False, "BackoffLimitExceeded", f"{message}; {limit}")
        else:
            _record(step, job, now).requeue("PodFailed", message, failed=True)
        return True
    trouble = _trouble(job, current, alive, now, step)
    if trouble is not None:
        reason, message, nodes = trouble
        _record(step, job, now).requeue(reason, message, avoid=nodes)
    return trouble is not None


def _trouble(
    job: Job, current: dict[str, Pod], alive: Callable[[str], bool], now: float, step: Step
) -> tuple[str, str, list[str]] | None:
    """What keeps the gang from being complete without its own fault: reason, message, nodes to avoid."""
    for place in job.status.placement:
        pod = current.get(place.pod)
        if pod is not None and pod.status.phase == "Succeeded":
            continue  # it has done its part, whatever became of its node
        if not alive(place.node):
            return "NodeLost", f"node {place.node} of pod {place.pod} is gone or not ready", [place.node]
        if pod is None:
            if job.status.phase == "Running":
                return "PodDeleted", f"pod {place.pod} on node {place.node} was deleted", []
            continue
        if pod.leaving or pod.status.phase == "Failed":
            return "PodDisrupted", f"pod {place.pod} on node {place.node} was taken away: {_cause(pod)}", [place.node]
        if (elsewhere := _elsewhere(pod, place)) is not None:
            return "PodMisplaced", f"pod {place.pod} {elsewhere}", []
        if fault := start_fault(pod):
            return "PodStartFailed", f"pod {place.pod} on node {place.node}: {fault}", []
        refused = pod.condition("PodScheduled")
        if refused and pod.refused:
            until = stamp(refused.last_transition_time) + UNSCHEDULABLE_SECONDS
            if until <= now:
                return "PodUnschedulable", f"pod {place.pod} on node {place.node}: {_unstopped(refused.message)}", [place.node]
            step.check_by(until)
    return None


def _elsewhere(pod: Pod, place: TaskPlacement) -> str | None:
    """Where a pod is instead of its place: by another operator's doing, say, whose placement was overwritten."""
    if pod.spec.node_name not in (None, place.node):
        return f"is on node {pod.spec.node_name}, not on {place.node} as placed"
    placed, annotated = ",".join(map(str, place.gpus)), pod.metadata.annotation(names.GPUS)
    if placed and annotated != placed:
        return f"on node {place.node} has the GPUs {annotated or 'none'}, not {placed} as placed"
    return None


def _complete(job: Job, current: dict[str, Pod], now: float, step: Step) -> None:
    """Create the missing pods; note when the whole gang runs."""
    step.service = has_service(job)
    step.create = [place for place in job.status.placement if place.pod not in current]
    running = all(pod.status.phase in ("Running", "Succeeded") for pod in current.values())
    if not step.create and running and job.status.phase == "Admitted":
        _record(step, job, now).run()
    elif job.status.phase == "Running" and not (job.is_resized or job.migrates) and _is_unmet(job):
        _record(step, job, now).settle()


def _is_unmet(job: Job) -> bool:
    """Whether the last that was said of the job is that it does not change as its user wishes."""
    last = job.status.timeline[-1] if job.status.timeline else None
    return last is not None and last.event == "ChangePending" and last.reason in UNMET


def _stop(step: Step, pods: Iterable[Pod], alive: Callable[[str], bool], now: float, notice: str) -> None:
    """Give running pods a notice and delete them once it had time to reach them; delete the others at once."""
    for pod in pods:
        if pod.leaving:
            continue
        if pod.spec.node_name and not alive(pod.spec.node_name):
            step.destroy.append(pod)
            continue
        if pod.status.phase != "Running":
            step.delete.append(pod)
            continue
        notice_given = pod.metadata.annotation(names.STOP_AT)
        announced = texts.time(notice_given) or 0.0  # unreadable: long ago
        if notice_given is None or announced > now + LONGEST_NOTICE_SECONDS:
            at = moment(now + NOTICE_SECONDS + 0.999)
            text = at.isoformat().replace("+00:00", "Z")
            step.annotate_pods.append((pod, {notice: "true" if notice == names.SUSPEND else "", names.STOP_AT: text}))
        elif announced <= now:
            step.delete.append(pod)
        else:
            step.check_by(announced)


def _to_blame(pod: Pod, alive: Callable[[str], bool]) -> bool:
    disrupted = pod.condition("DisruptionTarget")
    if pod.status.reason in DISRUPTIONS or (disrupted is not None and disrupted.status == "True"):
        return False
    return not pod.leaving and pod.spec.node_name is not None and alive(pod.spec.node_name)


def _cause(pod: Pod) -> str:
    ended = next((s for s in statuses(pod) if s.state.terminated and s.state.terminated.exit_code != 0), None)
    if ended and ended.state.terminated:
        end = ended.state.terminated
        return _unstopped(f"container {ended.name} exited with {end.exit_code} {end.reason} {end.message}")
    disrupted = pod.condition("DisruptionTarget")
    words = pod.status.message or pod.status.reason or (disrupted.message if disrupted else "")
    return _unstopped(words) or "no reason given"


def _unstopped(words: str) -> str:
    """Words of kubelet or kube-scheduler on one line and without their full stop, to stand within a sentence of muster's."""
    return " ".join(words.split()).rstrip(".")
