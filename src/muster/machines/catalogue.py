"""Machine types by name: machines.toml joined with the recorded link tables in data/.

Invariant: a Machine has one row of links, one CPU affinity and one NUMA node (or None) for each of its GPUs.
Memory in GiB.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from muster.machines.ranges import canonical_ranges, parse_ranges
from muster.machines.topo import BadTopo, Topo, parse_topo


class UnknownMachine(ValueError):
    """An unknown machine type; the message lists the valid names."""


@dataclass(frozen=True)
class Machine:
    """One type of machine; `links[i][j]` between its GPUs, `nics[name][i]` from a NIC to GPU i."""

    name: str
    product: str
    gpus: int
    gpu_memory_gib: int
    links: tuple[tuple[str, ...], ...]
    nics: Mapping[str, tuple[str, ...]] = field(hash=False)
    cpu_affinity: tuple[str | None, ...]
    numa: tuple[int | None, ...]
    """The NUMA node of each GPU, the first of several (on GH200 the others are GPU memory)."""
    cpus: int
    memory_gib: int


def machine(name: str) -> Machine:
    """Return the machine type of that name or alias; raise UnknownMachine."""
    machines = catalogue()
    try:
        return machines[_aliases().get(name, name)]
    except KeyError:
        raise UnknownMachine(f"{name!r} is no machine type; expected one of {names()}") from None


def names() -> str:
    """Return every name of a machine type, aliases included, by alphabet, for help texts and errors."""
    return ", ".join(sorted([*catalogue(), *_aliases()]))


@cache
def catalogue() -> Mapping[str, Machine]:
    """Return every machine type by name, without aliases, in the order of machines.toml."""
    return {name: _machine(name, entry) for name, entry in _entries().items()}


@cache
def _entries() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_home().joinpath("machines.toml").read_text(encoding="utf-8"))


@cache
def _aliases() -> dict[str, str]:
    return {alias: name for name, entry in _entries().items() for alias in entry.get("aliases", [])}


def _home() -> Traversable:
    return files("muster.machines")


def _machine(name: str, entry: dict[str, Any]) -> Machine:
    topo = _topo(entry["topo"])
    return Machine(
        name=name,
        product=entry["product"],
        gpus=len(topo.links),
        gpu_memory_gib=entry["gpu-memory-gib"],
        links=topo.links,
        nics=topo.nics,
        cpu_affinity=tuple(text and canonical_ranges(text) for text in topo.cpu_affinity),
        numa=tuple(None if text is None else parse_ranges(text)[0] for text in topo.numa),
        cpus=entry["cpus"],
        memory_gib=entry["memory-gib"],
    )


def _topo(file: str) -> Topo:
    try:
        return parse_topo(_home().joinpath("data", file).read_text(encoding="utf-8"))
    except BadTopo as error:
        raise BadTopo(f"{file}: {error}") from None
