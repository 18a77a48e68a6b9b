"""A pod of the API server as the core sees it: what it asks for, where it may go, what it holds.

A pod holds GPUs once it is bound, and already before that if the operator has pinned it. A pod that has ended, or has any
scheduling gate left, holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from muster.allocation.holding import Holding
from muster.allocation.trust import Standing
from muster.api import names
from muster.kube.objects import Demand, Pod, PodSpec
from muster.kube.quantity import BadQuantity, milli, whole
from muster.scheduling.resource_quota import Charge
from muster.scheduling.resources import PLENTY, Resources
from muster.scheduling.topology.eligibility import Constraint, Requirement, Toleration
from muster.scheduling.topology.links import MOST_GPUS, GpuSet, gpu_set

_INDEX = re.compile("[0-9]{1,2}")


def gpus_of(pod: Pod) -> int:
    """Count the GPUs that a pod asks for, as kube-scheduler does."""
    return _amount(pod.spec, names.GPU, whole)


def may_hold_gpus(pod: Pod) -> bool:
    """Return whether a pod asks for GPUs, or for something that cannot be read."""
    try:
        return gpus_of(pod) > 0
    except BadQuantity:
        return True


def charge_of(pod: Pod) -> Charge:
    """Return what a pod counts in the resource quotas of its namespace, as the API server counts it."""
    spec = pod.spec
    containers = [*spec.containers, *(spec.init_containers or ())]
    limits = {name for container in containers for name in container.resources.limits or ()}
    requests = limits.union(*(container.resources.requests or () for container in containers), spec.overhead or ())
    asked = {f"requests.{name}": _counted(spec, name, Demand.of) for name in requests}
    capped = {f"limits.{name}": _counted(spec, name, Demand.limit) for name in limits}
    amounts = tuple(sorted({"pods": 1, "count/pods": 1, **asked, **capped}.items()))
    best_effort = not (asked.get("requests.cpu") or asked.get("requests.memory"))
    return Charge(amounts, spec.priority_class_name, spec.active_deadline_seconds is not None, best_effort)


def _counted(spec: PodSpec, name: str, of: Callable[[Demand, str], str | int]) -> int:
    """How much of a resource counts; of what cannot be read nothing, since the API server creates no such pod."""
    try:
        return _amount(spec, name, _reader(name), of) + _over(spec, name)
    except BadQuantity:
        return 0


def _reader(name: str) -> Callable[[str | int], int]:
    return milli if name == "cpu" else whole


def _over(spec: PodSpec, name: str) -> int:
    return _reader(name)((spec.overhead or {}).get(name, 0))


def resources_of(pod: Pod) -> Resources:
    """Return the CPU and memory that a pod asks for, its overhead included, and one pod."""
    cpu, memory = (_amount(pod.spec, name, _reader(name)) + _over(pod.spec, name) for name in ("cpu", "memory"))
    return Resources(cpu, memory, 1)


def _amount(
    spec: PodSpec, name: str, read: Callable[[str | int], int], of: Callable[[Demand, str], str | int] = Demand.of
) -> int:
    """The larger of what containers and sidecars need together and what an init container needs before them (KEP-753)."""
    sidecars = most = 0
    for container in spec.init_containers or ():
        amount = read(of(container.resources, name))
        if container.restart_policy == "Always":
            sidecars += amount
        else:
            most = max(most, sidecars + amount)
    return max(most, sidecars + sum(read(of(container.resources, name)) for container in spec.containers))


def constraint_of(spec: PodSpec) -> Constraint:
    """Return what a pod asks of its node: selector, required affinity, tolerations."""
    required = spec.affinity.node_affinity.required if spec.affinity and spec.affinity.node_affinity else None
    terms = tuple(
        tuple(
            Requirement(e.key, e.operator, tuple(e.values or ()))
            for e in [*(term.match_expressions or ()), *(term.match_fields or ())]
        )
        for term in (required.node_selector_terms if required else ())
    )
    return Constraint(
        tuple(sorted((spec.node_selector or {}).items())),
        terms,
        tuple(Toleration(t.key, t.operator, t.value, t.effect) for t in spec.tolerations or ()),
    )


def pinned_to(spec: PodSpec) -> str | None:
    """Return the name of the only node that a pod's required affinity allows; None if it allows more or does not name it."""
    nodes = {
        requirement.values[0]
        for term in constraint_of(spec).terms
        for requirement in term
        if requirement.key == "metadata.name" and requirement.operator == "In" and len(requirement.values) == 1
    }
    return nodes.pop() if len(nodes) == 1 else None


def annotated_gpus(pod: Pod, count: int) -> GpuSet:
    """Return the GPUs that muster gave a pod; none if the annotation is missing or names another number than `count`."""
    text = pod.metadata.annotation(names.GPUS)
    if not text or not count:
        return 0
    parts = text.split(",")
    gpus = gpu_set([int(part) for part in parts if _INDEX.fullmatch(part)])
    return gpus if gpus.bit_count() == count == len(parts) else 0


def pod_holding(pod: Pod, standing: Standing) -> Holding | None:
    """Return what a pod holds, as far as its words count; nothing while kube-scheduler cannot act on it."""
    return None if pod.spec.scheduling_gates else stated_holding(pod, standing)


def stated_holding(pod: Pod, standing: Standing) -> Holding | None:
    """Return what a pod says that it holds, as far as its words count, gated or not.

    A pod that is pinned but not bound only claims its GPUs: the claim lapses once kube-scheduler calls the pod unschedulable. A
    bound pod whose amounts cannot be read may hold everything on its node.
    """
    if pod.finished:
        return None
    try:
        return _holding(pod, standing)
    except BadQuantity:
        node = pod.spec.node_name
        return Holding(node, count=MOST_GPUS, resources=PLENTY, leaving=standing.leaving) if node else None


def _holding(pod: Pod, standing: Standing) -> Holding | None:
    count = gpus_of(pod)
    gpus = annotated_gpus(pod, count) if standing.named else 0
    claims = gpus and standing.claims and pod.spec.scheduler_name == names.SCHEDULER and not pod.refused
    node = pod.spec.node_name or (pinned_to(pod.spec) if claims else None)
    if node is None:
        return None
    return Holding(node, gpus, count, resources_of(pod), standing.leaving)
