"""What decides on which nodes a pod can have its volumes: claims, volumes, and classes of storage.

A cluster may have tens of thousands of claims. Of one that is bound only the name of its volume still matters, of a volume that
is bound only from where it can be reached.
"""

from __future__ import annotations

from typing import Final

import msgspec

from muster.kube.objects.metadata import Meta, Struct
from muster.kube.objects.pod import ClaimSpec, Terms

SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
"""Annotation of a claim: the node for which kube-scheduler has its volume provisioned."""
_DEFAULT_CLASS: Final = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


class StorageMeta(Meta, frozen=True):
    """The metadata of an object of storage: of annotations those of Kubernetes that are read."""

    def _read_annotations(self, annotations: dict[str, str]) -> dict[str, str] | None:
        return {name: annotations[name] for name in (SELECTED_NODE, *_DEFAULT_CLASS) if name in annotations} or None


class Phase(Struct, frozen=True):
    phase: str = ""


NO_PHASE: Final = Phase()


class Claim(Struct, frozen=True):
    """A PersistentVolumeClaim."""

    metadata: StorageMeta
    spec: ClaimSpec = ClaimSpec()
    status: Phase = NO_PHASE

    def __post_init__(self) -> None:
        if self.bound:
            short = ClaimSpec(volume_name=self.spec.volume_name, access_modes=self.spec.access_modes)
            msgspec.structs.force_setattr(self, "spec", short)

    @property
    def bound(self) -> bool:
        return self.status.phase == "Bound" and bool(self.spec.volume_name)


class VolumeMeta(StorageMeta, frozen=True):
    """The metadata of a volume: claims select volumes by any label."""

    def _read_labels(self, labels: dict[str, str]) -> dict[str, str] | None:
        return labels


class ClaimRef(Struct, frozen=True):
    namespace: str = ""
    name: str = ""
    uid: str = ""


class VolumeNodeAffinity(Struct, frozen=True):
    required: Terms | None = None


class VolumeSpec(Struct, frozen=True):
    capacity: dict[str, str | int] | None = None
    access_modes: list[str] | None = None
    storage_class_name: str = ""
    claim_ref: ClaimRef | None = None
    node_affinity: VolumeNodeAffinity | None = None
    volume_mode: str = "Filesystem"


class Volume(Struct, frozen=True):
    """A PersistentVolume."""

    metadata: VolumeMeta
    spec: VolumeSpec = VolumeSpec()
    status: Phase = NO_PHASE

    def __post_init__(self) -> None:
        if not self.free:
            short = VolumeSpec(storage_class_name=self.spec.storage_class_name, node_affinity=self.spec.node_affinity)
            msgspec.structs.force_setattr(self, "spec", short)

    @property
    def free(self) -> bool:
        """Whether it can still be bound to a claim."""
        return self.status.phase in ("", "Pending", "Available") and self.metadata.deletion_timestamp is None


class TopologyExpression(Struct, frozen=True):
    key: str
    values: list[str] = msgspec.field(default_factory=list)


class TopologyTerm(Struct, frozen=True):
    match_label_expressions: list[TopologyExpression] | None = None


class StorageClass(Struct, frozen=True):
    metadata: StorageMeta
    provisioner: str = ""
    volume_binding_mode: str = "Immediate"
    allowed_topologies: list[TopologyTerm] | None = None

    @property
    def waits_for_pods(self) -> bool:
        """Whether its volumes are bound only once a pod that uses them has a node."""
        return self.volume_binding_mode == "WaitForFirstConsumer"

    @property
    def is_default(self) -> bool:
        return any(self.metadata.annotation(name) == "true" for name in _DEFAULT_CLASS)
