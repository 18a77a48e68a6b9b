"""One reading of a node: NVML and /sys together make the topology that is published and the samples that are measured.

Invariant: a GPU keeps its place in the list while the driver counts it, whatever else fails. Samples carry SI units and
ratios (bytes, watts, degrees Celsius, 0 to 1), as Prometheus wants them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from muster.api.topology import Gpu, Nic, NodeTopology
from muster.machines.ranges import format_ranges
from muster_agent.matrix import ANCESTORS, GpuLinks, link_matrix
from muster_agent.nvml import Nvml
from muster_agent.sysfs import PciDevice, find_gpu, find_nics, pcie_link, single_numa_node

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """What one GPU does at the moment; None where the driver would not tell."""

    index: int
    uuid: str
    healthy: bool
    utilisation: float | None
    memory_used: int | None
    memory_total: int | None
    temperature: float | None
    power: float | None


def read_topology(nvml: Nvml, sysfs: Path, unhealthy: Collection[int] = ()) -> NodeTopology:
    """Read the node's GPUs, their links, and the NICs' ways to them; `sysfs` is the directory that is /sys."""
    gpus = range(nvml.count() or 0)
    addresses = [nvml.address(gpu) for gpu in gpus]
    places = [find_gpu(sysfs, address) if address else None for address in addresses]
    one_node = single_numa_node(sysfs)

    def pcie(a: int, b: int) -> str:
        # A broken or new driver may not know the ancestor; /sys shows the same tree.
        return ANCESTORS.get(_or(nvml.common_ancestor(a, b), -1)) or pcie_link(places[a], places[b], one_node)

    ends = [GpuLinks(address, nvml.nvlinks(gpu)) for gpu, address in zip(gpus, addresses, strict=True)]
    return NodeTopology(
        gpus=[_gpu(nvml, gpu, places[gpu], gpu not in unhealthy) for gpu in gpus],
        links=link_matrix(ends, nvml.reaches_by_nvlink, pcie),
        nics=[Nic(name, [pcie_link(nic, place, one_node) for place in places]) for name, nic in find_nics(sysfs).items()],
        driver=nvml.driver(),
    )


def read_samples(nvml: Nvml, topology: NodeTopology) -> list[Sample]:
    """Read what each GPU of the topology does at the moment."""
    return [_sample(nvml, index, gpu) for index, gpu in enumerate(topology.gpus)]


def _gpu(nvml: Nvml, gpu: int, place: PciDevice | None, healthy: bool) -> Gpu:
    memory, cpus, nodes = nvml.memory(gpu), nvml.cpus(gpu), nvml.numa_nodes(gpu)
    return Gpu(
        uuid=nvml.uuid(gpu) or "",
        product=nvml.product(gpu),
        memory_mib=None if memory is None else memory.total >> 20,
        numa=_numa(nodes, place),
        cpus=None if cpus is None else format_ranges(cpus),
        healthy=healthy,
    )


def _sample(nvml: Nvml, index: int, gpu: Gpu) -> Sample:
    busy, memory = nvml.utilisation(index), nvml.memory(index)
    return Sample(
        index=index,
        uuid=gpu.uuid,
        healthy=gpu.healthy,
        utilisation=None if busy is None else busy / 100,
        memory_used=None if memory is None else memory.used,
        memory_total=None if memory is None else memory.total,
        temperature=nvml.temperature(index),
        power=nvml.power(index),
    )


def _numa(nodes: list[int] | None, place: PciDevice | None) -> int | None:
    """NVML's word first: firmware may leave the kernel without one."""
    if nodes:
        return nodes[0]
    return None if place is None else place.numa


def _or(value: int | None, other: int) -> int:
    return other if value is None else value
