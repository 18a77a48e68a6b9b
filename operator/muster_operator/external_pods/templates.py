"""A bare pod that is requeued: parked as a PodTemplate, Kubernetes' own kind for a pod that does not exist yet.

A scheduling gate cannot be put back, and no controller creates a bare pod again. So muster does: it writes a PodTemplate,
deletes the pod, creates it again from the template, and deletes the template. The template is the decision: once it is written,
any operator that finds it carries on, and the pod of that name tells how far things are. A template is named by the pod's uid:
its name clashes with no other, and a pod that somebody else creates under the pod's name is never taken for it.

A template has what the user gave. It leaves out what muster wrote, what the API server computes and would reject if it has
changed since (priority, overhead), and what belongs to one run on one node. What admission plug-ins filled in (token volume,
tolerations, defaults) stays: they recognise their own and add nothing twice.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from muster.api import names, texts
from muster.kube import paths
from muster.kube.objects import Meta, Pod, decoder
from muster_operator.pinning import Manifest, unpinned
from muster_operator.pod_faults import is_rejected
from muster_operator.resources import Resource


class PodTemplate(msgspec.Struct):
    """What is read of the PodTemplate of a parked pod."""

    metadata: Meta
    template: Pod

    @property
    def pod(self) -> Pod:
        """The pod as it will be created: in the template's own namespace, whatever the template says."""
        meta = msgspec.structs.replace(self.template.metadata, namespace=self.metadata.namespace)
        return msgspec.structs.replace(self.template, metadata=meta)


POD_TEMPLATES = Resource(paths.CORE, "podtemplates", decoder(PodTemplate), label_selector=names.TAKEN_BACK)

_METADATA = ("name", "generateName", "labels", "annotations", "ownerReferences", "finalizers")
_OURS = (names.RANK, names.GPUS, names.RESERVATION, names.WAITING, names.WAKE, names.FAILED_STARTS)
_NODES_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
"""Copied from the node to each pod that is bound (KEP-4742)."""
_COMPUTED = ("nodeName", "priority", "preemptionPolicy", "overhead", "ephemeralContainers")


class Step(Enum):
    """What comes next for a parked pod."""

    DELETE = auto()
    WAIT = auto()
    CREATE = auto()
    FORGET = auto()


def next_step(uid: str, current: Pod | None) -> Step:
    """Return what comes next for the parked pod of that uid; `current` is the pod that has its name now."""
    if current is None:
        return Step.CREATE
    if current.metadata.uid != uid or (current.finished and not (current.leaving or is_rejected(current))):
        return Step.FORGET  # created again, by muster or by its user; or it finished before it was deleted
    return Step.WAIT if current.leaving else Step.DELETE


def template(pod: Manifest, failed_starts: str | None = None) -> Manifest:
    """Return the PodTemplate that parks a pod, given as the API server has it; created from it, the pod is gated again.

    `failed_starts` is what the pod is to say of earlier starts of its gang.
    """
    meta = pod["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": meta["uid"], "namespace": meta["namespace"], "labels": {names.TAKEN_BACK: "true"}},
        "template": {"metadata": _metadata(meta, failed_starts), "spec": _spec(pod)},
    }


def pod(parked: Manifest) -> Manifest:
    """Return the pod to create from its PodTemplate."""
    metadata = {**parked["template"]["metadata"], "namespace": parked["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": parked["template"]["spec"]}


def requeues(annotations: Manifest) -> int:
    """Return how many times a pod was requeued; users can write annotations, so any text counts as some number."""
    return texts.number(annotations.get(names.REQUEUES), 6) or 0


def _metadata(meta: Manifest, failed_starts: str | None) -> Manifest:
    before = meta.get("annotations") or {}
    annotations = {key: value for key, value in before.items() if key not in _OURS}
    annotations[names.QUEUED_AT] = before.get(names.QUEUED_AT) or meta["creationTimestamp"]
    annotations[names.REQUEUES] = str(requeues(before) + 1)
    if failed_starts is not None:
        annotations[names.FAILED_STARTS] = failed_starts
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key not in _NODES_LABELS}
    return {key: meta[key] for key in _METADATA if key in meta} | {"annotations": annotations, "labels": labels}


def _spec(pod: Manifest) -> Manifest:
    spec = {key: value for key, value in pod["spec"].items() if key not in _COMPUTED}
    others = [gate for gate in spec.get("schedulingGates") or () if gate["name"] != names.GATE]
    spec["schedulingGates"] = [*others, {"name": names.GATE}]
    is_pinned = names.RANK in (pod["metadata"].get("annotations") or {})
    affinity = spec.pop("affinity", None)
    affinity = unpinned(affinity) if affinity and is_pinned else affinity
    return spec | ({"affinity": affinity} if affinity else {})
