"""The parts of API objects that muster reads, as msgspec Structs: what is not declared here costs nothing to decode.

Decoded once per watch event, and kept as long as the object exists: so the fields are few, and nothing here holds on to the
JSON that it came from (msgspec.Raw is a slice that keeps the whole page). Of a DLJob this has what reserves GPUs; the operator
reads more of it (`muster_operator.dljob.job`). What a pod or a node means to the scheduler is `muster.allocation`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Final, TypeVar

import msgspec

from muster.api import names

T = TypeVar("T")
_LONG: Final = frozenset({names.TOPOLOGY, names.RESERVATION, names.WAITING})
"""Annotations of muster's own whose text may be long."""
_READ: Final = frozenset({text for text in vars(names).values() if isinstance(text, str) and "/" in text}) - {names.HOSTFILE}
"""The annotations and labels that muster reads. Others can hold anything: `kubectl apply` leaves a copy of the whole object."""
_KNOWN: Final = _READ | {names.HOSTFILE}
_GROUP: Final = f"{names.GROUP}/"
_MOST_UNKNOWN: Final = 8
_LONGEST: Final = 1024
"""What is read of the text of an annotation that users write."""


def decoder(kind: type[T]) -> Callable[[bytes | msgspec.Raw], T]:
    """Return the function that decodes JSON as `kind`; it raises MsgspecError."""
    return msgspec.json.Decoder(kind).decode


class Struct(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """Base: camelCase on the wire; no reference cycles, so the garbage collector need not look."""


class Owner(Struct, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Meta(Struct, frozen=True):
    """An object's metadata: of labels and annotations those that muster reads, of the owners the controller."""

    name: str
    uid: str = ""
    namespace: str | None = None
    resource_version: str = "0"
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None

    def __post_init__(self) -> None:
        keep = msgspec.structs.force_setattr
        if self.annotations is not None:
            keep(self, "annotations", ((_read(self.annotations) or {}) | _unknown(self.annotations)) or None)
        if self.labels is not None:
            keep(self, "labels", self._read_labels(self.labels))
        if self.owner_references is not None:
            keep(self, "owner_references", [owner for owner in self.owner_references if owner.controller] or None)

    def _read_labels(self, labels: dict[str, str]) -> dict[str, str] | None:
        return _read(labels)

    def label(self, name: str) -> str | None:
        return self.labels.get(name) if self.labels else None

    def annotation(self, name: str) -> str | None:
        return self.annotations.get(name) if self.annotations else None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def controller(self) -> Owner | None:
        return next((owner for owner in self.owner_references or () if owner.controller), None)


def _read(texts: dict[str, str]) -> dict[str, str] | None:
    return {name: text if name in _LONG else text[:_LONGEST] for name, text in texts.items() if name in _READ} or None


def _unknown(annotations: dict[str, str]) -> dict[str, str]:
    """Annotations of muster's group that it does not know, a few of them and without their text: somebody is told of them."""
    unknown = (name for name in annotations if name.startswith(_GROUP) and name not in _KNOWN)
    return dict.fromkeys(islice(unknown, _MOST_UNKNOWN), "")


class NodeMeta(Meta, frozen=True):
    """A node's metadata: pods may select it by any label."""

    def _read_labels(self, labels: dict[str, str]) -> dict[str, str] | None:
        return labels


class Condition(Struct, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class Demand(Struct, frozen=True):
    """resources of a container."""

    requests: dict[str, str | int] | None = None
    limits: dict[str, str | int] | None = None

    def of(self, name: str) -> str | int:
        for amounts in (self.requests, self.limits):
            if amounts and name in amounts:
                return amounts[name]
        return 0

    def limit(self, name: str) -> str | int:
        return self.limits.get(name, 0) if self.limits else 0


NO_DEMAND = Demand()


class Container(Struct, frozen=True):
    resources: Demand = NO_DEMAND
    restart_policy: str | None = None


class Gate(Struct, frozen=True):
    name: str


class Expression(Struct, frozen=True):
    key: str
    operator: str
    values: list[str] | None = None


class Term(Struct, frozen=True):
    match_expressions: list[Expression] | None = None
    match_fields: list[Expression] | None = None


class Terms(Struct, frozen=True):
    node_selector_terms: list[Term] = []


class NodeAffinity(Struct, frozen=True):
    required: Terms | None = msgspec.field(name="requiredDuringSchedulingIgnoredDuringExecution", default=None)


class Affinity(Struct, frozen=True):
    node_affinity: NodeAffinity | None = None


class PodToleration(Struct, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodSpec(Struct, frozen=True):
    containers: list[Container] = []
    init_containers: list[Container] | None = None
    node_name: str | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[PodToleration] | None = None
    scheduler_name: str = ""
    scheduling_gates: list[Gate] | None = None
    priority: int | None = None
    priority_class_name: str = ""
    preemption_policy: str = ""
    active_deadline_seconds: int | None = None
    overhead: dict[str, str | int] | None = None


class Waiting(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class Terminated(Struct, frozen=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""


class ContainerState(Struct, frozen=True):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


NO_STATE = ContainerState()


class ContainerStatus(Struct, frozen=True):
    name: str
    state: ContainerState = NO_STATE


class PodStatus(Struct, frozen=True):
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


NO_POD_STATUS = PodStatus()


class Pod(Struct, frozen=True):
    metadata: Meta
    spec: PodSpec
    status: PodStatus = NO_POD_STATUS

    @property
    def finished(self) -> bool:
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def leaving(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def gated(self) -> bool:
        return any(gate.name == names.GATE for gate in self.spec.scheduling_gates or ())

    @property
    def refused(self) -> bool:
        """Whether kube-scheduler has found no node for the pod."""
        said = self.condition("PodScheduled")
        return said is not None and said.status == "False" and said.reason == "Unschedulable"

    def condition(self, kind: str) -> Condition | None:
        return next((c for c in self.status.conditions or () if c.type == kind), None)


class NodeTaint(Struct, frozen=True):
    key: str
    effect: str
    value: str = ""


class NodeSpec(Struct, frozen=True):
    unschedulable: bool = False
    taints: list[NodeTaint] | None = None


class NodeStatus(Struct, frozen=True):
    allocatable: dict[str, str | int] | None = None
    conditions: list[Condition] | None = None


NO_NODE_SPEC, NO_NODE_STATUS = NodeSpec(), NodeStatus()


class Node(Struct, frozen=True):
    metadata: NodeMeta
    spec: NodeSpec = NO_NODE_SPEC
    status: NodeStatus = NO_NODE_STATUS

    @property
    def ready(self) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions or ())


class Reserved(Struct, frozen=True):
    """One entry of a DLJob's status.placement."""

    pod: str
    node: str
    gpus: list[int] = []


class ReservationStatus(Struct, frozen=True):
    """The part of a DLJob's status that reserves GPUs: the placement, and the number of the attempt that it is for."""

    attempt: int = 0
    placement: list[Reserved] = []


NO_RESERVATION = ReservationStatus()


class DLJob(Struct, frozen=True):
    """A DLJob as far as it reserves GPUs."""

    metadata: Meta
    status: ReservationStatus | None = None

    @property
    def reserved(self) -> ReservationStatus:
        """What the status reserves."""
        return self.status or NO_RESERVATION
