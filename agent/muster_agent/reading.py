"""One reading of a node: its topology and its metric samples, from NVML and /sys.

Invariant: a GPU keeps its index as long as the driver counts it, whatever else fails. Samples use the base units of Prometheus
(bytes, watts, degrees Celsius, ratios from 0 to 1).
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
    """The current values of one GPU; None if the driver does not report a value."""

    index: int
    uuid: str
    healthy: bool
    utilisation: float | None
    memory_used: int | None
    memory_total: int | None
    temperature: float | None
    power: float | None


def read_topology(nvml: Nvml, sysfs: Path, unhealthy: Collection[int] = ()) -> NodeTopology:
    """Return the node's GPUs, their links, and the NICs with their links to each GPU; `sysfs` is the path of /sys."""
    gpus = range(nvml.count() or 0)
    addresses = [nvml.address(gpu) for gpu in gpus]
    devices = [find_gpu(sysfs, address) if address else None for address in addresses]
    one_node = single_numa_node(sysfs)

    def pcie(a: int, b: int) -> str:
        # Some drivers do not report the ancestor; /sys has the same tree.
        return ANCESTORS.get(_or(nvml.common_ancestor(a, b), -1)) or pcie_link(devices[a], devices[b], one_node)

    ends = [GpuLinks(address, nvml.nvlinks(gpu)) for gpu, address in zip(gpus, addresses, strict=True)]
    return NodeTopology(
        gpus=[_gpu(nvml, gpu, devices[gpu], gpu not in unhealthy) for gpu in gpus],
        links=link_matrix(ends, nvml.reaches_by_nvlink, pcie),
        nics=[Nic(name, [pcie_link(nic, device, one_node) for device in devices]) for name, nic in find_nics(sysfs).items()],
        driver=nvml.driver(),
    )


def read_samples(nvml: Nvml, topology: NodeTopology) -> list[Sample]:
    """Return the current sample of each GPU of the topology."""
    return [_sample(nvml, index, gpu) for index, gpu in enumerate(topology.gpus)]


def _gpu(nvml: Nvml, gpu: int, device: PciDevice | None, healthy: bool) -> Gpu:
    memory, cpus, nodes = nvml.memory(gpu), nvml.cpus(gpu), nvml.numa_nodes(gpu)
    return Gpu(
        uuid=nvml.uuid(gpu) or "",
        product=nvml.product(gpu),
        memory_mib=None if memory is None else memory.total >> 20,
        numa=_numa(nodes, device),
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


def _numa(nodes: list[int] | None, device: PciDevice | None) -> int | None:
    """The NUMA node from NVML, else from the kernel, which some firmware does not inform."""
    if nodes:
        return nodes[0]
    return None if device is None else device.numa


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
