"""GPUs that bound pods hold although no gang counts them, by queue: they count in quotas as those of gangs do.

unplanned  No plan gave them any: pods of other schedulers, and pods for muster's without the GPUs that it would have named.
stopping   Their gang is gone, or has another placement: on their way out, however long they take, they hold their GPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from muster.allocation.pods import annotated_gpus, gpus_of
from muster.allocation.view import ClusterView
from muster.api import names
from muster.kube.objects import Pod
from muster.kube.quantity import BadQuantity


def queue_of(pod: Pod) -> str:
    """Return the queue, "NAMESPACE/NAME", that a pod counts against."""
    return f"{pod.metadata.namespace}/{pod.metadata.label(names.QUEUE) or 'default'}"


class _Bound(NamedTuple):
    queue: str
    pod: Pod
    gpus: int
    is_planned: bool


class Unplanned:
    """Bound pods with GPUs that no gang counts; follows a view by itself."""

    def __init__(self, view: ClusterView) -> None:
        self._trust, self._reservations = view.trust, view.reservations
        self._bound: dict[str, _Bound] = {}
        for pod in view.pods.values():
            self._changed(None, pod)
        view.pods.subscribe(self._changed)

    def by_queue(self) -> Counter[str]:
        """Return the unplanned GPUs that count against each queue now."""
        return _sum(bound for bound in self._bound.values() if not (bound.is_planned or self._trust.is_dljobs(bound.pod)))

    def stopping_by_queue(self) -> Counter[str]:
        """Return the GPUs of pods on their way out that count against each queue now."""
        return _sum(bound for bound in self._bound.values() if self._is_stopping(bound))

    def _is_stopping(self, bound: _Bound) -> bool:
        pod = bound.pod
        return bound.is_planned or (pod.metadata.key not in self._reservations and self._trust.is_dljobs(pod))

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and (bound := _bound(new)) is not None:
            self._bound[new.metadata.key] = bound
        elif (pod := new or old) is not None:
            self._bound.pop(pod.metadata.key, None)


def _sum(found: Iterable[_Bound]) -> Counter[str]:
    gpus: Counter[str] = Counter()
    for bound in found:
        gpus[bound.queue] += bound.gpus
    return gpus


def _bound(pod: Pod) -> _Bound | None:
    """A pod whose GPUs may count as no gang's placement; a planned pod counts as its gang's until it is terminating."""
    if pod.spec.node_name is None or pod.finished:
        return None
    try:
        count = gpus_of(pod)
    except BadQuantity:
        return None
    is_muster = pod.spec.scheduler_name == names.SCHEDULER and pod.metadata.label(names.JOB) is None
    is_planned = is_muster and annotated_gpus(pod, count) != 0
    return _Bound(queue_of(pod), pod, count, is_planned) if count and (pod.leaving or not is_planned) else None
