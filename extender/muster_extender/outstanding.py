"""Reservations whose pod is not bound yet, counted by node: only there could another pod take GPUs that are reserved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from muster.allocation.view import ClusterView
from muster.kube.objects import Pod


class Outstanding:
    """The number of outstanding reservations by node; follows the view by itself."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._count: Counter[str] = Counter()
        self._node_of: dict[str, str] = {}
        """The node of each task whose reservation is outstanding."""
        view.pods.subscribe(self._pod_changed)
        view.on_reservations(self._review_all)

    def __contains__(self, node: str) -> bool:
        return node in self._count

    def __len__(self) -> int:
        return len(self._node_of)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is not None:
            self._review(pod.metadata.key)

    def _review_all(self, tasks: Collection[str]) -> None:
        for task in tasks:
            self._review(task)

    def _review(self, task: str) -> None:
        before = self._node_of.pop(task, None)
        if before is not None:
            self._count[before] -= 1
            if not self._count[before]:
                del self._count[before]
        reservation, pod = self._view.reservations.get(task), self._view.pods.get(task)
        if reservation is not None and (pod is None or pod.spec.node_name is None):
            self._node_of[task] = reservation.node
            self._count[reservation.node] += 1
