"""The resources that only the DLJob controller reads and writes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from muster.api import names
from muster.kube import paths
from muster.kube.objects import Meta
from muster_operator.resources import Resource


class Service(msgspec.Struct):
    """What is read of a Service: its owner."""

    metadata: Meta


class PriorityClass(msgspec.Struct):
    """What is read of a PriorityClass."""

    metadata: Meta
    value: int = 0


SERVICES = Resource(paths.CORE, "services", Service, label_selector=names.JOB)
PRIORITY_CLASSES = Resource(paths.SCHEDULING, "priorityclasses", PriorityClass)


def priorities(classes: Iterable[PriorityClass]) -> dict[str, int]:
    """Return the value of each PriorityClass by its name."""
    return {each.metadata.name: each.value for each in classes}
