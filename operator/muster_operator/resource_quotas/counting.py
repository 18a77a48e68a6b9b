"""ResourceQuotas as the planner sees them: what is allowed, and what is used by pods that exist or are promised.

The API server counts a pod in `status.used` as it creates it, and discounts it some time after its end. Its watch may bring
that later than the pods themselves, so of what the status says and what the pods add up to the larger counts. Pods of placed
gangs that are not created yet are added. The Service of a gang is there once the first of its pods is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import msgspec

from muster.allocation.pods import charge_of
from muster.kube import paths
from muster.kube.objects import Meta, Pod, decoder
from muster.kube.quantity import BadQuantity, milli, whole
from muster.scheduling.gang import Gang, Task
from muster.scheduling.resource_quota import SERVICE, Amounts, Charge, ResourceQuota, Scope
from muster_operator.resources import Resource

_PLAIN = ("cpu", "memory", "ephemeral-storage")
"""Resources whose requests a quota may name without "requests."."""
_CONCERNS_GANGS = ("requests.", "limits.", "pods", "count/pods", "services", "count/services")
ENDED = Charge((("count/pods", 1),))
"""What a pod that has ended still counts."""


class _Expression(msgspec.Struct, rename="camel"):
    scope_name: str = ""
    operator: str = "Exists"
    values: list[str] | None = None


class _Selector(msgspec.Struct, rename="camel"):
    match_expressions: list[_Expression] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    hard: dict[str, str | int] | None = None
    scopes: list[str] | None = None
    scope_selector: _Selector | None = None


class _Status(msgspec.Struct):
    used: dict[str, str | int] | None = None


class QuotaObject(msgspec.Struct):
    """What is read of a ResourceQuota."""

    metadata: Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


RESOURCE_QUOTAS = Resource(paths.CORE, "resourcequotas", decoder(QuotaObject))


def read(quota: QuotaObject) -> ResourceQuota:
    """Return a ResourceQuota as its status has it, but for amounts that cannot be read: these the API server alone counts."""
    selector = quota.spec.scope_selector.match_expressions if quota.spec.scope_selector else None
    scopes = [Scope(name) for name in quota.spec.scopes or ()]
    scopes += [Scope(each.scope_name, each.operator, tuple(each.values or ())) for each in selector or ()]
    namespace = quota.metadata.namespace or ""
    hard, used = _amounts(quota.spec.hard), _amounts(quota.status.used)
    return ResourceQuota(quota.metadata.key, namespace, hard, used, tuple(scopes))


def _amounts(amounts: Mapping[str, str | int] | None) -> Amounts:
    named = {f"requests.{name}" if name in _PLAIN else name: amount for name, amount in (amounts or {}).items()}
    counted = ((name, _amount(name, amount)) for name, amount in sorted(named.items()) if name.startswith(_CONCERNS_GANGS))
    return tuple((name, amount) for name, amount in counted if amount is not None)


def _amount(name: str, amount: str | int) -> int | None:
    try:
        return milli(amount) if name.endswith(".cpu") else whole(amount)
    except BadQuantity:
        return None


def is_freed(old: QuotaObject, new: QuotaObject) -> bool:
    """Return whether pods may fit into a quota now that did not before."""
    if old.spec != new.spec:
        return True
    before, after = dict(read(old).used), dict(read(new).used)
    return any(after.get(name, 0) < amount for name, amount in before.items())


def charged(pod: Pod) -> Charge | None:
    """Return what a pod counts; None for one on its way out, which the API server discounts in its own time."""
    if pod.leaving:
        return None
    return ENDED if pod.finished else charge_of(pod)


def as_planned(
    quotas: Iterable[QuotaObject],
    gangs: Iterable[Gang],
    pods: Mapping[str, Mapping[str, Pod]],
    charge: Callable[[Pod], Charge | None] = charged,
) -> tuple[ResourceQuota, ...]:
    """Return the quotas with all that is used or promised; `pods` has all pods by namespace and key."""
    known = [read(quota) for quota in quotas]
    there = {quota.namespace: pods.get(quota.namespace, {}) for quota in known}
    present = {name: Counter(filter(None, map(charge, own.values()))) for name, own in there.items()}
    to_come: dict[str, Counter[Charge]] = {name: Counter() for name in there}
    for gang in gangs:
        if gang.placement and gang.charges and gang.namespace in there:
            missing = promised(gang, there[gang.namespace])
            to_come[gang.namespace].update(gang.charged(missing))
            if gang.service:
                services = to_come if len(missing) == len(gang.placement) else present
                services[gang.namespace][SERVICE] += 1
    return tuple(counted(quota, present[quota.namespace], to_come[quota.namespace]) for quota in known)


def counted(quota: ResourceQuota, present: Mapping[Charge, int], promised: Mapping[Charge, int]) -> ResourceQuota:
    """Return a quota with what these objects use of it, if the status does not say so yet, and with those that are promised."""
    used, there, to_come = dict(quota.used), quota.needs(present), quota.needs(promised)
    total = ((name, max(used.get(name, 0), there[name]) + to_come[name]) for name, _ in quota.hard)
    return replace(quota, used=tuple(total))


def promised(gang: Gang, pods: Mapping[str, Pod]) -> list[Task]:
    """Return the tasks of a placed gang whose pods are not created yet; `pods` has those of its namespace by key."""
    tasks = [assigned.task for assigned in gang.placement]
    return [task for task in tasks if _is_to_come(gang, pods.get(f"{gang.namespace}/{task.name}"))]


def _is_to_come(gang: Gang, pod: Pod | None) -> bool:
    """Whether the pod of a task is yet to be created: one of its name may be left from an earlier attempt."""
    return pod is None or pod.leaving or (pod.finished and not gang.started)
