"""The stand-in for a real node without GPUs, after its label muster.dev/machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from muster.api import names
from muster.kube import paths
from muster.kube.client import Client
from muster.machines import UnknownMachine, machine
from muster_agent.standin.hardware import Hardware, lay_out
from muster_agent.standin.library import Library, installed
from muster_agent.standin.tree import write_tree

log = logging.getLogger(__name__)


class _Meta(msgspec.Struct):
    labels: dict[str, str] = {}


class _Node(msgspec.Struct):
    metadata: _Meta


async def hardware(client: Client, node: str) -> Hardware | None:
    """Return the machine named by the node's label; log and return None if there is none. Raise KubeError."""
    current = msgspec.json.decode(await client.get(paths.nodes(node)), type=_Node)
    label = current.metadata.labels.get(names.MACHINE)
    if label is None:
        log.info("node %s has no label %s, so it has no GPUs", node, names.MACHINE)
        return None
    try:
        return lay_out(machine(label), node)
    except UnknownMachine as error:
        log.warning("node %s, label %s: %s; the node has no GPUs", node, names.MACHINE, error)
        return None


@contextmanager
def stood_in(hardware: Hardware | None) -> Iterator[Path]:
    """Replace the driver by the stand-in for this machine, if any; yield the path of its /sys."""
    with TemporaryDirectory(prefix="muster-agent-") as directory:
        sysfs = Path(directory, "sys")
        if hardware is None:
            yield sysfs
            return
        write_tree(sysfs, hardware)
        with installed(Library(hardware)):
            yield sysfs
