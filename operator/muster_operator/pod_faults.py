"""What keeps a pod on its node from starting and does not go away by waiting."""

from __future__ import annotations

import re

from muster.api import names
from muster.kube.objects import ContainerStatus, Pod, Terminated

CANNOT_START = frozenset(
    {"ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull"}
)
"""Reasons of a waiting container that do not go away by waiting."""
OWN_REASONS = frozenset({"", "DeadlineExceeded"})
"""Reasons of a failed pod that are no word of a kubelet against it: none, and the deadline of its own template."""
TAKEN_AWAY = frozenset({"NodeLost", "Evicted", "Preempting", "NodeShutdown", "Terminated"})
"""Reasons of a pod that its node does not keep, whatever it asks for."""
REJECTIONS = frozenset({"UnexpectedAdmissionError", "TopologyAffinityError", "NodeAffinity", "NodePorts"})
"""Reasons of a pod that its kubelet did not admit, even if it has run: a kubelet that starts anew admits its pods again."""
SHORTAGE = "OutOf"
"""Begins the reason of a pod for which the kubelet has too little of something: OutOfcpu, OutOfnvidia.com/gpu."""
CRASH_LOOP = "CrashLoopBackOff"
"""Of a container that ends again and again, and that the kubelet starts again ever later."""
SILENT = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons of a waiting container that name no cause: of mounts and networks the kubelet speaks in Events alone."""
_OVER_LIMIT = re.compile(r"\bexceed(s|ed) .*\blimit\b")
"""What the kubelet says of a pod that it evicts because the pod wrote more than its own limit of local storage."""
_ALL_NODES = re.compile(r"0/\d+ nodes are available: (?P<parts>.*?)\.?(?: preemption: .*| no new claims .*)?$")
_TO_BE_MADE = re.compile(r"waiting for .* controller to create|was not created for pod", re.IGNORECASE)
"""What kube-scheduler says while a claim that is made with a pod is not there yet, or still is that of a pod before."""
_OTHER_NODES = "didn't match Pod's node affinity/selector"
"""What kube-scheduler says of every node but the one to which a pod is pinned."""


def statuses(pod: Pod) -> list[ContainerStatus]:
    """Return the states of a pod's containers, init containers first."""
    return [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]


def start_fault(pod: Pod) -> str:
    """Return which container of a pod cannot start, and why; empty if each may start yet."""
    for status in statuses(pod):
        waiting = status.state.waiting
        if waiting is not None and waiting.reason in CANNOT_START:
            return f"container {status.name}: {f'{waiting.reason} {waiting.message}'.strip()}"
    return ""


def one_line(words: str) -> str:
    """Return words of kubelet or kube-scheduler on one line and without their full stop, to stand within a sentence."""
    return " ".join(words.split()).rstrip(".")


def scheduler_words(pod: Pod) -> str:
    """Return why kube-scheduler does not bind a pinned pod, without what it says of other nodes; empty if it has not said."""
    said = pod.condition("PodScheduled")
    words = one_line(said.message) if said is not None and said.status == "False" else ""
    parts = found["parts"].split(", ") if (found := _ALL_NODES.match(words)) else []
    of_the_node = [re.sub(r"^\d+ ", "", part) for part in parts if _OTHER_NODES not in part]
    return ", ".join(of_the_node) or words


def is_refused(pod: Pod) -> bool:
    """Say whether kube-scheduler has refused a pod, and does not only wait for claims that are made with it."""
    said = pod.condition("PodScheduled")
    return pod.refused and said is not None and _TO_BE_MADE.search(said.message) is None


def refusal(pod: Pod) -> str:
    """Return why the node of a pinned pod refuses it, "" where the words are about no node: a claim does not exist, say."""
    said = pod.condition("PodScheduled")
    found = _ALL_NODES.match(one_line(said.message)) if said is not None else None
    counts = [part for part in found["parts"].split(", ") if part[:1].isdigit()] if found else []
    return "" if found and not counts else scheduler_words(pod)


def is_rejected(pod: Pod) -> bool:
    """Say whether a pod failed because its kubelet did not admit it, in whatever word: then no container of it ran."""
    reason = pod.status.reason
    if pod.status.phase != "Failed" or pod.spec.node_name is None or reason in OWN_REASONS | TAKEN_AWAY:
        return False
    return reason in REJECTIONS or reason.startswith(SHORTAGE) or not any(_has_begun(status) for status in statuses(pod))


def is_taken_away(pod: Pod) -> bool:
    """Say whether a pod failed because its node did not keep it."""
    return pod.status.phase == "Failed" and pod.status.reason in TAKEN_AWAY


def is_over_limit(pod: Pod) -> bool:
    """Say whether a pod was evicted because it wrote more than its own limit, and not for the sake of its node."""
    disrupted = pod.condition("DisruptionTarget")
    own = disrupted is None or disrupted.status != "True"
    return own and pod.status.reason == "Evicted" and _OVER_LIMIT.search(pod.status.message) is not None


def _has_begun(status: ContainerStatus) -> bool:
    return bool(status.state.terminated or status.last_state.terminated)


def hold_up(pod: Pod) -> str:
    """Return what a pod that has not started waits for, in the words of those who know."""
    for status in statuses(pod):
        if (waiting := status.state.waiting) is not None:
            return one_line(f"container {status.name}: {waiting.reason} {waiting.message}") or f"container {status.name} waits"
    if pod.spec.node_name:
        return "the kubelet says nothing of its containers"
    gates = [gate.name for gate in pod.spec.scheduling_gates or () if gate.name != names.GATE]
    if gates:
        return f"it has the scheduling gate {gates[0]}"
    return scheduler_words(pod) or "kube-scheduler has not bound it, and does not say why"


def is_unheard(pod: Pod) -> bool:
    """Say whether kube-scheduler has not looked at a pod, or could not: it, or the extender, is down.

    It is silent too while the volumes of a pod are being made, and where the pod has a gate.
    """
    if pod.spec.node_name or pod.spec.scheduling_gates or pod.spec.volumes:
        return False
    said = pod.condition("PodScheduled")
    return said is None or (said.status == "False" and said.reason == "SchedulerError")


def is_unexplained(pod: Pod) -> bool:
    """Say whether the status of a bound pod that has not started names no cause."""
    waiting = [status.state.waiting for status in statuses(pod) if status.state.waiting is not None]
    return bool(pod.spec.node_name) and all(each.reason in SILENT and not each.message for each in waiting)


def crash(pod: Pod) -> tuple[ContainerStatus, Terminated] | None:
    """Return the container of a pod that failed most often and was started again, and its last end; None if none was."""
    ends = [(status, status.last_state.terminated or status.state.terminated) for status in statuses(pod)]
    failed = [(status, end) for status, end in ends if status.restart_count and end is not None and end.exit_code != 0]
    return max(failed, key=lambda each: each[0].restart_count, default=None)


def loops(pod: Pod) -> bool:
    """Say whether the kubelet waits before it starts a container of the pod again."""
    return any(status.state.waiting is not None and status.state.waiting.reason == CRASH_LOOP for status in statuses(pod))
