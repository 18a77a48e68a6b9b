"""The resources that only the DLJob controller reads and writes, besides DLJobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from muster.api import names
from muster.kube import paths
from muster.kube.objects import Meta, decoder
from muster_operator.resources import Resource


class Service(msgspec.Struct):
    """What is read of a Service: its owner."""

    metadata: Meta


class PriorityClass(msgspec.Struct, rename="camel"):
    """What is read of a PriorityClass."""

    metadata: Meta
    value: int = 0
    global_default: bool = False
    preemption_policy: str = "PreemptLowerPriority"


SERVICES = Resource(paths.CORE, "services", decoder(Service), label_selector=names.JOB)
PRIORITY_CLASSES = Resource(paths.SCHEDULING, "priorityclasses", decoder(PriorityClass))


class Priority(NamedTuple):
    """What the PriorityClass of a gang says; without one, what Kubernetes gives such a pod."""

    value: int = 0
    preempts: bool = True
    name: str = ""
    missing: str = ""
    """That the class does not exist, in a sentence."""


class Priorities:
    """The PriorityClasses as they are now."""

    def __init__(self, classes: Iterable[PriorityClass]) -> None:
        self._classes = {each.metadata.name: each for each in classes}
        defaults = [each for each in self._classes.values() if each.global_default]
        self._default = min(defaults, key=lambda each: (each.value, each.metadata.name), default=None)  # as Kubernetes does

    def of(self, name: str | None) -> Priority:
        """Return what a pod has that names this class, or none."""
        found = self._classes.get(name) if name else self._default
        if found is not None:
            return Priority(found.value, found.preemption_policy != "Never", found.metadata.name)
        return Priority(name=name, missing=f"PriorityClass {name} does not exist") if name else Priority()
