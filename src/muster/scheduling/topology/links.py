"""The links between the GPUs of one machine, and what a set of GPUs is worth to a job that trains on it.

A link matrix is what `nvidia-smi topo -m` prints for the GPUs: NV<n> is a bond of n NVLinks, the other names tell the
farthest thing on the PCIe way between two GPUs (PIX, PXB, PHB, NODE, SYS). Collectives run in rings, and a ring is as fast
as its slowest hop, so the worth of a set is the bottleneck of the best ring through it, in GB/s.

The bandwidths follow NCCL's tuning constants (src/graph/topo.h): about 20 GB/s an NVLink, 12 a PCIe gen 3 x16 way, 6 to 10
across sockets. NCCL gives all PCIe ways of one socket the same figure; here each bridge more costs 1 GB/s, since a shared
bridge is what neighbours contend for.
"""

from __future__ import annotations

GpuSet = int
Links = tuple[tuple[str, ...], ...]

GBPS_PER_NVLINK = 20.0
GBPS = {"PIX": 12.0, "PXB": 11.0, "PHB": 10.0, "NODE": 9.0, "SYS": 6.0}
_OLD_NAMES = {"SOC": "SYS"}
UNLIMITED = float("inf")
"""The worth of a single GPU: no link limits it."""


class BadLinks(ValueError):
    """A link matrix that no machine has: a word that names no link, or rows of the wrong length."""


def canonical(link: str) -> str:
    """Return today's name of a link ("SOC" is "SYS"); raise BadLinks for a word that names none."""
    link = _OLD_NAMES.get(link, link)
    if link == "X" or link in GBPS or (link.startswith("NV") and link[2:].isdecimal()):
        return link
    raise BadLinks(f"{link!r} is no GPU link; expected X, NV<n> or one of {', '.join(GBPS)}")


def matrix(rows: list[list[str]] | Links) -> Links:
    """Return the link matrix with today's names; raise BadLinks unless it is square and X on its diagonal only."""
    size = len(rows)
    links = tuple(tuple(canonical(cell) for cell in row) for row in rows)
    for i, row in enumerate(links):
        if len(row) != size:
            raise BadLinks(f"row {i} of the link matrix has {len(row)} cells, expected {size}")
        for j, cell in enumerate(row):
            if (cell == "X") != (i == j):
                raise BadLinks(f"cell {i},{j} of the link matrix is {cell!r}; X belongs on the diagonal, and only there")
    return links


def uniform(size: int, link: str = "SYS") -> Links:
    """Return the matrix of a machine whose GPUs are all joined by `link`: what is assumed where no agent has reported."""
    return tuple(tuple("X" if i == j else link for j in range(size)) for i in range(size))


def bandwidth(link: str) -> float:
    """GB/s between two GPUs joined by `link`."""
    if link == "X":
        return UNLIMITED
    return GBPS_PER_NVLINK * int(link[2:]) if link.startswith("NV") else GBPS[link]


def indices(gpus: GpuSet) -> tuple[int, ...]:
    """The GPUs of a set by index, ascending."""
    return tuple(i for i in range(gpus.bit_length()) if gpus >> i & 1)


def gpu_set(gpus: list[int] | tuple[int, ...] | range) -> GpuSet:
    """The set of the GPUs with these indices."""
    bits = 0
    for gpu in gpus:
        bits |= 1 << gpu
    return bits


def ring_bandwidth(links: Links, gpus: GpuSet) -> float:
    """GB/s of the slowest hop of the best ring through `gpus`; ALONE for fewer than two.

    Exact, by dynamic programming over the subsets (Held and Karp, 1962, with min in place of sum): O(2^n n^2).
    """
    members = indices(gpus)
    if len(members) < 2:
        return UNLIMITED
    speeds = [[bandwidth(links[a][b]) for b in members] for a in members]
    if len(members) == 2:
        return speeds[0][1]
    if len({speeds[i][j] for i in range(len(members)) for j in range(i)}) == 1:
        return speeds[0][1]
    return _best_cycle(speeds)


def _best_cycle(speeds: list[list[float]]) -> float:
    size = len(speeds)
    best: list[list[float]] = [[0.0] * size for _ in range(1 << size)]
    best[1][0] = UNLIMITED
    for visited in range(1, 1 << size, 2):  # every ring is entered at GPU 0
        for last in indices(visited):
            here = best[visited][last]
            if here == 0.0:
                continue
            for step in range(1, size):
                if not visited >> step & 1:
                    there = visited | 1 << step
                    best[there][step] = max(best[there][step], min(here, speeds[last][step]))
    whole = best[-1]
    return max(min(whole[last], speeds[last][0]) for last in range(1, size))
