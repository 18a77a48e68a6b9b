"""A pod of the API server as the core sees it: what it asks for, where it may go, what it holds.

A pod holds GPUs once it is bound, and already before that if the operator has pinned it. A pod that has ended, or has any
scheduling gate left, holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain

from muster.allocation.holding import Holding
from muster.allocation.trust import Standing
from muster.api import names
from muster.kube.objects import Container, Demand, NodeAffinity, Pod, PodSpec, Term, Terms
from muster.kube.quantity import BadQuantity, milli, whole
from muster.scheduling.resource_quota import Charge
from muster.scheduling.resources import AT, HOST_PORT, PLENTY, Amounts, Resources
from muster.scheduling.topology.eligibility import Alternatives, Constraint, Requirement, Toleration, shared
from muster.scheduling.topology.links import MOST_GPUS, GpuSet, gpu_set

_INDEX = re.compile("[0-9]{1,2}")
_EVERY_ADDRESS = ("", "0.0.0.0")  # what kube-scheduler takes for all of them
COUNTED_APART = frozenset({"cpu", "memory", "pods", names.GPU})
"""Resources that have a place of their own in the core."""


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
    demands = list(_demands(spec))
    limits = {name for demand in demands for name in demand.limits or ()}
    requests = limits.union(*(demand.requests or () for demand in demands), spec.overhead or ())
    asked = {f"requests.{name}": _counted(each, name, Demand.of) for name, each in _by_name(spec, requests)}
    capped = {f"limits.{name}": _counted(each, name, Demand.limit) for name, each in _by_name(spec, limits)}
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
    """Return all that a pod asks for besides GPUs, its overhead and its host ports included."""
    spec = pod.spec
    return Resources(_asked(spec, "cpu"), _asked(spec, "memory"), 1, _others(spec))


def _asked(spec: PodSpec, name: str) -> int:
    return _amount(spec, name, _reader(name)) + _over(spec, name)


def _others(spec: PodSpec) -> Amounts:
    """What a pod asks for by name."""
    asked = set(chain.from_iterable(_names(demand) for demand in _demands(spec))).union(spec.overhead or ())
    by_name = {name: _asked(each, name) for name, each in _by_name(spec, asked - COUNTED_APART)}
    amounts = by_name | dict.fromkeys(_host_ports(spec), 1)
    return tuple(sorted((name, amount) for name, amount in amounts.items() if amount)) if amounts else ()


def _by_name(spec: PodSpec, wanted: Collection[str]) -> Iterator[tuple[str, PodSpec]]:
    """Each resource with the spec narrowed to the containers that name it: many of both take no square of time."""
    init: dict[str, list[Container]] = {}
    main: dict[str, list[Container]] = {}
    for containers, naming in ((spec.init_containers or (), init), (spec.containers, main)):
        for container in containers:
            for name in dict.fromkeys(_names(container.resources)):
                naming.setdefault(name, []).append(container)
    for name in wanted:
        narrow = PodSpec(main.get(name, []), init.get(name), overhead=spec.overhead, resources=spec.resources)
        yield name, narrow


def _of_containers(spec: PodSpec) -> Iterator[Demand]:
    return (container.resources for container in chain(spec.containers, spec.init_containers or ()))


def _demands(spec: PodSpec) -> Iterator[Demand]:
    yield from _of_containers(spec)
    if spec.resources:
        yield spec.resources


def _names(demand: Demand) -> Iterable[str]:
    return chain(demand.requests or (), demand.limits or ())


def _host_ports(spec: PodSpec) -> Iterator[str]:
    """The ports that a pod takes of its node."""
    sidecars = (container for container in spec.init_containers or () if container.restart_policy == "Always")
    for container in chain(spec.containers, sidecars):
        for port in container.ports or ():
            number = port.host_port or (port.container_port if spec.host_network else 0)
            if number:
                address = "" if port.host_ip in _EVERY_ADDRESS else f"{AT}{port.host_ip}"
                yield f"{HOST_PORT}{port.protocol}/{number}{address}"


def _amount(
    spec: PodSpec, name: str, read: Callable[[str | int], int], of: Callable[[Demand, str], str | int] = Demand.of
) -> int:
    """The larger of what containers and sidecars need together and what an init container needs before them (KEP-753).

    What the pod asks for as a whole stands in place of that (KEP-2837).
    """
    if whole_pod := _of_whole_pod(spec, name, of):
        return read(whole_pod)
    sidecars = most = 0
    for container in spec.init_containers or ():
        amount = read(of(container.resources, name))
        if container.restart_policy == "Always":
            sidecars += amount
        else:
            most = max(most, sidecars + amount)
    return max(most, sidecars + sum(read(of(container.resources, name)) for container in spec.containers))


def requests_of_whole_pod(spec: PodSpec) -> dict[str, str | int]:
    """Return what a pod requests as a whole, as the API server completes it: its limits stand for requests that it lacks.

    They do not where a container requests any, unless it is of huge pages, of which nobody gets more than was requested.
    """
    limits, requests = (spec.resources.limits, spec.resources.requests) if spec.resources else (None, None)
    named = set(chain.from_iterable(map(_names, _of_containers(spec)))) if limits else ()
    added = {name: amount for name, amount in (limits or {}).items() if name not in named or name.startswith("hugepages-")}
    return {**added, **(requests or {})}


def _of_whole_pod(spec: PodSpec, name: str, of: Callable[[Demand, str], str | int]) -> str | int:
    """What the pod asks for as a whole; 0 where its containers decide."""
    if spec.resources is None or (of is Demand.of and name not in requests_of_whole_pod(spec)):
        return 0
    return of(spec.resources, name)


def constraint_of(spec: PodSpec) -> Constraint:
    """Return what a pod asks of its node: selector, affinity, tolerations."""
    affinity = (spec.affinity.node_affinity if spec.affinity else None) or NodeAffinity()
    return Constraint(
        tuple(sorted((spec.node_selector or {}).items())),
        alternatives(affinity.required) if affinity.required else (),
        shared(Toleration(t.key, t.operator, t.value, t.effect) for t in spec.tolerations or ()),
        shared((choice.weight, _requirements(choice.preference)) for choice in affinity.preferred or ()),
    )


def alternatives(terms: Terms) -> Alternatives:
    """Return the terms of a node selector, of which one must hold."""
    return shared(_requirements(term) for term in terms.node_selector_terms)


def _requirements(term: Term) -> tuple[Requirement, ...]:
    expressions = chain(term.match_expressions or (), term.match_fields or ())
    return shared(Requirement(e.key, e.operator, shared(e.values or ())) for e in expressions)


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
