"""The link matrix of a node's GPUs in the notation of `nvidia-smi topo -m`, from NVML's data on GPUs and pairs.

NVML has no call for the matrix. A pair's link is NV<n> if n active NVLinks connect the two GPUs directly, or if the GPUs reach
each other through NVSwitches with n links each; otherwise it is the nearest common ancestor on PCIe. Invariant: the matrix is
square and symmetric, with X on its diagonal.

The rule for switches is derived from NVML's semantics and recorded outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from muster_agent.nvml import NvLink, Remote

ANCESTORS: Final = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""Link names by NVML_TOPOLOGY_* value; 0 is two GPUs on one board, behind its bridge."""


@dataclass(frozen=True)
class GpuLinks:
    """One GPU's PCI address and active NVLinks; None if the driver does not report them."""

    address: str | None
    nvlinks: Sequence[NvLink] | None


Pcie = Callable[[int, int], str]
Reaches = Callable[[int, int], bool | None]


def link_matrix(gpus: Sequence[GpuLinks], reaches: Reaches, pcie: Pcie) -> list[list[str]]:
    """Return the matrix; `reaches(i, j)` is NVLink access between two GPUs, `pcie(i, j)` the name of their PCIe link."""
    size = len(gpus)
    matrix = [["X"] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1, size):
            links = _direct(gpus[i], gpus[j])
            if not links and (switched := min(_links_to_switches(gpus[i]), _links_to_switches(gpus[j]))):
                links = switched if reaches(i, j) else 0
            matrix[i][j] = matrix[j][i] = f"NV{links}" if links else pcie(i, j)
    return matrix


def _direct(a: GpuLinks, b: GpuLinks) -> int:
    """The number of NVLinks between two GPUs: the minimum of both ends' counts, or the only available one."""
    counts = [_links_to(links, peer) for links, peer in ((a.nvlinks, b.address), (b.nvlinks, a.address))]
    return min((count for count in counts if count is not None), default=0)


def _links_to(links: Sequence[NvLink] | None, address: str | None) -> int | None:
    if links is None or address is None or any(link.address is None for link in links):
        return None
    return sum(link.address == address for link in links)


def _links_to_switches(gpu: GpuLinks) -> int:
    return sum(link.remote is Remote.SWITCH for link in gpu.nvlinks or ())
