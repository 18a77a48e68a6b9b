"""A bare pod on its way back into the queue: kept as a PodTemplate, Kubernetes' own kind for a pod that is not there yet.

A scheduling gate cannot be put back, and no controller makes a bare pod anew. So muster does: it writes a PodTemplate, deletes
the pod, creates it again from the template, deletes the template. The template is the decision: once it is written, whoever
finds it carries on, told by what is there under the pod's name. Its name is the pod's uid, so it clashes with nobody's, and
what others create under the pod's name is never taken for the pod.

What goes into it is what the user gave: not what muster wrote, nor what the API server works out by itself and would refuse
where it has changed since (priority, overhead), nor what belongs to one run on one node. What its admission plug-ins fill in
(token volume, tolerations, defaults) stays: they know their own, and add nothing twice.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from muster.api import names
from muster.kube.objects import Pod
from muster_operator.manifests import unpinned

Manifest = dict[str, Any]

_METADATA = ("name", "generateName", "labels", "annotations", "ownerReferences", "finalizers")
_OURS = (names.RANK, names.GPUS, names.RESERVATION, names.WAITING, names.WAKE)
_NODES_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
"""Copied from its node to each pod that is bound (KEP-4742)."""
_WORKED_OUT = ("nodeName", "priority", "preemptionPolicy", "overhead", "ephemeralContainers")


class Step(Enum):
    """What comes next for a pod that has a template."""

    DELETE = auto()
    WAIT = auto()
    CREATE = auto()
    FORGET = auto()


def next_step(uid: str, found: Pod | None) -> Step:
    """Return what comes next for the pod of that uid, given what is there under its name."""
    if found is None:
        return Step.CREATE
    if found.metadata.uid != uid or (found.finished and not found.leaving):
        return Step.FORGET  # created again, by muster or by its user; or it ran to its end before it was deleted
    return Step.WAIT if found.leaving else Step.DELETE


def template(pod: Manifest) -> Manifest:
    """Return the PodTemplate that keeps a pod, given as the API server has it; from there it comes gated, in its old turn."""
    meta = pod["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": meta["uid"], "namespace": meta["namespace"], "labels": {names.TAKEN_BACK: "true"}},
        "template": {"metadata": _metadata(meta), "spec": _spec(pod)},
    }


def pod(kept: Manifest) -> Manifest:
    """Return the pod to create from its PodTemplate."""
    metadata = {**kept["template"]["metadata"], "namespace": kept["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": kept["template"]["spec"]}


def requeues(annotations: Manifest) -> int:
    """Return how many times a pod was taken back; users can write annotations, so any text is some number."""
    text = annotations.get(names.REQUEUES) or ""
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def _metadata(meta: Manifest) -> Manifest:
    before = meta.get("annotations") or {}
    annotations = {key: value for key, value in before.items() if key not in _OURS}
    annotations[names.QUEUED_AT] = before.get(names.QUEUED_AT) or meta["creationTimestamp"]
    annotations[names.REQUEUES] = str(requeues(before) + 1)
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key not in _NODES_LABELS}
    return {key: meta[key] for key in _METADATA if key in meta} | {"annotations": annotations, "labels": labels}


def _spec(pod: Manifest) -> Manifest:
    spec = {key: value for key, value in pod["spec"].items() if key not in _WORKED_OUT}
    others = [gate for gate in spec.get("schedulingGates") or () if gate["name"] != names.GATE]
    spec["schedulingGates"] = [*others, {"name": names.GATE}]
    ungate = names.RANK in (pod["metadata"].get("annotations") or {})
    affinity = spec.pop("affinity", None)
    affinity = unpinned(affinity) if affinity and ungate else affinity
    return spec | ({"affinity": affinity} if affinity else {})
