"""What the API server's admission plugins add to each pod that is created: a plan counts it before there is a pod.

LimitRanger gives containers the requests and limits that they lack, from the LimitRanges of the namespace. RuntimeClass gives
the pod the overhead of its RuntimeClass, and its node selector and tolerations. The API server has written into a LimitRange
what follows from its other amounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from muster.allocation.pods import requests_of_whole_pod
from muster.kube import paths
from muster.kube.objects import Container, Demand, Meta, PodSpec, PodToleration, decoder
from muster.kube.quantity import BadQuantity, parse
from muster.kube.store import Store
from muster_operator.resources import Resource

Quantities = Mapping[str, str | int]


class _Limit(msgspec.Struct, rename="camel"):
    type: str = ""
    default: dict[str, str | int] | None = None
    default_request: dict[str, str | int] | None = None


class _Limits(msgspec.Struct):
    limits: list[_Limit] = msgspec.field(default_factory=list)


class LimitRange(msgspec.Struct):
    """What is read of a LimitRange."""

    metadata: Meta
    spec: _Limits = msgspec.field(default_factory=_Limits)


class _Overhead(msgspec.Struct, rename="camel"):
    pod_fixed: dict[str, str | int] | None = None


class _Scheduling(msgspec.Struct, rename="camel"):
    node_selector: dict[str, str] | None = None
    tolerations: list[PodToleration] | None = None


class RuntimeClass(msgspec.Struct):
    """What is read of a RuntimeClass."""

    metadata: Meta
    overhead: _Overhead | None = None
    scheduling: _Scheduling | None = None


LIMIT_RANGES = Resource(paths.CORE, "limitranges", decoder(LimitRange))
RUNTIME_CLASSES = Resource(paths.NODE, "runtimeclasses", decoder(RuntimeClass))


class Runtime(NamedTuple):
    """What a RuntimeClass adds to its pods."""

    overhead: Quantities
    selector: Mapping[str, str]
    tolerations: tuple[PodToleration, ...]


NO_RUNTIME = Runtime({}, {}, ())


class Added(NamedTuple):
    """What is added to the pods of one namespace: to each container, and to a pod by the name of its RuntimeClass."""

    requests: Quantities
    limits: Quantities
    runtimes: Mapping[str, Runtime]

    @property
    def is_something(self) -> bool:
        return any(self)

    def to(self, spec: PodSpec) -> PodSpec:
        """Return the spec of a pod as it will be once it is created."""
        runtime = self.runtimes.get(spec.runtime_class_name, NO_RUNTIME)
        return msgspec.structs.replace(
            spec,
            containers=self._filled(spec.containers),
            init_containers=self._filled(spec.init_containers or ()) or None,
            overhead=spec.overhead or dict(runtime.overhead) or None,
            node_selector={**runtime.selector, **(spec.node_selector or {})} or None,
            tolerations=[*(spec.tolerations or ()), *runtime.tolerations] or None,
            resources=spec.resources and Demand(requests_of_whole_pod(spec), spec.resources.limits),
        )

    def _filled(self, containers: Iterable[Container]) -> list[Container]:
        return [msgspec.structs.replace(each, resources=self._demand(each.resources)) for each in containers]

    def _demand(self, own: Demand) -> Demand:
        """A container's own limit stands for a request that it lacks, before any default does."""
        limits = own.limits or {}
        return Demand({**self.requests, **limits, **(own.requests or {})}, {**self.limits, **limits})


NOTHING_ADDED = Added({}, {}, {})


class Defaults:
    """What is added to pods, by namespace, as LimitRanges and RuntimeClasses are now."""

    def __init__(self, limit_ranges: Store[LimitRange], runtime_classes: Store[RuntimeClass]) -> None:
        self._limit_ranges, self._runtime_classes = limit_ranges, runtime_classes
        self._added: dict[str, Added] = {}
        """Of each namespace with LimitRanges."""
        self._elsewhere = NOTHING_ADDED
        self._listeners: list[Callable[[str | None], None]] = []
        limit_ranges.subscribe(self._limit_range_changed)
        runtime_classes.subscribe(self._runtime_class_changed)

    def of(self, namespace: str | None) -> Added:
        """Return what is added to the pods of a namespace."""
        return self._added.get(namespace or "", self._elsewhere)

    def subscribe(self, listener: Callable[[str | None], None]) -> None:
        """Call `listener` with each namespace in which pods get something else from now on; with None if all may."""
        self._listeners.append(listener)

    def _limit_range_changed(self, old: LimitRange | None, new: LimitRange | None) -> None:
        changed = new or old
        if changed is not None:
            namespace = changed.metadata.namespace or ""
            before = self.of(namespace)
            self._work_out(namespace)
            if self.of(namespace) != before:
                self._tell(namespace)

    def _runtime_class_changed(self, old: RuntimeClass | None, new: RuntimeClass | None) -> None:  # noqa: ARG002
        runtimes = {each.metadata.name: _runtime(each) for each in self._runtime_classes.values()}
        adding = {name: runtime for name, runtime in runtimes.items() if any(runtime)}
        before, self._elsewhere = self._elsewhere, Added({}, {}, adding)
        if self._elsewhere != before:
            self._added = {name: added._replace(runtimes=adding) for name, added in self._added.items()}
            self._tell(None)

    def _work_out(self, namespace: str) -> None:
        here = [each for each in self._limit_ranges.values() if each.metadata.namespace == namespace]
        limits = [limit for each in here for limit in each.spec.limits if limit.type == "Container"]
        requests, most = _largest(each.default_request for each in limits), _largest(each.default for each in limits)
        if requests or most:
            self._added[namespace] = Added(requests, most, self._elsewhere.runtimes)
        else:
            self._added.pop(namespace, None)

    def _tell(self, namespace: str | None) -> None:
        for listener in self._listeners:
            listener(namespace)


def _runtime(runtime_class: RuntimeClass) -> Runtime:
    overhead = _largest([runtime_class.overhead.pod_fixed]) if runtime_class.overhead else {}
    where = runtime_class.scheduling or _Scheduling()
    return Runtime(overhead, where.node_selector or {}, tuple(where.tolerations or ()))


def _largest(each: Iterable[Quantities | None]) -> Quantities:
    """The largest amounts: which of several LimitRanges comes first, Kubernetes leaves to chance."""
    found: dict[str, Any] = {}
    for name, amount in ((name, amount) for amounts in each for name, amount in (amounts or {}).items()):
        if _is_amount(amount) and (name not in found or parse(amount) > parse(found[name])):
            found[name] = amount
    return found


def _is_amount(text: str | int) -> bool:
    try:
        parse(text)
    except BadQuantity:
        return False
    return True
