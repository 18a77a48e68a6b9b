"""A pod: what it asks of its node, and how it fares."""

from __future__ import annotations

from datetime import datetime

import msgspec

from muster.api import names
from muster.kube.objects.metadata import Condition, Meta, Struct, labels_of_pod
from muster.kube.objects.pod_rules import Expression, PodAffinity, SpreadConstraint


class Demand(Struct, frozen=True, omit_defaults=True):
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


class Port(Struct, frozen=True, omit_defaults=True):
    container_port: int = 0
    host_port: int = 0
    host_ip: str = msgspec.field(name="hostIP", default="")
    protocol: str = "TCP"


class Container(Struct, frozen=True, omit_defaults=True):
    resources: Demand = NO_DEMAND
    ports: list[Port] | None = None
    restart_policy: str | None = None


class Gate(Struct, frozen=True):
    name: str


class Term(Struct, frozen=True):
    match_expressions: list[Expression] | None = None
    match_fields: list[Expression] | None = None


class Terms(Struct, frozen=True):
    node_selector_terms: list[Term] = msgspec.field(default_factory=list)


class PreferredTerm(Struct, frozen=True):
    weight: int = 0
    preference: Term = Term()


class NodeAffinity(Struct, frozen=True):
    required: Terms | None = msgspec.field(name="requiredDuringSchedulingIgnoredDuringExecution", default=None)
    preferred: list[PreferredTerm] | None = msgspec.field(name="preferredDuringSchedulingIgnoredDuringExecution", default=None)


class Affinity(Struct, frozen=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class PodToleration(Struct, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class LabelSelector(Struct, frozen=True):
    match_labels: dict[str, str] | None = None
    match_expressions: list[Expression] | None = None


class ClaimSpec(Struct, frozen=True):
    volume_name: str = ""
    storage_class_name: str | None = None
    access_modes: list[str] | None = None
    resources: Demand = NO_DEMAND
    selector: LabelSelector | None = None
    volume_mode: str = "Filesystem"


class ClaimTemplate(Struct, frozen=True):
    spec: ClaimSpec = ClaimSpec()


class Ephemeral(Struct, frozen=True):
    volume_claim_template: ClaimTemplate = ClaimTemplate()


class ClaimSource(Struct, frozen=True):
    claim_name: str


class PodVolume(Struct, frozen=True):
    """A volume of a pod: `ephemeral` stands for a claim that is made with the pod, and goes with it (KEP-1698)."""

    name: str = ""
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: Ephemeral | None = None


class PodSpec(Struct, frozen=True, omit_defaults=True):
    containers: list[Container] = msgspec.field(default_factory=list)
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
    topology_spread_constraints: list[SpreadConstraint] | None = None
    resources: Demand | None = None
    host_network: bool = False
    runtime_class_name: str = ""
    volumes: list[PodVolume] | None = None
    """Those that claims stand behind."""

    def __post_init__(self) -> None:
        if self.volumes is not None:
            claimed = [volume for volume in self.volumes if volume.persistent_volume_claim or volume.ephemeral]
            msgspec.structs.force_setattr(self, "volumes", claimed or None)


class Waiting(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class Terminated(Struct, frozen=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class ContainerState(Struct, frozen=True):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


NO_STATE = ContainerState()


class ContainerStatus(Struct, frozen=True):
    name: str
    state: ContainerState = NO_STATE
    last_state: ContainerState = NO_STATE
    restart_count: int = 0


class PodStatus(Struct, frozen=True):
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


NO_POD_STATUS = PodStatus()


class PodMeta(Meta, frozen=True):
    """A pod's metadata: rules of other pods may select it by any label."""

    def _read_labels(self, labels: dict[str, str]) -> dict[str, str] | None:
        return labels_of_pod(labels)


class Pod(Struct, frozen=True):
    metadata: PodMeta
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
