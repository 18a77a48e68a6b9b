"""Amounts of what a node has beside whole GPUs: CPU in milli-cores, memory in bytes, pods, and parts of GPUs in thousandths."""

from __future__ import annotations

from typing import NamedTuple


class Resources(NamedTuple):
    """Amounts of what a node has beside GPUs."""

    cpu: int = 0
    memory: int = 0
    pods: int = 0

    def __add__(self, other: Resources) -> Resources:  # type: ignore[override]  # amounts, not tuples
        return Resources(self.cpu + other.cpu, self.memory + other.memory, self.pods + other.pods)

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.cpu - other.cpu, self.memory - other.memory, self.pods - other.pods)

    def times(self, number: int) -> Resources:
        return Resources(self.cpu * number, self.memory * number, self.pods * number)

    def covers(self, other: Resources) -> bool:
        return self.cpu >= other.cpu and self.memory >= other.memory and self.pods >= other.pods

    def holds(self, each: Resources, most: int) -> int:
        """How often there is what one needs, if not more than `most` times."""
        (cpu, memory, pods), (its_cpu, its_memory, its_pods) = self, each
        if cpu < its_cpu or memory < its_memory or pods < its_pods:
            return 0
        if most * its_cpu > cpu:
            most = cpu // its_cpu
        if most * its_memory > memory:
            most = memory // its_memory
        return pods // its_pods if most * its_pods > pods else most


PLENTY = Resources(1 << 62, 1 << 62, 1 << 62)
NOTHING = Resources()
ONE_POD = Resources(pods=1)


WHOLE = 1000
"""A GPU has a thousand parts."""
Parts = tuple[tuple[int, int], ...]
"""GPUs that are shared out in parts, by index, each with the thousandths of it that are free; those without are left out."""
