"""A node: its labels, taints, what it offers, whether it is ready."""

from __future__ import annotations

from muster.kube.objects.metadata import Condition, Meta, Struct


class NodeMeta(Meta, frozen=True):
    """A node's metadata: pods may select it by any label."""

    def _read_labels(self, labels: dict[str, str]) -> dict[str, str] | None:
        return labels


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
