"""GPUs that bound pods hold although no plan gave them any, by queue: they count in quotas as planned ones do.

Pods of other schedulers are among them, and pods for muster's without the GPUs that muster would have named. Pods of DLJobs
are not: what they hold is reserved by their job, or on its way back.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from muster.allocation.pods import annotated_gpus, gpus_of
from muster.allocation.view import ClusterView
from muster.api import names
from muster.kube.objects import Pod
from muster.kube.quantity import BadQuantity


def queue_of(pod: Pod) -> str:
    """Return the queue, "NAMESPACE/NAME", that a pod which is not a DLJob's counts against."""
    return f"{pod.metadata.namespace}/{pod.metadata.label(names.QUEUE) or 'default'}"


class _Bound(NamedTuple):
    queue: str
    pod: Pod
    gpus: int


class Unplanned:
    """Bound pods with GPUs that no plan named; follows a view by itself."""

    def __init__(self, view: ClusterView) -> None:
        self._trust = view.trust
        self._bound: dict[str, _Bound] = {}
        for pod in view.pods.values():
            self._changed(None, pod)
        view.pods.subscribe(self._changed)

    def by_queue(self) -> Counter[str]:
        """Return the GPUs that count against each queue now."""
        gpus: Counter[str] = Counter()
        for bound in self._bound.values():
            if not self._trust.is_dljobs(bound.pod):
                gpus[bound.queue] += bound.gpus
        return gpus

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and (gpus := _unplanned(new)):
            self._bound[new.metadata.key] = _Bound(queue_of(new), new, gpus)
        elif (pod := new or old) is not None:
            self._bound.pop(pod.metadata.key, None)


def _unplanned(pod: Pod) -> int:
    """The GPUs of a bound pod that count as no gang's placement."""
    if pod.spec.node_name is None or pod.finished:
        return 0
    try:
        count = gpus_of(pod)
    except BadQuantity:
        return 0
    planned = pod.spec.scheduler_name == names.SCHEDULER and pod.metadata.label(names.JOB) is None
    return 0 if planned and annotated_gpus(pod, count) else count
