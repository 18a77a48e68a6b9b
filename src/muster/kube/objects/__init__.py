"""The parts of API objects that muster reads, as msgspec Structs: what is not declared here costs nothing to decode.

Decoded once per watch event, and kept as long as the object exists: so the fields are few, and nothing here holds on to the
JSON that it came from (msgspec.Raw is a slice that keeps the whole page). Of a DLJob this has what reserves GPUs; the operator
reads more of it (`muster_operator.dljob.decoding`). What pods and nodes mean to the scheduler is `muster.allocation`'s matter.
"""

from muster.kube.objects.dljob import NO_RESERVATION, DLJob, ReservationStatus, Reserved
from muster.kube.objects.metadata import Condition, Meta, Owner, Struct, decoder
from muster.kube.objects.node import NO_NODE_SPEC, Node, NodeMeta, NodeSpec, NodeStatus, NodeTaint
from muster.kube.objects.pod import (
    NO_DEMAND,
    NO_POD_STATUS,
    NO_STATE,
    Affinity,
    ClaimSpec,
    Container,
    ContainerState,
    ContainerStatus,
    Demand,
    Gate,
    NodeAffinity,
    Pod,
    PodMeta,
    PodSpec,
    PodStatus,
    PodToleration,
    Port,
    PreferredTerm,
    Term,
    Terminated,
    Terms,
    Waiting,
)
from muster.kube.objects.pod_rules import Expression, LabelSelector, PodAffinity, PodAffinityTerm, SpreadConstraint
from muster.kube.objects.volume import Claim, StorageClass, Volume

__all__ = [
    "NO_DEMAND",
    "NO_NODE_SPEC",
    "NO_POD_STATUS",
    "NO_RESERVATION",
    "NO_STATE",
    "Affinity",
    "Claim",
    "ClaimSpec",
    "Condition",
    "Container",
    "ContainerState",
    "ContainerStatus",
    "DLJob",
    "Demand",
    "Expression",
    "Gate",
    "LabelSelector",
    "Meta",
    "Node",
    "NodeAffinity",
    "NodeMeta",
    "NodeSpec",
    "NodeStatus",
    "NodeTaint",
    "Owner",
    "Pod",
    "PodAffinity",
    "PodAffinityTerm",
    "PodMeta",
    "PodSpec",
    "PodStatus",
    "PodToleration",
    "Port",
    "PreferredTerm",
    "ReservationStatus",
    "Reserved",
    "SpreadConstraint",
    "StorageClass",
    "Struct",
    "Term",
    "Terminated",
    "Terms",
    "Volume",
    "Waiting",
    "decoder",
]
