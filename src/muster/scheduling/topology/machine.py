"""A machine type: a link matrix, and from it the best GPUs for each free set and request.

Nodes with the same matrix share one MachineType, so what is worked out for one serves all: scoring thousands of nodes is a
look-up. The table is filled as it is asked; a machine with 8 GPUs has at most 256 free sets.

Two ways to choose from a free set: `fastest`, for a job that is sensitive to locality, takes the set with the best ring;
`leftover`, for one that is not, takes what leaves the rest most useful to the sensitive jobs still to come.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

from muster.scheduling.topology.links import (
    GpuSet,
    Links,
    bandwidth,
    gpu_set,
    indices,
    matrix,
    ring_bandwidth,
    uniform,
)

EXHAUSTIVE_GPUS = 8
"""Free sets up to this size are searched in full; larger ones are narrowed greedily first."""
_ONE_SWITCH = ("PIX", "PXB")


class MachineType:
    """The GPUs of one kind of machine; create through `machine_type`, which gives equal matrices the same object."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.gpus = len(links)
        self.all = (1 << self.gpus) - 1
        self._switches = [
            gpu_set([j for j in range(self.gpus) if i == j or row[j] in _ONE_SWITCH]) for i, row in enumerate(links)
        ]
        self._rings: dict[GpuSet, float] = {}
        self._fastest: dict[tuple[GpuSet, int], GpuSet] = {}
        self._leftover: dict[tuple[GpuSet, int], GpuSet] = {}

    def ring(self, gpus: GpuSet) -> float:
        """GB/s of the best ring through `gpus`."""
        found = self._rings.get(gpus)
        if found is None:
            found = self._rings[gpus] = ring_bandwidth(self.links, gpus)
        return found

    def fastest(self, free: GpuSet, count: int) -> GpuSet:
        """The `count` GPUs of `free` with the fastest ring; among equals the one that leaves the rest most useful."""
        found = self._fastest.get((free, count))
        if found is None:
            found = self._fastest[free, count] = self._search(free, count, fast=True)
        return found

    def leftover(self, free: GpuSet, count: int) -> GpuSet:
        """The `count` GPUs of `free` whose loss leaves the rest most useful; among equals the slowest."""
        found = self._leftover.get((free, count))
        if found is None:
            found = self._leftover[free, count] = self._search(free, count, fast=False)
        return found

    def speed(self, free: GpuSet, count: int) -> float:
        """GB/s of the best ring of `count` GPUs of `free`."""
        return self.ring(self.fastest(free, count))

    def score(self, free: GpuSet, count: int) -> float:
        """How good the best ring of `count` GPUs in `free` is, from 0 to 1, beside the best that the machine has."""
        if count < 2:
            return 1.0
        return self.speed(free, count) / self.speed(self.all, count)

    def usefulness(self, free: GpuSet) -> float:
        """GB/s between all pairs of `free`, summed: what the set still offers to jobs with links to fill."""
        members = indices(free)
        return sum(bandwidth(self.links[a][b]) for a in members for b in members if a < b)

    def switched(self, gpus: GpuSet) -> GpuSet:
        """The GPUs under the same PCIe switches as `gpus`, these included."""
        found = gpus
        for gpu in indices(gpus):
            found |= self._switches[gpu]
        return found

    def _search(self, free: GpuSet, count: int, *, fast: bool) -> GpuSet:
        if not 0 <= count <= free.bit_count():
            raise ValueError(f"asked for {count} GPUs of a free set of {free.bit_count()}")
        if count in (0, free.bit_count()):
            return free if count else 0

        def worth(gpus: GpuSet) -> tuple[float, ...]:
            ring, rest = self.ring(gpus), self.usefulness(free & ~gpus)
            inside = self.usefulness(gpus)
            return (ring, inside, rest, -gpus) if fast else (rest, -ring, -inside, -gpus)

        return max(self._candidates(free, count), key=worth)

    def _candidates(self, free: GpuSet, count: int) -> list[GpuSet]:
        members = indices(free)
        if len(members) <= EXHAUSTIVE_GPUS:
            return [gpu_set(chosen) for chosen in combinations(members, count)]
        return [self._grown(start, free, count) for start in members]

    def _grown(self, start: int, free: GpuSet, count: int) -> GpuSet:
        """The set that grows from `start` by the GPU with the most bandwidth to those already in it."""
        grown = 1 << start
        while grown.bit_count() < count:
            inside = indices(grown)
            outside = indices(free & ~grown)
            grown |= 1 << max(outside, key=lambda g: (sum(bandwidth(self.links[g][i]) for i in inside), -g))
        return grown


@lru_cache(maxsize=256)
def _compiled(links: Links) -> MachineType:
    return MachineType(links)


def machine_type(links: list[list[str]] | Links) -> MachineType:
    """Return the machine type with this link matrix; raise BadLinks where no machine can have it."""
    return _compiled(matrix(links))


def unknown_machine(gpus: int) -> MachineType:
    """Return the type assumed for a node whose links nobody has reported: every way through the system."""
    return _compiled(uniform(gpus))
