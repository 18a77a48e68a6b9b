"""Who has a place where, kept from pass to pass: what did not change since the last pass costs next to nothing.

Invariant: after `follow`, all is as if it had been made from these gangs and nodes alone, whatever a pass decided before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muster.scheduling.gang import Gang
from muster.scheduling.speed.occupancy import Occupancy, gpus_by_node
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.node import Node


class Places:
    """The places of gangs, by gang and by node."""

    def __init__(self) -> None:
        self.gangs: dict[str, Gang] = {}
        self.running = Occupancy()
        self.residents: dict[str, dict[str, GpuSet]] = {}
        """The gangs that have a place on a node, with their GPUs there, whether they run or not."""
        self.ours: dict[str, GpuSet] = {}
        """GPUs of nodes with residents that are free or held by gangs: the others are of pods that nobody here may move."""
        self._before: dict[str, Gang] = {}
        """Gangs of which a pass decided something, as they were before it."""
        self._touched: set[str] = set()
        """Nodes that changed, or on which somebody came or went, since `ours` was worked out."""

    def follow(self, came: Iterable[Gang], gone: Iterable[Gang]) -> None:
        """Take back what was put since the last time, and let gangs go and come; one that changed goes and comes."""
        for gang in self._before.values():
            self._become(gang)
        self._before = {}
        for gang in gone:
            self._leave(gang)
            del self.gangs[gang.name]
        for gang in came:
            self._enter(gang)
            self.gangs[gang.name] = gang

    def touch(self, nodes: Iterable[str]) -> None:
        """Note that these nodes are others than before."""
        self._touched.update(nodes)

    def settle(self, nodes: Mapping[str, Node]) -> None:
        """Work out what of these nodes is ours."""
        for name in self._touched:
            self._count(name, nodes)
        self._touched = set()

    def put(self, gang: Gang) -> None:
        """Take a gang as it is from now on, until the next `follow`."""
        self._before.setdefault(gang.name, self.gangs[gang.name])
        self._become(gang)

    def _become(self, gang: Gang) -> None:
        self._leave(self.gangs[gang.name])
        self._enter(gang)
        self.gangs[gang.name] = gang

    def _enter(self, gang: Gang) -> None:
        for node, gpus in gpus_by_node(gang.placement).items():
            self.residents.setdefault(node, {})[gang.name] = gpus
            self._touched.add(node)
        if gang.placement and gang.running:
            self.running.add(gang)

    def _leave(self, gang: Gang) -> None:
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

    def _count(self, node: str, nodes: Mapping[str, Node]) -> None:
        there = self.residents.get(node)
        if not there:
            self.residents.pop(node, None)
        if not there or node not in nodes:
            self.ours.pop(node, None)
            return
        ours = nodes[node].free
        for gpus in there.values():
            ours |= gpus
        self.ours[node] = ours
