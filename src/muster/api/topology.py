"""A node's GPUs as the agent publishes them: the value of the node annotation muster.dev/topology.

The agent encodes it, the operator and the extender decode it; a field that the driver would not tell is None, never a
guess. Unhealthy GPUs stay in the list, so that indices and the link matrix keep their meaning.
"""

from __future__ import annotations

import msgspec


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One GPU; its place in the list is its index on the node."""

    uuid: str
    product: str | None = None
    memory_mib: int | None = None
    numa: int | None = None
    cpus: str | None = None
    """CPU affinity as ranges, as in "0-15,32-47"."""
    healthy: bool = True


class Nic(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One network device and its way to each GPU."""

    name: str
    links: list[str] = []


class NodeTopology(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The GPUs of one node, `links[i][j]` as `nvidia-smi topo -m` prints it."""

    gpus: list[Gpu]
    links: list[list[str]]
    nics: list[Nic] = []
    driver: str | None = None


def encode(topology: NodeTopology) -> str:
    """Return the annotation's text; the same topology gives the same text."""
    return msgspec.json.encode(topology).decode()


def decode(text: str) -> NodeTopology:
    """Return the topology that `text` holds; raise msgspec.ValidationError or DecodeError where it holds none."""
    return msgspec.json.decode(text, type=NodeTopology)
