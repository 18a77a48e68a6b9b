"""Machine types: the best GPUs of each free set for each request.

Nodes with the same link matrix share one MachineType, so each answer is worked out once, and scoring thousands of nodes is a
look-up. The tables fill on demand; a machine with 8 GPUs has at most 256 free sets.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import combinations

from muster.scheduling.memo import Memo
from muster.scheduling.topology.links import GpuSet, Links, bandwidth, gpu_set, indices, matrix, ring_bandwidth, uniform

EXHAUSTIVE_GPUS = 8
"""The largest free set that is searched in full; larger ones are narrowed greedily first."""
_ONE_SWITCH = ("PIX", "PXB")


class MachineType:
    """The GPUs of one kind of machine; `machine_type` creates it, and returns the same object for equal matrices."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.gpus = len(links)
        self.all = (1 << self.gpus) - 1
        self._switches = [
            gpu_set([j for j in range(self.gpus) if i == j or row[j] in _ONE_SWITCH]) for i, row in enumerate(links)
        ]
        self._speeds = [[bandwidth(link) for link in row] for row in links]
        self._uniform = len({link for i, row in enumerate(links) for link in row[:i]}) < 2
        self._rings: Memo[GpuSet, float] = Memo(partial(ring_bandwidth, links))
        self._fastest: Memo[tuple[GpuSet, int], GpuSet] = Memo(lambda request: self._search(*request, fast=True))
        self._leftover: Memo[tuple[GpuSet, int], GpuSet] = Memo(lambda request: self._search(*request, fast=False))

    def ring(self, gpus: GpuSet) -> float:
        """Return the GB/s of the best ring through `gpus`."""
        return self._rings[gpus]

    def fastest(self, free: GpuSet, count: int) -> GpuSet:
        """Return the `count` GPUs of `free` with the fastest ring; among equals, those that leave the others most useful.

        This is the choice for jobs that are sensitive to locality, `leftover` that for all others.
        """
        return self._fastest[free, count]

    def leftover(self, free: GpuSet, count: int) -> GpuSet:
        """Return the `count` GPUs of `free` that leave the others most useful to sensitive jobs; among equals, the slowest."""
        return self._leftover[free, count]

    def speed(self, free: GpuSet, count: int) -> float:
        """Return the GB/s of the best ring of `count` GPUs of `free`."""
        return self._rings[self._fastest[free, count]]

    def score(self, free: GpuSet, count: int) -> float:
        """Return the speed of the best ring of `count` GPUs of `free` compared with the machine's best, 0 to 1."""
        if count < 2:
            return 1.0
        return self.speed(free, count) / self.speed(self.all, count)

    def usefulness(self, free: GpuSet) -> float:
        """Return the sum of GB/s over all pairs of `free`: what the set still offers to jobs that need links."""
        members = indices(free)
        return sum(self._speeds[a][b] for a in members for b in members if a < b)

    def switched(self, gpus: GpuSet) -> GpuSet:
        """Return the GPUs under the same PCIe switches as `gpus`, these included."""
        for gpu in indices(gpus):
            gpus |= self._switches[gpu]
        return gpus

    def _search(self, free: GpuSet, count: int, *, fast: bool) -> GpuSet:
        if not 0 <= count <= free.bit_count():
            raise ValueError(f"asked for {count} GPUs of a free set of {free.bit_count()}")
        if count in (0, free.bit_count()):
            return free if count else 0

        def worth(gpus: GpuSet) -> tuple[float, ...]:
            ring, inside, outside = self.ring(gpus), self.usefulness(gpus), self.usefulness(free & ~gpus)
            return (ring, inside, outside, -gpus) if fast else (outside, -ring, -inside, -gpus)

        return max(self._candidates(free, count), key=worth)

    def _candidates(self, free: GpuSet, count: int) -> list[GpuSet]:
        members = indices(free)
        if self._uniform:
            return [gpu_set(members[:count])]  # all sets are alike, so the first one it is
        if len(members) <= EXHAUSTIVE_GPUS:
            return [gpu_set(chosen) for chosen in combinations(members, count)]
        return [self._grown(start, free, count) for start in members]

    def _grown(self, start: int, free: GpuSet, count: int) -> GpuSet:
        """The set that grows from `start`, each time by the GPU with the most bandwidth to the set."""
        grown = 1 << start
        while grown.bit_count() < count:
            inside, outside = indices(grown), indices(free & ~grown)
            grown |= 1 << max(outside, key=lambda g: (sum(self._speeds[g][i] for i in inside), -g))
        return grown


@lru_cache(maxsize=256)
def _compiled(links: Links) -> MachineType:
    return MachineType(links)


def machine_type(links: list[list[str]] | Links) -> MachineType:
    """Return the machine type with this link matrix; raise BadLinks if no machine can have it."""
    return _compiled(matrix(links))


def unknown_machine(gpus: int) -> MachineType:
    """Return the type assumed for a node without reported links: every path crosses the sockets."""
    return _compiled(uniform(gpus))
