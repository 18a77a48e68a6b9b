"""Who has a place where, kept from pass to pass: what did not change since the last pass costs next to nothing.

Invariant: after `follow`, all is as if it had been made from these gangs and nodes alone, whatever a pass decided before.
"""

from __future__ import annotations

from collections.abc import Mapping

from muster.scheduling.snapshot import Gang, Node
from muster.scheduling.speed.occupancy import Occupancy, gpus_by_node
from muster.scheduling.topology.links import GpuSet


class Places:
    """The places of gangs, by gang and by node."""

    def __init__(self) -> None:
        self.gangs: dict[str, Gang] = {}
        self.running = Occupancy()
        self.residents: dict[str, dict[str, GpuSet]] = {}
        """The gangs that have a place on a node, with their GPUs there, whether they run or not."""
        self.ours: dict[str, GpuSet] = {}
        """GPUs of nodes with residents that are free or held by gangs: the others are of pods that nobody here may move."""
        self._nodes: Mapping[str, Node] = {}
        self._touched: set[str] = set()
        """Nodes on which somebody came or went since `ours` was worked out."""

    def follow(self, gangs: dict[str, Gang], nodes: Mapping[str, Node]) -> None:
        """Become the places of these gangs on these nodes."""
        before, self.gangs = self.gangs, gangs
        for name, gang in before.items():
            if gangs.get(name) is not gang:
                self.leave(gang)
        for name, gang in gangs.items():
            if before.get(name) is not gang:
                self.enter(gang)
        touched = self._touched.union(name for name, node in nodes.items() if self._nodes.get(name) is not node)
        self._nodes, self._touched = nodes, set()
        for name in touched:
            self._count(name)

    def enter(self, gang: Gang) -> None:
        """Take a gang as it is from now on."""
        self.gangs[gang.name] = gang
        for node, gpus in gpus_by_node(gang.placement).items():
            self.residents.setdefault(node, {})[gang.name] = gpus
            self._touched.add(node)
        if gang.placement and gang.running:
            self.running.add(gang)

    def leave(self, gang: Gang) -> None:
        """Take a gang off its GPUs."""
        if gang.placement and gang.running:
            self.running.remove(gang)
        for node in gpus_by_node(gang.placement):
            del self.residents[node][gang.name]
            self._touched.add(node)

    def copy(self) -> Places:
        """The same places, apart from these."""
        twin = Places()
        twin.gangs, twin.running, twin.ours = dict(self.gangs), Occupancy(self.gangs.values()), self.ours
        twin.residents = {node: dict(there) for node, there in self.residents.items()}
        return twin

    def _count(self, node: str) -> None:
        there = self.residents.get(node)
        if not there:
            self.residents.pop(node, None)
            self.ours.pop(node, None)
            return
        ours = self._nodes[node].free
        for gpus in there.values():
            ours |= gpus
        self.ours[node] = ours
