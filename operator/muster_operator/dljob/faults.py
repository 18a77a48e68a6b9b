"""What has gone wrong with the pods of a gang, and whether the job's program is to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

from muster.api import names
from muster.api.status import TaskPlacement
from muster.kube.objects import Pod
from muster.scheduling.counting import counted
from muster_operator.dljob.job import Job
from muster_operator.dljob.step import Step
from muster_operator.pinning import UNSCHEDULABLE_SECONDS
from muster_operator.pod_faults import (
    OWN_REASONS,
    TAKEN_AWAY,
    crash,
    is_over_limit,
    is_refused,
    is_rejected,
    loops,
    one_line,
    refusal,
    start_fault,
    statuses,
)
from muster_operator.timestamps import stamp

UNKNOWN_END = "ContainerStatusUnknown"
"""Of a container that its node does not know any more: the node was started anew, or lost it in an eviction."""
NOWHERE: Mapping[str, str] = {}


class Trouble(NamedTuple):
    """What keeps a gang from being complete without its program's fault, in a word and in a sentence."""

    reason: str
    message: str
    avoid: Sequence[str] = ()
    """Nodes to avoid at the next start."""
    pod: str = ""
    refused: Mapping[str, str] = NOWHERE
    """Nodes that do not take the gang's pods, each with the words of kube-scheduler or its kubelet."""
    is_start: bool = False
    """Whether the gang could not start, wherever it is placed: then trying again and again helps little."""


def trouble(job: Job, current: dict[str, Pod], alive: Callable[[str], bool], now: float, step: Step) -> Trouble | None:
    """Return what keeps the gang from being complete without its own fault; None if nothing does."""
    for place in job.status.placement:
        pod = current.get(place.pod)
        if place.ended or (pod is not None and pod.status.phase == "Succeeded"):
            continue  # it has done its part, whatever became of its node
        if pod is not None and fails(job, pod, alive):
            continue  # its program has failed, for want of the others it may be
        if not alive(place.node):
            return Trouble("NodeLost", f"node {place.node} of pod {place.pod} is gone or not ready", [place.node])
        if pod is None:
            if job.status.phase == "Running":
                return Trouble("PodDeleted", f"pod {place.pod} on node {place.node} was deleted")
            continue
        on = f"pod {place.pod} on node {place.node}"
        if is_rejected(pod) and job.status.phase == "Admitted":
            words = {place.node: cause(pod)}
            return Trouble("PodRejected", f"{on} was rejected by its kubelet: {cause(pod)}", [place.node], place.pod, words)
        if pod.leaving or pod.status.phase == "Failed":
            return Trouble("PodDisrupted", f"{on} was taken away: {cause(pod)}", [place.node])
        if (elsewhere := _elsewhere(pod, place)) is not None:
            return Trouble("PodMisplaced", f"pod {place.pod} {elsewhere}")
        if fault := start_fault(pod):
            return Trouble("PodStartFailed", f"{on}: {fault}", pod=place.pod, is_start=True)
        if is_refused(pod) and (until := _believed_at(pod)) <= now:
            words = {node: said for node, other in _refused(job, current, now) if (said := refusal(other))}
            return Trouble("PodUnschedulable", f"{on}: {_scheduled(pod)}", [*words], place.pod, words)
        if is_refused(pod):
            step.check_by(until)
    return None


def _refused(job: Job, current: Mapping[str, Pod], now: float) -> Iterator[tuple[str, Pod]]:
    """The pods of the gang that kube-scheduler does not bind, each with the node to which it is pinned."""
    for place in job.status.placement:
        pod = current.get(place.pod)
        if pod is not None and is_refused(pod) and _believed_at(pod) <= now:
            yield place.node, pod


def _believed_at(pod: Pod) -> float:
    """When kube-scheduler's refusal of a pod has lasted for long enough to be believed."""
    said = pod.condition("PodScheduled")
    return stamp(said.last_transition_time if said is not None else None) + UNSCHEDULABLE_SECONDS


def _scheduled(pod: Pod) -> str:
    said = pod.condition("PodScheduled")
    return one_line(said.message) if said is not None else ""


def _elsewhere(pod: Pod, place: TaskPlacement) -> str | None:
    """Where a pod is instead of its place: by another operator's doing, say, whose placement was overwritten."""
    if pod.spec.node_name not in (None, place.node):
        return f"is on node {pod.spec.node_name}, not on {place.node} as placed"
    placed, annotated = ",".join(map(str, place.gpus)), pod.metadata.annotation(names.GPUS)
    if placed and annotated != placed:
        return f"on node {place.node} has the GPUs {annotated or 'none'}, not {placed} as placed"
    return None


def fails(job: Job, pod: Pod, alive: Callable[[str], bool]) -> bool:
    """Say whether the program fails in a pod: it has ended, or the kubelet starts it again and again (OnFailure, Always)."""
    if pod.status.phase == "Failed":
        return to_blame(pod, alive)
    again = restarts(pod) > job.spec.backoff_limit or (loops(pod) and crash(pod) is not None)
    return again and not pod.leaving and not pod.finished and pod.spec.node_name is not None and alive(pod.spec.node_name)


def failed_at(pod: Pod) -> tuple[float, str]:
    """Order pods that failed: the first one broke the gang, and the others failed for it. Unknown times come last."""
    ends = [each for status in statuses(pod) for each in (status.state.terminated, status.last_state.terminated)]
    times = [stamp(end.finished_at) for end in ends if end is not None and end.exit_code != 0 and end.finished_at is not None]
    return min(times, default=inf), pod.metadata.name


def restarts(pod: Pod) -> int:
    """Return how often the kubelet has started a failing container of a pod again: the most of its containers."""
    return found[0].restart_count if (found := crash(pod)) is not None else 0


def to_blame(pod: Pod, alive: Callable[[str], bool]) -> bool:
    """Say whether it is the program's own doing that a pod failed.

    A program that ended by itself left an exit code. Where no container did, the kubelet rejected the pod or lost it.
    """
    if _is_disrupted(pod) or pod.leaving or pod.spec.node_name is None or not alive(pod.spec.node_name):
        return False
    if is_over_limit(pod):
        return True
    ends = [status.state.terminated for status in statuses(pod)]
    failures = [end.reason for end in ends if end is not None and end.exit_code != 0]
    return any(reason != UNKNOWN_END for reason in failures) if failures else pod.status.reason in OWN_REASONS


def taken_before(job: Job, current: Mapping[str, Pod], failed: Pod, alive: Callable[[str], bool]) -> bool:
    """Say whether a pod of the gang was taken away by the time that this one failed: then it failed for that."""
    taken = (current.get(place.pod) for place in job.status.placement if _is_taken(job, place, current.get(place.pod), alive))
    return any(pod is None or _taken_at(pod) <= failed_at(failed)[0] for pod in taken)


def _is_taken(job: Job, place: TaskPlacement, pod: Pod | None, alive: Callable[[str], bool]) -> bool:
    if place.ended or (pod is not None and pod.status.phase == "Succeeded"):
        return False
    if not alive(place.node):
        return True
    if pod is None:
        return job.status.phase == "Running"
    if pod.leaving:
        return True
    return pod.status.phase == "Failed" and not to_blame(pod, alive)


def _taken_at(pod: Pod) -> float:
    """When a pod was taken away; where nobody says, before everything else."""
    disrupted = pod.condition("DisruptionTarget")
    return stamp(disrupted.last_transition_time) if disrupted is not None else -inf


def _is_disrupted(pod: Pod) -> bool:
    disrupted = pod.condition("DisruptionTarget")
    named = (pod.status.reason in TAKEN_AWAY and not is_over_limit(pod)) or is_rejected(pod)
    return named or (disrupted is not None and disrupted.status == "True")


def cause(pod: Pod) -> str:
    """Return why a pod failed, in the words of the kubelet."""
    if pod.status.phase != "Failed" and (crashed := crash(pod)) is not None:
        container, end = crashed
        again = f"and was started again {counted(container.restart_count, 'time')}"
        return one_line(f"container {container.name} exited with {end.exit_code} {end.reason} {again}")
    ended = next((s for s in statuses(pod) if s.state.terminated and s.state.terminated.exit_code != 0), None)
    if ended and ended.state.terminated and not is_over_limit(pod):
        end = ended.state.terminated
        return one_line(f"container {ended.name} exited with {end.exit_code} {end.reason} {end.message}")
    disrupted = pod.condition("DisruptionTarget")
    words = pod.status.message or pod.status.reason or (disrupted.message if disrupted else "")
    return one_line(words) or ("it is terminating" if pod.leaving else "no reason given")
