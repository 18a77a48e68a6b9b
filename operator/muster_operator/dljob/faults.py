"""What has gone wrong with the pods of a gang, and whether the job's program is to blame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from muster.api import names
from muster.api.status import TaskPlacement
from muster.kube.objects import Pod
from muster_operator.dljob.job import Job
from muster_operator.dljob.step import Step
from muster_operator.pinning import UNSCHEDULABLE_SECONDS
from muster_operator.pod_faults import start_fault, statuses
from muster_operator.timestamps import stamp

DISRUPTIONS = frozenset(
    {
        "NodeLost",
        "Evicted",
        "Preempting",
        "NodeShutdown",
        "Terminated",
        "UnexpectedAdmissionError",
        "TopologyAffinityError",
        "NodeAffinity",
        "NodePorts",
    }
)
"""Reasons of a failed pod that are not its own fault, even if it has run: a kubelet that starts anew admits its pods again."""
SHORTAGE = "OutOf"
"""Begins the reason of a pod for which the kubelet has too little of something: OutOfcpu, OutOfnvidia.com/gpu."""
UNKNOWN_END = "ContainerStatusUnknown"
"""Of a container that its node does not know any more: the node was started anew, or lost it in an eviction."""
OWN_REASONS = frozenset({"", "DeadlineExceeded"})
"""Reasons of a failed pod that are no word of a kubelet against it: none, and the deadline of its own template."""


class Trouble(NamedTuple):
    """What keeps a gang from being complete without its own fault, in a word and in a sentence, and the nodes to avoid."""

    reason: str
    message: str
    avoid: Sequence[str] = ()


def trouble(job: Job, current: dict[str, Pod], alive: Callable[[str], bool], now: float, step: Step) -> Trouble | None:
    """Return what keeps the gang from being complete without its own fault; None if nothing does."""
    for place in job.status.placement:
        pod = current.get(place.pod)
        if pod is not None and pod.status.phase == "Succeeded":
            continue  # it has done its part, whatever became of its node
        if not alive(place.node):
            return Trouble("NodeLost", f"node {place.node} of pod {place.pod} is gone or not ready", [place.node])
        if pod is None:
            if job.status.phase == "Running":
                return Trouble("PodDeleted", f"pod {place.pod} on node {place.node} was deleted")
            continue
        if pod.leaving or pod.status.phase == "Failed":
            return Trouble("PodDisrupted", f"pod {place.pod} on node {place.node} was taken away: {cause(pod)}", [place.node])
        if (elsewhere := _elsewhere(pod, place)) is not None:
            return Trouble("PodMisplaced", f"pod {place.pod} {elsewhere}")
        if fault := start_fault(pod):
            return Trouble("PodStartFailed", f"pod {place.pod} on node {place.node}: {fault}")
        refused = pod.condition("PodScheduled")
        if refused and pod.refused:
            until = stamp(refused.last_transition_time) + UNSCHEDULABLE_SECONDS
            if until <= now:
                return Trouble(
                    "PodUnschedulable", f"pod {place.pod} on node {place.node}: {_unstopped(refused.message)}", [place.node]
                )
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


def to_blame(pod: Pod, alive: Callable[[str], bool]) -> bool:
    """Say whether it is the program's own doing that a pod failed.

    A program that ended by itself left an exit code. Where no container did, the kubelet rejected the pod or lost it.
    """
    if _is_disrupted(pod) or pod.leaving or pod.spec.node_name is None or not alive(pod.spec.node_name):
        return False
    ends = [status.state.terminated for status in statuses(pod)]
    failures = [end.reason for end in ends if end is not None and end.exit_code != 0]
    return any(reason != UNKNOWN_END for reason in failures) if failures else pod.status.reason in OWN_REASONS


def _is_disrupted(pod: Pod) -> bool:
    disrupted, reason = pod.condition("DisruptionTarget"), pod.status.reason
    named = reason in DISRUPTIONS or reason.startswith(SHORTAGE)
    return named or (disrupted is not None and disrupted.status == "True")


def cause(pod: Pod) -> str:
    """Return why a pod failed, in the words of the kubelet."""
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
