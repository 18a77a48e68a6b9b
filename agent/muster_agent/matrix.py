"""The link matrix of a node's GPUs, as `nvidia-smi topo -m` prints it, from what NVML says of single GPUs and pairs.

NVML has no call for the matrix. A pair's link is NV<n> where n active NVLinks lead from one GPU to the other, or where
all of a GPU's links lead to NVSwitches and the pair can reach one another through them; else the nearest thing on the
PCIe way. Invariant: the matrix is square and symmetric, X on its diagonal.

The rule for switches follows from NVML's semantics and known printouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from muster_agent.nvml import NvLink, Remote

ANCESTORS: Final = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""The words for NVML_TOPOLOGY_*; 0 is two GPUs on one board, behind its bridge."""


@dataclass(frozen=True)
class GpuLinks:
    """One GPU's PCI address and active NVLinks; None where the driver would not tell."""

    address: str | None
    nvlinks: Sequence[NvLink] | None


Pcie = Callable[[int, int], str]
Reaches = Callable[[int, int], bool | None]


def link_matrix(gpus: Sequence[GpuLinks], reaches: Reaches, pcie: Pcie) -> list[list[str]]:
    """Return the matrix; `reaches(i, j)` tells of NVLink access between GPUs, `pcie(i, j)` names the PCIe way."""
    size = len(gpus)
    matrix = [["X"] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1, size):
            links = _direct(gpus[i], gpus[j])
            if not links and (switched := min(_to_switches(gpus[i]), _to_switches(gpus[j]))):
                links = switched if reaches(i, j) else 0
            matrix[i][j] = matrix[j][i] = f"NV{links}" if links else pcie(i, j)
    return matrix


def _direct(a: GpuLinks, b: GpuLinks) -> int:
    """Count the NVLinks between two GPUs as both ends see them; one end's word is taken where the other is silent."""
    seen = [_towards(links, other) for links, other in ((a.nvlinks, b.address), (b.nvlinks, a.address))]
    return min((count for count in seen if count is not None), default=0)


def _towards(links: Sequence[NvLink] | None, address: str | None) -> int | None:
    if links is None or address is None or any(link.address is None for link in links):
        return None
    return sum(link.address == address for link in links)


def _to_switches(gpu: GpuLinks) -> int:
    return sum(link.remote is Remote.SWITCH for link in gpu.nvlinks or ())
