"""The links between the GPUs of one machine, and the bandwidth of the best ring through a set of GPUs.

A link matrix is what `nvidia-smi topo -m` prints for the GPUs: NV<n> is a bond of n NVLinks; PIX, PXB, PHB, NODE and SYS name
the farthest hop of the PCIe path. Collectives run in rings, and a ring is as fast as its slowest hop, so a set of GPUs is worth
the bottleneck of its best ring, in GB/s.

The bandwidths follow NCCL's tuning constants (src/graph/topo.h): about 20 GB/s per NVLink, 12 for PCIe gen 3 x16, 6 to 10
across sockets. NCCL gives all PCIe paths within a socket the same bandwidth; here each further bridge costs 1 GB/s, since
neighbours contend for shared bridges.
"""

from __future__ import annotations

import re
from functools import reduce
from operator import or_

GpuSet = int
Links = tuple[tuple[str, ...], ...]

MOST_GPUS = 64
"""The most GPUs of one node. Machines have up to 16; a link matrix takes the square of it, and placing up to its cube."""
EXACT_RING_GPUS = 10
"""The largest set whose best ring is searched in full, in 50 ms; each further GPU doubles that."""
GBPS_PER_NVLINK = 20.0
GBPS = {"PIX": 12.0, "PXB": 11.0, "PHB": 10.0, "NODE": 9.0, "SYS": 6.0}
_OLD_NAMES = {"SOC": "SYS"}
_NVLINK = re.compile(r"NV[1-9][0-9]?", re.ASCII)
"""Up to 99 NVLinks; today's GPUs have 18."""
UNLIMITED = float("inf")
"""The bandwidth of a single GPU: no link limits it."""


class BadLinks(ValueError):
    """A link matrix that no machine has: an unknown link name, a row of the wrong length, or a misplaced X."""


def canonical(link: str) -> str:
    """Return today's name of a link ("SOC" is "SYS"); raise BadLinks for an unknown name."""
    link = _OLD_NAMES.get(link, link)
    if link == "X" or link in GBPS or _NVLINK.fullmatch(link):
        return link
    raise BadLinks(f"{link[:20]!r} is no GPU link; expected X, NV1 to NV99 or one of {', '.join(GBPS)}")


def matrix(rows: list[list[str]] | Links) -> Links:
    """Return the link matrix with today's names; raise BadLinks unless it is square, with X exactly on the diagonal."""
    _check_size(len(rows))
    links = tuple(tuple(canonical(cell) for cell in row) for row in rows)
    for i, row in enumerate(links):
        if len(row) != len(links):
            raise BadLinks(f"row {i} of the link matrix has {len(row)} cells, expected {len(links)}")
        for j, cell in enumerate(row):
            if (cell == "X") != (i == j):
                raise BadLinks(f"cell {i},{j} of the link matrix is {cell!r}; X belongs on the diagonal, and only there")
    return links


def uniform(size: int, link: str = "SYS") -> Links:
    """Return a matrix with the same link between all GPUs: the assumption for machines without an agent's report."""
    _check_size(size)
    return tuple(tuple("X" if i == j else link for j in range(size)) for i in range(size))


def _check_size(gpus: int) -> None:
    if gpus > MOST_GPUS:
        raise BadLinks(f"{gpus} GPUs are more than the {MOST_GPUS} that muster plans with on one node")


def bandwidth(link: str) -> float:
    """Return the GB/s between two GPUs joined by `link`."""
    if link == "X":
        return UNLIMITED
    return GBPS_PER_NVLINK * int(link[2:]) if link.startswith("NV") else GBPS[link]


def indices(gpus: GpuSet) -> tuple[int, ...]:
    """Return the GPUs of a set by index, ascending."""
    return tuple(i for i in range(gpus.bit_length()) if gpus >> i & 1)


def gpu_set(gpus: list[int] | tuple[int, ...] | range) -> GpuSet:
    """Return the set of the GPUs with these indices."""
    return reduce(or_, [1 << gpu for gpu in gpus], 0)


def ring_bandwidth(links: Links, gpus: GpuSet) -> float:
    """Return the GB/s of the slowest hop of the best ring through `gpus`; UNLIMITED for fewer than two.

    Exact for up to EXACT_RING_GPUS, by dynamic programming over the subsets (Held and Karp, 1962, with min in place of sum):
    O(2^n n^2). For more it is an upper bound, which rings reach in machines as they are built.
    """
    members = indices(gpus)
    if len(members) < 2:
        return UNLIMITED
    speeds = [[bandwidth(links[a][b]) for b in members] for a in members]
    if len(members) == 2 or len({speeds[i][j] for i in range(len(members)) for j in range(i)}) == 1:
        return speeds[0][1]
    return _best_cycle(speeds) if len(members) <= EXACT_RING_GPUS else _fastest_joined(speeds)


def _fastest_joined(speeds: list[list[float]]) -> float:
    """The highest speed at which each GPU reaches two others and all are connected; no ring is faster."""
    size = len(speeds)
    for speed in sorted({speeds[i][j] for i in range(size) for j in range(i)}, reverse=True):
        neighbours = [gpu_set([j for j in range(size) if j != i and row[j] >= speed]) for i, row in enumerate(speeds)]
        if all(near.bit_count() >= 2 for near in neighbours) and _are_connected(neighbours):
            return speed
    return 0.0  # not reached: at the lowest speed each GPU reaches all others


def _are_connected(neighbours: list[GpuSet]) -> bool:
    reached, new = 1, 1
    while new:
        new = reduce(or_, [neighbours[gpu] for gpu in indices(new)]) & ~reached
        reached |= new
    return reached.bit_count() == len(neighbours)


def _best_cycle(speeds: list[list[float]]) -> float:
    size = len(speeds)
    best: list[list[float]] = [[0.0] * size for _ in range(1 << size)]
    best[1][0] = UNLIMITED
    for visited in range(1, 1 << size, 2):  # every ring is entered at GPU 0
        for last in indices(visited):
            so_far = best[visited][last]
            if so_far == 0.0:
                continue
            for step in range(1, size):
                if not visited >> step & 1:
                    longer = visited | 1 << step
                    best[longer][step] = max(best[longer][step], min(so_far, speeds[last][step]))
    return max(min(best[-1][last], speeds[last][0]) for last in range(1, size))
