"""The front door of the controller of ResourceQuotas: nothing is done about them; each plan counts gangs in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from muster.kube.objects import Pod
from muster.scheduling.gang import Gang
from muster.scheduling.resource_quota import Charge, ResourceQuota
from muster_operator.controller import Context, Controller
from muster_operator.resource_quotas.counting import RESOURCE_QUOTAS, QuotaObject, as_planned, charged, is_freed


class ResourceQuotas(Controller):
    """ResourceQuotas, and the pods of each namespace."""

    kind = "ResourceQuota"

    def __init__(self, context: Context) -> None:
        self._work_queue = context.work_queue
        self._quotas = context.stores.of(RESOURCE_QUOTAS)
        self._pods: dict[str, dict[str, Pod]] = {}
        """All pods by namespace and key."""
        self._charges: dict[str, tuple[Pod, Charge | None]] = {}
        """What each pod of a namespace with quotas counts, and of which version of the pod."""
        self._namespaces: set[str] = set()
        """The namespaces with quotas."""
        self._quotas.subscribe(self._quota_changed)
        pods = context.stores.view.pods
        for pod in pods.values():
            self._pod_changed(None, pod)
        pods.subscribe(self._pod_changed)

    def resource_quotas(self, gangs: Sequence[Gang]) -> Iterable[ResourceQuota]:
        return as_planned(self._quotas.values(), gangs, self._pods, self._charge) if len(self._quotas) else ()

    def _charge(self, pod: Pod) -> Charge | None:
        """What a pod counts, worked out once."""
        key = pod.metadata.key
        before = self._charges.get(key)
        if before is None or before[0] is not pod:
            before = self._charges[key] = pod, charged(pod)
        return before[1]

    def _quota_changed(self, old: QuotaObject | None, new: QuotaObject | None) -> None:
        self._namespaces = {quota.metadata.namespace or "" for quota in self._quotas.values()}
        if old is None or new is None or is_freed(old, new):
            self._work_queue.plan_now()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is None:
            return
        namespace, key = pod.metadata.namespace or "", pod.metadata.key
        if new is not None:
            self._pods.setdefault(namespace, {})[key] = new
        else:
            self._charges.pop(key, None)
            own = self._pods.get(namespace, {})
            own.pop(key, None)
            if not own:
                self._pods.pop(namespace, None)
        ends = new is None or new.finished or new.leaving
        if namespace in self._namespaces and ends:
            self._work_queue.plan_now()
