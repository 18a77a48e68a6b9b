"""Assumed pods: the filter has passed them, and the view does not show them bound yet (kube-scheduler's own word for it).

kube-scheduler picks one of the nodes that passed and does not say which; until the watch brings the binding, the view counts
the pod's GPUs as free. kube-scheduler counts the pod itself, but knows no reservations: a second pod could take GPUs that are
reserved for a gang. So an assumed pod counts on every node that it may have gone to, wherever reservations are outstanding.

Where the cluster's own kube-scheduler asks the extender as well, neither scheduler knows the other's assumed pods: to the pods
of one, those of the other count on every node.

Times are seconds on a monotonic clock.
"""

from __future__ import annotations

from typing import NamedTuple

from muster.kube.objects import Pod

FORGET_SECONDS = 30.0
"""A pod that is not seen bound for so long is no longer assumed."""


class AssumedPod(NamedTuple):
    """A pod that kube-scheduler may bind to any of `nodes`."""

    gpus: int
    nodes: frozenset[str]
    scheduler: str
    until: float


class AssumedPods:
    """Assumed pods by task, oldest first."""

    def __init__(self) -> None:
        self._pods: dict[str, AssumedPod] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def assume(self, task: str, gpus: int, nodes: list[str], now: float, scheduler: str) -> None:
        """Assume that `scheduler` binds a pod to one of `nodes`; without nodes the pod is not assumed any more."""
        self.forget(task)
        if nodes:
            self._pods[task] = AssumedPod(gpus, frozenset(nodes), scheduler, now + FORGET_SECONDS)

    def forget(self, task: str) -> None:
        """Assume a pod no longer."""
        self._pods.pop(task, None)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow the store of pods: a pod that is bound, deleted or unschedulable is no longer assumed."""
        pod = new or old
        if pod is not None and (new is None or pod.spec.node_name or pod.finished or _unschedulable(pod)):
            self.forget(pod.metadata.key)

    def expire(self, now: float) -> None:
        """Forget the pods whose time is up."""
        while self._pods:
            task, oldest = next(iter(self._pods.items()))  # they are in order of time
            if oldest.until > now:
                return
            del self._pods[task]

    def any_of_others(self, scheduler: str) -> bool:
        """Return whether pods of other kube-schedulers than `scheduler` are assumed."""
        return any(pod.scheduler != scheduler for pod in self._pods.values())

    def gpus_on(self, node: str, *, but: str, known_to: str | None = None) -> int:
        """Count the GPUs of a node that assumed pods may take, except the pod `but` and those of the scheduler `known_to`."""
        return sum(
            pod.gpus for task, pod in self._pods.items() if task != but and pod.scheduler != known_to and node in pod.nodes
        )


def _unschedulable(pod: Pod) -> bool:
    scheduled = pod.condition("PodScheduled")
    return scheduled is not None and scheduled.status == "False"
