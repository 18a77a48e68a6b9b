"""What keeps a pod on its node from starting and does not go away by waiting."""

from __future__ import annotations

from muster.kube.objects import ContainerStatus, Pod

CANNOT_START = frozenset(
    {"ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull"}
)
"""Reasons of a waiting container that do not go away by waiting."""


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
