"""All holdings by node and task, kept up to date by single changes; what they leave free.

A task holds what its reservation says, what its pod says, or the union of both (counted once). The operator and the extender
feed the same ledger from the same API objects, and "free" is worked out here alone, so the two cannot disagree for long.

A pod that came without muster names no GPUs, only a count: the device plugin chose and did not say. Such GPUs are assumed
where they cost least (`MachineType.leftover`), after those that are named.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.allocation.holding import Holding, Source
from muster.scheduling.resources import WHOLE, Parts, Resources
from muster.scheduling.topology.links import GpuSet, indices
from muster.scheduling.topology.machine import MachineType


class Ledger:
    """Holdings by node and task; a query costs the holdings of one node."""

    def __init__(self) -> None:
        self._by_task: dict[tuple[str, Source], Holding] = {}
        self._by_node: dict[str, dict[tuple[str, Source], Holding]] = {}

    def put(self, task: str, source: Source, holding: Holding | None) -> set[str]:
        """Record what `task` holds by the evidence of `source` (None: nothing any more); return the nodes that changed."""
        key = (task, source)
        before = self._by_task.get(key)
        if before == holding:
            return set()
        if before is not None:
            self._drop(key, before)
        if holding is not None:
            self._by_task[key] = holding
            self._by_node.setdefault(holding.node, {})[key] = holding
        return {change.node for change in (before, holding) if change is not None}

    def _drop(self, key: tuple[str, Source], holding: Holding) -> None:
        del self._by_task[key]
        on_node = self._by_node[holding.node]
        del on_node[key]
        if not on_node:
            del self._by_node[holding.node]

    def holding(self, task: str, source: Source) -> Holding | None:
        """Return what a task holds by the evidence of `source`."""
        return self._by_task.get((task, source))

    def on_node(self, node: str, but: str | None = None) -> list[tuple[str, Holding]]:
        """Return what tasks other than `but` hold on a node, each task once, by name."""
        held: dict[str, Holding] = {}
        for (task, _), holding in self._by_node.get(node, {}).items():
            if task != but:
                held[task] = held[task].joined(holding) if task in held else holding
        return sorted(held.items())

    def leaving(self, node: str) -> GpuSet:
        """Return the named GPUs that only terminating pods still hold."""
        staying = leaving = 0
        for _, holding in self.on_node(node):
            if holding.leaving:
                leaving |= holding.gpus
            else:
                staying |= holding.gpus
        return leaving & ~staying

    def free(self, node: str, machine: MachineType, healthy: GpuSet, but: str | None = None) -> GpuSet:
        """Return the healthy GPUs of a node of which no task other than `but` holds any share."""
        return unheld(machine, healthy, [holding for _, holding in self.on_node(node, but)])

    def parts(self, node: str, healthy: GpuSet) -> Parts:
        """Return the healthy GPUs that are held in part, by index, each with the thousandths that are left of it."""
        if all(holding.share >= WHOLE for holding in self._by_node.get(node, {}).values()):
            return ()  # the rule, and by far the cheaper one
        taken: dict[int, int] = {}
        for _, holding in self.on_node(node):
            for gpu in indices(holding.gpus & healthy):
                taken[gpu] = taken.get(gpu, 0) + holding.share
        return tuple((gpu, WHOLE - share) for gpu, share in sorted(taken.items()) if share < WHOLE)

    def resources(self, node: str) -> Resources:
        """Return the CPU, memory and pods that the tasks of a node hold."""
        total = Resources()
        for _, holding in self.on_node(node):
            total = total + holding.resources
        return total


def unheld(machine: MachineType, healthy: GpuSet, holdings: Iterable[Holding]) -> GpuSet:
    """Return the GPUs of `healthy` that no holding touches, unnamed GPUs assumed where they cost the machine least."""
    free, unnamed = healthy, 0
    for holding in holdings:
        free &= ~holding.gpus
        unnamed += max(0, holding.count - holding.gpus.bit_count())
    return free & ~machine.leftover(free, min(unnamed, free.bit_count()))
