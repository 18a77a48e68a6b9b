"""Puts a node's topology into its annotation muster.dev/topology, and leaves it alone while it says the same.

Invariant: the API server sees a PATCH only when the text differs from what the node last showed. The node is looked at
when first published and again every `recheck` seconds, since someone may have deleted, edited or re-created it.
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
    """Publishes for one or many nodes."""

    def __init__(self, client: Client, recheck: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._recheck = recheck
        self._clock = clock
        self._shown: dict[str, tuple[str | None, float]] = {}

    async def publish(self, node: str, topology: NodeTopology) -> bool:
        """Make the node show the topology; tell whether that took a patch. Raises muster.kube.errors.KubeError."""
        text = encode(topology)
        if await self._current(node) == text:
            return False
        await self._client.patch(paths.nodes(node), {"metadata": {"annotations": {names.TOPOLOGY: text}}})
        self._shown[node] = (text, self._clock())
        log.info("published %d GPUs of node %s", len(topology.gpus), node)
        return True

    def saw(self, node: str, annotations: Mapping[str, str]) -> None:
        """Take note of the annotations of a node that was read for another reason."""
        self._shown[node] = (annotations.get(names.TOPOLOGY), self._clock())

    async def _current(self, node: str) -> str | None:
        text, seen = self._shown.get(node, (None, float("-inf")))
        if self._clock() - seen < self._recheck:
            return text
        found = msgspec.json.decode(await self._client.get(paths.nodes(node)), type=_Node)
        self.saw(node, found.metadata.annotations or {})
        return self._shown[node][0]
