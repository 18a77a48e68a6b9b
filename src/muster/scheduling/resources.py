"""What a node has besides whole GPUs: CPU in milli-cores, memory in bytes, pods, and parts of GPUs in thousandths."""

from __future__ import annotations

from typing import NamedTuple


class Resources(NamedTuple):
    """Amounts of everything but GPUs."""

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
        """Return how many times `each` fits in, up to `most`."""
        (cpu, memory, pods), (each_cpu, each_memory, each_pods) = self, each
        if cpu < each_cpu or memory < each_memory or pods < each_pods:
            return 0
        if most * each_cpu > cpu:
            most = cpu // each_cpu
        if most * each_memory > memory:
            most = memory // each_memory
        return pods // each_pods if most * each_pods > pods else most


PLENTY = Resources(1 << 62, 1 << 62, 1 << 62)
NOTHING = Resources()
ONE_POD = Resources(pods=1)
WHOLE = 1000
"""The thousandths of one GPU."""
Parts = tuple[tuple[int, int], ...]
"""The index and the free thousandths of each shared GPU that has any left."""
