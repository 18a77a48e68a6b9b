"""Whether a node is still as it was when it refused a pod."""

from __future__ import annotations

import hashlib

import msgspec

from muster.kube.objects import Node

KUBERNETES = "node.kubernetes.io/"
"""Begins the keys of taints that follow a node's conditions, which come and go."""


def digest(node: Node) -> str:
    """Return eight digits for the labels, taints and allocatable resources of a node, and whether it is cordoned."""
    taints = sorted((t.key, t.value, t.effect) for t in node.spec.taints or () if not t.key.startswith(KUBERNETES))
    facts = (node.metadata.labels or {}, taints, node.status.allocatable or {}, node.spec.unschedulable)
    return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()[:8]
