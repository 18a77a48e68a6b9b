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
    """What counts of the PriorityClasses of a gang; without any, what Kubernetes gives such pods."""

    value: int = 0
    preempts: bool = True
    default: str = ""
    """The class that a pod gets that names none."""
    missing: str = ""
    """That a class does not exist, in a sentence."""


class Priorities:
    """The PriorityClasses as they are now."""

    def __init__(self, classes: Iterable[PriorityClass]) -> None:
        self._classes = {each.metadata.name: each for each in classes}
        defaults = [each for each in self._classes.values() if each.global_default]
        self._default = min(defaults, key=lambda each: (each.value, each.metadata.name), default=None)  # as Kubernetes does

    def lowest(self, names: Iterable[str]) -> Priority:
        """Return what counts for pods that name these classes ("": none); a class that does not exist goes first."""
        return min((self._of(name) for name in names), key=lambda each: (not each.missing, each.value, each.preempts))

    def _of(self, name: str) -> Priority:
        default = self._default.metadata.name if self._default is not None else ""
        found = self._classes.get(name) if name else self._default
        if found is not None:
            return Priority(found.value, found.preemption_policy != "Never", default)
        return Priority(default=default, missing=f"PriorityClass {name} does not exist" if name else "")
