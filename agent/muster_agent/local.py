"""The agents of all nodes of a `muster local` cluster in one process: `muster-agent --local-nodes`.

Such a node has no machine, only the label muster.dev/machine with its type. The code that reads real nodes reads its topology
from the stand-in for that type. Invariant: a node's annotation shows the topology of its machine type even if the node is
created, relabelled or edited later; each node has its own GPU UUIDs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from muster.api import names
from muster.api.topology import NodeTopology
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import Gone, KubeError, NotFound, api_error
from muster.machines import Machine, UnknownMachine, machine
from muster_agent.node import wait
from muster_agent.nvml import Nvml
from muster_agent.publish import Publisher
from muster_agent.reading import read_topology
from muster_agent.standin.hardware import lay_out
from muster_agent.standin.library import Library, installed
from muster_agent.standin.tree import write_tree

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0


class _Meta(msgspec.Struct):
    name: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Node(msgspec.Struct):
    metadata: _Meta


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class LocalNodes:
    """Publishes for every node with a machine label; `workdir` holds one /sys for each machine type."""

    def __init__(self, client: Client, workdir: Path) -> None:
        self._client = client
        self._publisher = Publisher(client)
        self._workdir = workdir
        self._read: dict[str, tuple[str, NodeTopology]] = {}
        self._unknown: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Watch the cluster's nodes until `stop` is set."""
        watching = asyncio.create_task(self._watch(stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        stopping.cancel()
        results = await asyncio.gather(watching, stopping, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def sync(self) -> str:
        """Publish for all existing nodes; return the resource version of the list."""
        listing = await self._client.list(paths.nodes(), labelSelector=names.MACHINE)
        nodes = [msgspec.json.decode(item, type=_Node) for item in listing.items]
        self._read = {node.metadata.name: self._read[node.metadata.name] for node in nodes if node.metadata.name in self._read}
        results = await asyncio.gather(*(self._publish(node) for node in nodes), return_exceptions=True)
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure  # the others are published; the next list retries this one
        return listing.resource_version

    async def _watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                version = await self.sync()
                async for node in self._changes(version):
                    await self._publish(node)
            except Gone:
                continue
            except (KubeError, msgspec.MsgspecError) as error:
                log.warning("watching nodes failed, listing them again: %s", error)
                await wait(stop, _RETRY_SECONDS)

    async def _changes(self, version: str) -> AsyncIterator[_Node]:
        async for line in self._client.watch(paths.nodes(), version, labelSelector=names.MACHINE):
            event = msgspec.json.decode(line, type=_Event)
            if event.type == "ERROR":
                raise api_error(bytes(event.object))
            if event.type in ("ADDED", "MODIFIED"):
                yield msgspec.json.decode(event.object, type=_Node)

    async def _publish(self, node: _Node) -> None:
        name, label = node.metadata.name, node.metadata.labels.get(names.MACHINE, "")
        try:
            topology = self._topology(name, label)
        except UnknownMachine as error:
            if label not in self._unknown:
                self._unknown.add(label)
                log.warning("node %s, label %s: %s", name, names.MACHINE, error)
            return
        self._publisher.observe(name, node.metadata.annotations)
        try:
            await self._publisher.publish(name, topology)
        except NotFound:
            log.info("node %s no longer exists", name)

    def _topology(self, node: str, label: str) -> NodeTopology:
        cached = self._read.get(node)
        if cached is None or cached[0] != label:
            self._read[node] = cached = label, read_node(machine(label), node, self._workdir)
        return cached[1]


def read_node(kind: Machine, node: str, workdir: Path) -> NodeTopology:
    """Return the topology of a node of this machine type, as the agent on such a machine reads it."""
    hardware = lay_out(kind, node)
    sysfs = workdir / kind.name
    if not sysfs.exists():
        write_tree(sysfs, hardware)
    with installed(Library(hardware)), Nvml() as nvml:
        return read_topology(nvml, sysfs)
