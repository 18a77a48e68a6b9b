"""Publishes a node's topology in its annotation muster.dev/topology.

Invariant: a PATCH is sent only if the text differs from the node's last known annotation. The node is read before its first
publication and again every `recheck` seconds, since it may have been deleted, edited or re-created.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import msgspec

from muster.api import names
from muster.api.topology import NodeTopology, encode
from muster.kube import paths
from muster.kube.client import Client

log = logging.getLogger(__name__)


class _Meta(msgspec.Struct):
    annotations: dict[str, str] | None = None


class _Node(msgspec.Struct):
    metadata: _Meta


class Publisher:
    """Publishes for one or more nodes."""

    def __init__(self, client: Client, recheck: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._recheck = recheck
        self._clock = clock
        self._shown: dict[str, tuple[str | None, float]] = {}

    async def publish(self, node: str, topology: NodeTopology) -> bool:
        """Publish the topology of a node; return whether a patch was needed. Raise muster.kube.errors.KubeError."""
        text = encode(topology)
        if await self._current(node) == text:
            return False
        await self._client.patch(paths.nodes(node), {"metadata": {"annotations": {names.TOPOLOGY: text}}})
        self._shown[node] = (text, self._clock())
        log.info("published %d GPUs of node %s", len(topology.gpus), node)
        return True

    def observe(self, node: str, annotations: Mapping[str, str]) -> None:
        """Record the annotations of a node that the caller has read."""
        self._shown[node] = (annotations.get(names.TOPOLOGY), self._clock())

    async def _current(self, node: str) -> str | None:
        text, read_at = self._shown.get(node, (None, float("-inf")))
        if self._clock() - read_at < self._recheck:
            return text
        current = msgspec.json.decode(await self._client.get(paths.nodes(node)), type=_Node)
        self.observe(node, current.metadata.annotations or {})
        return self._shown[node][0]
