"""What all objects have: metadata, conditions; and how they are decoded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import islice
from sys import intern
from typing import Final, TypeVar

import msgspec

from muster.api import names

T = TypeVar("T")
_LONG: Final = frozenset({names.TOPOLOGY, names.RESERVATION, names.WAITING, names.FAILED_STARTS})
"""Annotations of muster's own whose text may be long."""
_READ: Final = frozenset({text for text in vars(names).values() if isinstance(text, str) and "/" in text}) - {names.HOSTFILE}
"""The annotations and labels that muster reads. Others can hold anything: `kubectl apply` leaves a copy of the whole object."""
_KNOWN: Final = _READ | {names.HOSTFILE}
_GROUP: Final = f"{names.GROUP}/"
_MOST_UNKNOWN: Final = 8
_MOST_LABELS: Final = 64
"""Labels of a pod that are not muster's."""
_ORPHAN: Final = "orphan"
_LONGEST: Final = 1024
"""What is read of the text of an annotation that users write."""


def decoder(kind: type[T]) -> Callable[[bytes | msgspec.Raw], T]:
    """Return the function that decodes JSON as `kind`; it raises MsgspecError."""
    return msgspec.json.Decoder(kind).decode


class Struct(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """Base: camelCase on the wire; no reference cycles, so the garbage collector need not look."""


class Owner(Struct, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Meta(Struct, frozen=True):
    """An object's metadata: of labels and annotations those that muster reads, of the owners the controller, of the finalizers
    the one by which Kubernetes orphans what the object owns."""

    name: str
    uid: str = ""
    namespace: str | None = None
    resource_version: str = "0"
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None
    finalizers: list[str] | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None

    def __post_init__(self) -> None:
        keep = msgspec.structs.force_setattr
        if self.annotations is not None:
            keep(self, "annotations", self._read_annotations(self.annotations))
        if self.labels is not None:
            keep(self, "labels", self._read_labels(self.labels))
        if self.owner_references is not None:
            keep(self, "owner_references", [owner for owner in self.owner_references if owner.controller] or None)
        if self.finalizers is not None:
            keep(self, "finalizers", [_ORPHAN] if _ORPHAN in self.finalizers else None)

    def _read_annotations(self, annotations: dict[str, str]) -> dict[str, str] | None:
        return ((_read(annotations) or {}) | _unknown(annotations)) or None

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
    def orphans(self) -> bool:
        """Whether what the object owns is to outlive it (kubectl delete --cascade=orphan)."""
        return self.finalizers is not None

    @property
    def controller(self) -> Owner | None:
        return next((owner for owner in self.owner_references or () if owner.controller), None)


def _read(texts: dict[str, str]) -> dict[str, str] | None:
    return {name: text if name in _LONG else text[:_LONGEST] for name, text in texts.items() if name in _READ} or None


def labels_of_pod(labels: dict[str, str]) -> dict[str, str] | None:
    """Return muster's own labels and a bounded number of others, as strings that pods share."""
    others = islice((name for name in labels if name not in _READ), _MOST_LABELS)
    return (_read(labels) or {}) | {intern(name): intern(labels[name]) for name in others} or None


def _unknown(annotations: dict[str, str]) -> dict[str, str]:
    """Annotations of muster's group that it does not know, a few of them and without their text: somebody is told of them."""
    unknown = (name for name in annotations if name.startswith(_GROUP) and name not in _KNOWN)
    return dict.fromkeys(islice(unknown, _MOST_UNKNOWN), "")


class Condition(Struct, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
