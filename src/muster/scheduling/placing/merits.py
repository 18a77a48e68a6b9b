"""How good nodes and layouts are for a gang: what a search compares; less is better.

`of_node` orders nodes, `of_layout` layouts. A layout is the number of tasks of each batch on each node.
"""

from __future__ import annotations

from collections.abc import Callable

from muster.scheduling.gang import Gang
from muster.scheduling.placing.batches import Batches, Counts, FillKey, NodeKey
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.profile import Shape
from muster.scheduling.speed.shapes import shape_of
from muster.scheduling.topology.links import UNLIMITED, GpuSet

Rate = Callable[[Gang, Shape], float]
"""The expected rate of a gang in a shape; only the order of the results counts."""
Layout = dict[str, Counts]
"""The tasks of each batch on each node."""


class Merits:
    """The merits of nodes and layouts for the tasks of a gang."""

    def __init__(
        self, gang: Gang, batches: Batches, capacity: FreeCapacity, fragmentation: Fragmentation | None, rate: Rate | None
    ) -> None:
        self._gang, self._batches, self._capacity, self.fragmentation = gang, batches, capacity, fragmentation
        self._spread = gang.spread
        self.by_speed = gang.sensitive and not gang.spread and not batches.parts
        """Whether the fastest nodes are the best. On a node, every sensitive gang gets the fastest GPUs."""
        self.rate = rate if self.by_speed else None
        preferences = map(capacity.fleet.preference.__getitem__, {ask.where for ask in batches.asks})
        self.preferences = [preference for preference in preferences if preference]
        self.common_key: NodeKey | None = None
        """The key of all nodes, if they have the same."""
        hardware = capacity.fleet.uniform_hardware if self.rate else ("", UNLIMITED)
        if hardware and not self.preferences and (fragmentation is None or fragmentation.uniform):
            self.common_key = NodeKey(*hardware, fragmentation.everything if fragmentation else 0)

    def of_layout(self, layout: Layout) -> tuple[float, ...]:
        """The merit of a whole layout; less is better."""
        capacity, whole = self._capacity, self._batches.whole
        if self.rate:
            gpus = {name: gpus for name, counts in layout.items() if (gpus := self.chosen(name, counts))}
            shape = shape_of(gpus, capacity.nodes)
            return (-self.rate(self._gang, shape), len(shape.counts), -self._liking(layout))
        if self.by_speed:
            return (sum(whole(counts) > 0 for counts in layout.values()), -self.slowest_ring(layout), -self._liking(layout))
        if self.fragmentation:
            growth, load = self.fragmentation.growth, self._batches.load
            grown = (growth(capacity.state(name), self.key(name).admits, load(counts)) for name, counts in layout.items())
            return (len(layout), -self._liking(layout), sum(grown))
        spare = sum(capacity.free[name].bit_count() - whole(counts) for name, counts in layout.items())
        return (len(layout), -self._liking(layout), spare)

    def _liking(self, layout: Layout) -> int:
        """How much its tasks prefer the nodes of a layout."""
        if not self.preferences:
            return 0
        return sum(self.preference(name) * sum(counts) for name, counts in layout.items())

    def preference(self, name: str) -> int:
        return sum(preference.get(name, 0) for preference in self.preferences)

    def slowest_ring(self, layout: Layout) -> float:
        nodes = self._capacity.nodes
        return min(nodes[name].machine.ring(self.chosen(name, counts)) for name, counts in layout.items())

    def key(self, name: str) -> NodeKey:
        if self.common_key:
            return self.common_key
        node = self._capacity.nodes[name]
        model, nic_gbps = (node.model, node.nic_gbps) if self.rate else ("", UNLIMITED)
        return NodeKey(model, nic_gbps, self.fragmentation.admits(name) if self.fragmentation else 0, self.preference(name))

    def of_node(self, key: FillKey, counts: Counts, *, complete: bool) -> tuple[float, ...]:
        """How well a node suits this many tasks, less is better: nodes that take all of them first, then those of most GPUs."""
        state, node, *_ = key
        gpus = self._batches.whole(counts)
        spare = state.free.bit_count() - gpus
        if self._spread:
            return (-node.preference, -spare)
        # by fragmentation, ties go to the first name: nodes fill in one order, and others of each kind stay empty
        waste = self.fragmentation.growth(state, node.admits, self._batches.load(counts)) if self.fragmentation else spare
        if not complete:
            return (1.0, -gpus, -node.preference, waste)
        ring = state.machine.speed(state.free, gpus)
        if not self.by_speed:
            return (0.0, -node.preference, waste, spare, ring)
        slowness = -self.rate(self._gang, Shape(node.model, (gpus,), ring)) if self.rate else -ring
        return (0.0, slowness, -node.preference, waste, spare)

    def chosen(self, name: str, counts: Counts) -> GpuSet:
        """The whole GPUs of a node that this many tasks get."""
        machine, free = self._capacity.nodes[name].machine, self._capacity.free[name]
        return (machine.fastest if self._gang.sensitive else machine.leftover)(free, self._batches.whole(counts))
