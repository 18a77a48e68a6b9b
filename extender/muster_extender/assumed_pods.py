"""Pods that the filter let through and that have not been seen bound yet.

kube-scheduler picks one of the nodes that passed and does not say which; until the binding comes by watch, the GPUs taken
are missing from the view. kube-scheduler itself counts them, but it knows of no reservation: a second pod could take what is
promised to a gang. So on nodes with an outstanding reservation such a pod counts as being there, wherever it went. Another
kube-scheduler, where the cluster's own asks as well, does not count them at all: to the pods of one, those that come by the
other are there on every node.

Seconds on any clock that only goes forward.
"""

from __future__ import annotations

from typing import NamedTuple

from muster.kube.objects import Pod

FORGET_SECONDS = 30.0
"""A pod not heard of for so long is not on its way any more."""


class AssumedPod(NamedTuple):
    """A pod on its way to one of `nodes`."""

    gpus: int
    nodes: frozenset[str]
    scheduler: str
    until: float


class AssumedPods:
    """Pods on their way, by task."""

    def __init__(self) -> None:
        self._passages: dict[str, AssumedPod] = {}

    def __len__(self) -> int:
        return len(self._passages)

    def note(self, task: str, gpus: int, nodes: list[str], now: float, scheduler: str) -> None:
        """Record that a pod may be on its way to one of `nodes` (none: it is not), sent there by a kube-scheduler."""
        self.forget(task)
        if nodes:
            self._passages[task] = AssumedPod(gpus, frozenset(nodes), scheduler, now + FORGET_SECONDS)

    def forget(self, task: str) -> None:
        self._passages.pop(task, None)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow the store of pods: one that is bound, gone, or could not be scheduled is on its way no longer."""
        if new is None or new.spec.node_name or new.finished or _unschedulable(new):
            self.forget((new or old).metadata.key)  # type: ignore[union-attr]

    def expire(self, now: float) -> None:
        """Forget those of whom nothing was heard for too long."""
        while self._passages:
            task, oldest = next(iter(self._passages.items()))  # in order of time
            if oldest.until > now:
                return
            del self._passages[task]

    def besides(self, scheduler: str) -> bool:
        """Say whether pods of other kube-schedulers are on their way."""
        return any(each.scheduler != scheduler for each in self._passages.values())

    def towards(self, node: str, but: str, besides: str | None = None) -> int:
        """Count the GPUs that pods other than `but` may be about to take on a node; without those of one kube-scheduler."""
        return sum(
            each.gpus
            for task, each in self._passages.items()
            if task != but and each.scheduler != besides and node in each.nodes
        )


def _unschedulable(pod: Pod) -> bool:
    said = pod.condition("PodScheduled")
    return said is not None and said.status == "False"
