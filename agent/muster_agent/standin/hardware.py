"""A machine consistent with a link table: PCIe positions of its GPUs and NICs, and the peer of each NVLink.

A table gives distances, not the wiring; this module constructs one possible wiring. Devices at most PIX apart share a switch,
at most PXB apart a root port, at most PHB apart a host bridge, at most NODE apart a NUMA node. For pairs with NVLink the table
has no PCIe distance, and the recorded affinities determine the NUMA node.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from muster.machines import Machine

LEVELS: Final = ("PIX", "PXB", "PHB", "NODE", "SYS")
_MOST_LINKS = 18  # NVLinks of a GPU (Hopper); a table with more per GPU implies switches
_SWITCHES = 6
Groups = dict[str, list[int]]


@dataclass(frozen=True)
class Position:
    """A device's path from the host bridge to the device itself, and its NUMA node or -1."""

    path: tuple[str, ...]
    numa: int

    @property
    def address(self) -> str:
        """The PCI address, such as 0000:0a:00.0."""
        return self.path[-1]


@dataclass(frozen=True)
class Link:
    """One NVLink port of a GPU: the PCI address of its peer, and whether the peer is a switch."""

    address: str
    to_switch: bool
    active: bool = True


@dataclass(frozen=True)
class Hardware:
    """One machine: `nvlinks[i]` are the ports of GPU i, `distance[i][j]` is the PCIe distance of GPUs i and j (LEVELS)."""

    machine: Machine
    gpus: tuple[Position, ...]
    nics: dict[str, Position]
    nvlinks: tuple[tuple[Link, ...], ...]
    distance: tuple[tuple[str, ...], ...]
    uuids: tuple[str, ...]
    numa_nodes: int


def lay_out(machine: Machine, node: str) -> Hardware:
    """Return a machine of this type; GPU UUIDs are derived from the node's name."""
    cells = _cells(machine)
    affine = _affine(machine, cells)
    groups = _all_groups(machine.gpus + len(machine.nics), cells, affine)
    numa = _numa(machine, groups["NODE"], has_affinity=bool(affine))
    positions = [Position(path, numa[i]) for i, path in enumerate(_paths(groups))]
    gpus = tuple(positions[: machine.gpus])
    return Hardware(
        machine=machine,
        gpus=gpus,
        nics=dict(zip(machine.nics, positions[machine.gpus :], strict=True)),
        nvlinks=_nvlinks(machine, [gpu.address for gpu in gpus]),
        distance=tuple(tuple(_distance(groups, a, b) for b in range(machine.gpus)) for a in range(machine.gpus)),
        uuids=tuple(_uuid(node, gpu) for gpu in range(machine.gpus)),
        numa_nodes=max([2 if "SYS" in cells.values() else 1, *(n + 1 for n in numa)]),
    )


def _cells(machine: Machine) -> dict[tuple[int, int], str]:
    """The PCIe distances in the table, by pairs of device numbers: GPUs first, then NICs."""
    pairs = {(a, b): machine.links[a][b] for a, b in combinations(range(machine.gpus), 2)}
    for nic, links in enumerate(machine.nics.values(), machine.gpus):
        pairs |= {(gpu, nic): link for gpu, link in enumerate(links)}
    return {pair: link for pair, link in pairs.items() if link in LEVELS}


def _affine(machine: Machine, cells: dict[tuple[int, int], str]) -> list[tuple[int, int]]:
    """Pairs of GPUs on one NUMA node by their affinities; none if the table contradicts them with SYS.

    In that case the machine's firmware does not report the host bridges' NUMA nodes to the kernel, although NVML knows them.
    """
    columns = machine.numa if any(node is not None for node in machine.numa) else machine.cpu_affinity
    pairs = [(a, b) for a, b in combinations(range(machine.gpus), 2) if columns[a] is not None and columns[a] == columns[b]]
    groups = _groups(machine.gpus + len(machine.nics), [*pairs, *_at_most(cells, "NODE")])
    contradicted = any(link == "SYS" and groups[a] == groups[b] for (a, b), link in cells.items())
    return [] if contradicted else pairs


def _all_groups(size: int, cells: dict[tuple[int, int], str], affine: list[tuple[int, int]]) -> Groups:
    groups = {level: _groups(size, _at_most(cells, level)) for level in LEVELS}
    return groups | {"NODE": _groups(size, [*_at_most(cells, "NODE"), *affine]), "SYS": [0] * size}


def _at_most(cells: dict[tuple[int, int], str], level: str) -> list[tuple[int, int]]:
    near = LEVELS[: LEVELS.index(level) + 1]
    return [pair for pair, link in cells.items() if link in near]


def _groups(size: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The group of each device, numbered by its first device, such that the devices of each pair share a group."""
    group = list(range(size))
    for a, b in pairs:
        low, high = sorted((group[a], group[b]))
        group = [low if number == high else number for number in group]
    return group


def _distance(groups: Groups, a: int, b: int) -> str:
    return next(level for level in LEVELS if groups[level][a] == groups[level][b])


def _numa(machine: Machine, groups: list[int], has_affinity: bool) -> list[int]:
    """The NUMA node of each device: that of its group's GPUs, else the ordinal of the group; -1 if unknown."""
    if not has_affinity:
        return [-1] * len(groups)
    node_of = {groups[gpu]: node for gpu, node in enumerate(machine.numa) if node is not None}
    if not node_of:
        with_affinity = sorted({groups[gpu] for gpu, cpus in enumerate(machine.cpu_affinity) if cpus is not None})
        node_of = {group: ordinal for ordinal, group in enumerate(with_affinity)}
    return [node_of.get(group, -1) for group in groups]


def _paths(groups: Groups) -> list[tuple[str, ...]]:
    """The PCIe path of each device; bus numbers are assigned in depth-first order, as by firmware."""
    return _Wiring(groups).paths


class _Wiring:
    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._bus = 0
        devices = list(range(len(groups["SYS"])))
        self.paths: list[tuple[str, ...]] = [()] * len(devices)
        for bridge in self._split(devices, "PHB"):
            bus = self._next()
            for port, below in enumerate(self._split(bridge, "PXB"), 1):
                self._root_port((f"pci0000:{bus:02x}", f"0000:{bus:02x}:{port:02x}.0"), below)

    def _root_port(self, path: tuple[str, ...], devices: list[int]) -> None:
        switches = self._split(devices, "PIX")
        if len(switches) == 1:
            self._switch(path, devices)
            return
        for port, below in zip(self._ports(path, len(switches)), switches, strict=True):
            self._switch(port, below)

    def _switch(self, path: tuple[str, ...], devices: list[int]) -> None:
        """Put the devices behind a switch, even a single one, as in machines of this class."""
        for port, device in zip(self._ports(path, len(devices)), devices, strict=True):
            self.paths[device] = (*port, f"0000:{self._next():02x}:00.0")

    def _ports(self, path: tuple[str, ...], count: int) -> list[tuple[str, ...]]:
        upstream, inside = self._next(), self._next()
        return [(*path, f"0000:{upstream:02x}:00.0", f"0000:{inside:02x}:{n:02x}.0") for n in range(count)]

    def _next(self) -> int:
        self._bus += 1
        return self._bus

    def _split(self, devices: list[int], level: str) -> list[list[int]]:
        numbers = [self._groups[level][device] for device in devices]
        return [
            [device for device, number in zip(devices, numbers, strict=True) if number == group]
            for group in dict.fromkeys(numbers)
        ]


def _nvlinks(machine: Machine, addresses: list[str]) -> tuple[tuple[Link, ...], ...]:
    """The ports of each GPU: as many to each peer as in the table, or all to switches if their sum exceeds a GPU's ports."""
    bonds = [[int(cell[2:]) if cell.startswith("NV") else 0 for cell in row] for row in machine.links]
    if all(sum(row) <= _MOST_LINKS for row in bonds):
        return tuple(
            tuple(Link(addresses[peer], False) for peer, count in enumerate(row) for _ in range(count)) for row in bonds
        )
    return tuple(tuple(Link(_switch_address(n % _SWITCHES), True) for n in range(max(row))) for row in bonds)


def _switch_address(number: int) -> str:
    return f"0000:{0xF0 + number:02x}:00.0"


def _uuid(node: str, gpu: int) -> str:
    digest = hashlib.sha256(f"{node}/{gpu}".encode()).digest()
    return f"GPU-{uuid.UUID(bytes=digest[:16])}"
