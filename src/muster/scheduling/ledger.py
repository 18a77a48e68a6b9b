"""Who holds which GPUs of which node, kept up to date by single changes.

A task holds what a reservation gives it, what its pod was given, or both (then once). Operator and extender feed the same
ledger from what the API server tells them: a reservation when a placement is written, a pod when it is bound or pinned. It is
the one place where "free" is worked out, so the two cannot disagree for long: each sees the same objects.

A pod that came without muster names no GPUs, only a count. The device plugin chose for it and did not say what; it is taken
to sit where it hurts least (`MachineType.leftover`), after those that did say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from muster.scheduling.resources import NOTHING, Resources
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.machine import MachineType


class Source(StrEnum):
    """On whose word a task holds GPUs."""

    RESERVATION = "reservation"
    POD = "pod"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one task holds on one node: named GPUs, or `count` GPUs that nobody named."""

    node: str
    gpus: GpuSet = 0
    count: int = 0
    resources: Resources = NOTHING
    leaving: bool = False
    """The pod is on its way out: what it holds comes free without anybody else having to go."""

    @property
    def size(self) -> int:
        return max(self.gpus.bit_count(), self.count)


class Ledger:
    """Holdings by node and task; `on_node` and `free` are look-ups."""

    def __init__(self) -> None:
        self._by_task: dict[tuple[str, Source], Holding] = {}
        self._by_node: dict[str, dict[tuple[str, Source], Holding]] = {}

    def put(self, task: str, source: Source, holding: Holding | None) -> set[str]:
        """Record what `task` holds on the word of `source` (None: nothing any more); return the nodes that changed."""
        key = (task, source)
        before = self._by_task.pop(key, None)
        if before == holding:
            if holding is not None:
                self._by_task[key] = holding
            return set()
        if before is not None:
            del self._by_node[before.node][key]
        if holding is not None:
            self._by_task[key] = holding
            self._by_node.setdefault(holding.node, {})[key] = holding
        return {change.node for change in (before, holding) if change is not None}

    def holding(self, task: str, source: Source) -> Holding | None:
        return self._by_task.get((task, source))

    def on_node(self, node: str, but: str | None = None) -> list[tuple[str, Holding]]:
        """What tasks other than `but` hold on a node, each task once, by name."""
        held: dict[str, Holding] = {}
        for (task, _), holding in self._by_node.get(node, {}).items():
            if task != but:
                held[task] = _joined(held[task], holding) if task in held else holding
        return sorted(held.items())

    def leaving(self, node: str) -> GpuSet:
        """The named GPUs that pods on their way out still hold."""
        staying = leaving = 0
        for _, holding in self.on_node(node):
            if holding.leaving:
                leaving |= holding.gpus
            else:
                staying |= holding.gpus
        return leaving & ~staying

    def free(self, node: str, machine: MachineType, healthy: GpuSet, but: str | None = None) -> GpuSet:
        """The healthy GPUs of a node that no task other than `but` holds."""
        holdings = [holding for _, holding in self.on_node(node, but)]
        return unheld(machine, healthy, holdings)

    def resources(self, node: str) -> Resources:
        """What the tasks of a node hold beside GPUs."""
        total = Resources()
        for _, holding in self.on_node(node):
            total = total + holding.resources
        return total


def unheld(machine: MachineType, healthy: GpuSet, holdings: Iterable[Holding]) -> GpuSet:
    """The GPUs of `healthy` that are left when each holding has its own, the unnamed ones where they hurt least."""
    free, unnamed = healthy, 0
    for holding in holdings:
        free &= ~holding.gpus
        unnamed += max(0, holding.count - holding.gpus.bit_count())
    return free & ~machine.leftover(free, min(unnamed, free.bit_count()))


def _joined(one: Holding, other: Holding) -> Holding:
    """A reservation and a pod of the same task on the same node: together what either says, and it stays if either does."""
    rest = Resources(
        max(one.resources.cpu, other.resources.cpu),
        max(one.resources.memory, other.resources.memory),
        max(one.resources.pods, other.resources.pods),
    )
    return Holding(one.node, one.gpus | other.gpus, max(one.count, other.count), rest, one.leaving and other.leaving)
