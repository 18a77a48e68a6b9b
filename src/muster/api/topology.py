"""A node's GPUs in the node annotation muster.dev/topology.

The agent encodes it; the operator and the extender decode it. A value that the driver does not report is None, never a guess.
Unhealthy GPUs stay in the list, so that indices and the link matrix keep their meaning.
"""

from __future__ import annotations

from typing import Final

import msgspec

MOST_CHARACTERS: Final = 64 << 10
"""The longest text of the annotation that the API server accepts from an agent: 64 GPUs and 16 NICs take 45,000."""


class TooLong(ValueError):
    """A text that is longer than any node's topology."""


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One GPU; its position in the list is its index on the node."""

    uuid: str
    product: str | None = None
    memory_mib: int | None = None
    numa: int | None = None
    cpus: str | None = None
    """CPU affinity as ranges: "0-15,32-47"."""
    healthy: bool = True


class Nic(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One network device and its link to each GPU."""

    name: str
    links: list[str] = []


class NodeTopology(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The GPUs of one node; `links[i][j]` is in the notation of `nvidia-smi topo -m`."""

    gpus: list[Gpu]
    links: list[list[str]]
    nics: list[Nic] = []
    driver: str | None = None


def encode(topology: NodeTopology) -> str:
    """Return the text of the annotation; equal topologies give equal texts."""
    return msgspec.json.encode(topology).decode()


def decode(text: str) -> NodeTopology:
    """Return the topology in `text`; raise TooLong, msgspec.ValidationError or DecodeError if it is invalid."""
    if len(text) > MOST_CHARACTERS:
        raise TooLong(f"it has {len(text)} characters, more than {MOST_CHARACTERS}")
    return msgspec.json.decode(text, type=NodeTopology)
