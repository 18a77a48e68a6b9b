"""What a node has besides whole GPUs: CPU in milli-cores, memory in bytes, pods, others by name, thousandths of GPUs."""

from __future__ import annotations

from typing import Final, NamedTuple

Amounts = tuple[tuple[str, int], ...]
"""Amounts by name, in order of names, none of them 0."""
HOST_PORT: Final = "host port "
"""A port of the node's own, "host port TCP/8080", is a resource of which every node has one. Nodes do not list them."""
AT: Final = " at "
"""A port of one address only, "host port TCP/8080 at 10.0.0.1": the port of all addresses takes each of these, and they it."""


class Resources(NamedTuple):
    """Amounts of everything but GPUs."""

    cpu: int = 0
    memory: int = 0
    pods: int = 0
    others: Amounts = ()
    """Ephemeral storage, huge pages, devices of other plugins, host ports."""

    def __add__(self, other: Resources) -> Resources:  # type: ignore[override]  # amounts, not tuples
        others = _sum(self.others, other.others, 1) if other.others else self.others
        return Resources(self.cpu + other.cpu, self.memory + other.memory, self.pods + other.pods, others)

    def __sub__(self, other: Resources) -> Resources:
        others = _sum(self.others, other.others, -1) if other.others else self.others
        return Resources(self.cpu - other.cpu, self.memory - other.memory, self.pods - other.pods, others)

    def times(self, number: int) -> Resources:
        others = _sum((), self.others, number) if self.others else ()
        return Resources(self.cpu * number, self.memory * number, self.pods * number, others)

    def union(self, other: Resources) -> Resources:
        """Return the larger of each amount."""
        mine, others = dict(self.others), dict(other.others)
        largest = tuple((name, max(mine.get(name, 0), others.get(name, 0))) for name in sorted({*mine, *others}))
        cpu, memory, pods = map(max, self[:3], other[:3])
        return Resources(cpu, memory, pods, largest)

    def asked(self) -> Amounts:
        """Return every amount by name, without those that are 0."""
        counted = (("cpu", self.cpu), ("memory", self.memory), ("pods", self.pods))
        return (*((name, amount) for name, amount in counted if amount), *self.others)

    def left(self, name: str) -> int:
        """Return how much is left of any resource."""
        counted = {"cpu": self.cpu, "memory": self.memory, "pods": self.pods}
        return counted[name] if name in counted else self.room(name)

    def room(self, name: str) -> int:
        """Return how much of a resource is left, of those by name; less than nothing where pods have taken too much."""
        if name.startswith(HOST_PORT):
            return 1 + sum(amount for other, amount in self.others if _same_port(name, other))
        return next((amount for other, amount in self.others if other == name), 0)

    def covers(self, other: Resources) -> bool:
        return self.holds(other, 1) == 1

    def holds(self, each: Resources, most: int) -> int:
        """Return how many times `each` fits in, up to `most`."""
        (cpu, memory, pods, _), (each_cpu, each_memory, each_pods, others) = self, each
        if (cpu < each_cpu and each_cpu) or (memory < each_memory and each_memory) or pods < each_pods:
            return 0  # of what is not asked for, a node may have less than nothing left
        for name, amount in others:
            most = min(most, max(0, self.room(name)) // amount)
        if most * each_cpu > cpu and each_cpu:
            most = cpu // each_cpu
        if most * each_memory > memory and each_memory:
            most = memory // each_memory
        return pods // each_pods if most * each_pods > pods else most


def _same_port(one: str, other: str) -> bool:
    """Say whether two host ports cannot both be had, by their names."""
    return one == other or one.startswith(f"{other}{AT}") or other.startswith(f"{one}{AT}")


def _sum(before: Amounts, change: Amounts, times: int) -> Amounts:
    """Add amounts so many times."""
    amounts = dict(before)
    for name, amount in change:
        amounts[name] = amounts.get(name, 0) + times * amount
    return tuple(sorted((name, amount) for name, amount in amounts.items() if amount))


PLENTY = Resources(1 << 62, 1 << 62, 1 << 62)
NOTHING = Resources()
ONE_POD = Resources(pods=1)
WHOLE = 1000
"""The thousandths of one GPU."""
Parts = tuple[tuple[int, int], ...]
"""The index and the free thousandths of each shared GPU that has any left."""
