"""The resources of the API server that muster reads and writes: their paths, and how their objects are decoded.

A controller names the resources of its own in its folder; those that several controllers share are here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import msgspec

from muster.kube import paths
from muster.kube.objects import Node, Pod, decoder
from muster.kube.store import T


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One collection of objects: `root` and `plural` make its path."""

    root: str
    plural: str
    decode: Callable[[bytes | msgspec.Raw], T]
    """Reads what is needed of one object, and keeps nothing of its JSON; raises MsgspecError."""
    label_selector: str = ""
    """Which of the objects are watched; all if empty."""

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of the collection, of one object, or of a subresource of it."""
        return paths.resource(self.root, self.plural, namespace, name, subresource)


NODES = Resource(paths.CORE, "nodes", decoder(Node))
PODS = Resource(paths.CORE, "pods", decoder(Pod))
