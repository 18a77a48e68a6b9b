"""Pins of pods to one node, as a required node affinity on metadata.name.

A pin is not spec.nodeName, so that kube-scheduler still checks CPU, memory, taints and volumes before it binds the pod.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Manifest = dict[str, Any]

UNSCHEDULABLE_SECONDS = 3.0
"""How long kube-scheduler may call a pinned pod unschedulable before muster believes it: its first verdict may rest on a stale
cache, and it tries again after a second."""
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def pinned(affinity: Manifest | None, node: str) -> Manifest:
    """Return a pod's affinity narrowed to one node: each of its terms (one, if it has none) asks for the node's name too."""
    affinity = dict(affinity or {})
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    required = node_affinity.get(_REQUIRED) or {}
    pin = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = [
        {**term, "matchFields": [*(term.get("matchFields") or ()), pin]} for term in required.get("nodeSelectorTerms") or [{}]
    ]
    node_affinity[_REQUIRED] = {"nodeSelectorTerms": terms}
    return {**affinity, "nodeAffinity": node_affinity}


def without_min_domains(constraints: Iterable[Manifest]) -> list[Manifest]:
    """Return the spread constraints of a pod that is pinned, and so has one domain to go to: muster keeps `minDomains`.

    What the API server refuses stays, for it to say so.
    """
    return [
        {name: value for name, value in each.items() if name != "minDomains"} if _has_min_domains(each) else each
        for each in constraints
    ]


def _has_min_domains(constraint: Manifest) -> bool:
    return constraint.get("whenUnsatisfiable") == "DoNotSchedule" and (constraint.get("minDomains") or 0) > 1


def unpinned(affinity: Manifest) -> Manifest | None:
    """Return what a pod's affinity was before `pinned`; None if it had none."""
    affinity = dict(affinity)
    node_affinity = dict(affinity.pop("nodeAffinity", None) or {})
    required = node_affinity.pop(_REQUIRED, None) or {}
    terms = [
        {key: value for key, value in {**term, "matchFields": (term.get("matchFields") or [])[:-1]}.items() if value}
        for term in required.get("nodeSelectorTerms") or ()
    ]
    if any(terms):
        node_affinity[_REQUIRED] = {"nodeSelectorTerms": terms}
    if node_affinity:
        affinity["nodeAffinity"] = node_affinity
    return affinity or None
