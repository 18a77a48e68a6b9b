"""The GPUs of a node divided among the tasks of a layout, and the ranks of the tasks."""

from __future__ import annotations

from collections.abc import Iterator

from muster.scheduling.gang import Assigned, Placement
from muster.scheduling.placing.batches import Ask, Batches, Counts, choices
from muster.scheduling.placing.fragmentation import Free
from muster.scheduling.placing.free_capacity import FreeCapacity, State, shared
from muster.scheduling.placing.merits import Layout, Merits
from muster.scheduling.resources import WHOLE
from muster.scheduling.topology.links import GpuSet

_Spot = tuple[int, str, str, str, GpuSet, int, GpuSet]
"""The GPUs of one task, in the order of ranks: role, block, rack, node, first GPU; then its batch's number, and all GPUs."""


class Assignment:
    """From a layout to the placement of each task."""

    def __init__(self, batches: Batches, capacity: FreeCapacity, merits: Merits) -> None:
        self._batches, self._capacity, self._merits = batches, capacity, merits

    def placement(self, layout: Layout) -> Placement:
        """Choose the GPUs of all tasks, and number the tasks along the topology, those of a batch by index."""
        spots = sorted([spot for name, counts in layout.items() for spot in self._spots(name, counts)])
        tasks = [iter(batch.tasks) for batch in self._batches.all]
        return tuple([Assigned(next(tasks[batch]), name, gpus, rank) for rank, (*_, name, _, batch, gpus) in enumerate(spots)])

    def _spots(self, name: str, counts: Counts) -> Iterator[_Spot]:
        """Divide the chosen GPUs of a node among its tasks."""
        node, chosen = self._capacity.nodes[name], self._merits.chosen(name, counts)
        machine, free, resources, parts = self._capacity.state(name)
        free &= ~chosen
        for number, (ask, role, _) in enumerate(self._batches.all):
            for _ in range(counts[number]):
                if ask.share == WHOLE:
                    gpus = machine.fastest(chosen, ask.gpus)
                    chosen &= ~gpus
                else:
                    gpus = self._gpu_for_part(State(machine, free, resources, parts), name, ask)
                    free, parts = shared(gpus, free, parts, -ask.share)
                yield (role, node.block, node.rack, name, gpus & -gpus, number, gpus)
            resources = resources - ask.resources.times(counts[number])

    def _gpu_for_part(self, state: State, name: str, ask: Ask) -> GpuSet:
        """The fullest GPU on which the part fits; for a single such task, the one on which it leaves least unused."""
        choice = 0
        if self._merits.fragmentation and self._batches.parts == 1:
            choice = self._merits.fragmentation.choice(Free.of(state, self._merits.key(name).admits), ask)
        return choices(state, ask.share)[choice]
