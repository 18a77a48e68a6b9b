"""Occupancy: which gang has a placement on which node, and which gangs meet there.

Neighbours meet in three places, each with its own loss (Gandiva, OSDI'18, figures 3, 4 and 10): on the same GPU, under the
same PCIe switch, and at the network card of a node when both gangs are spread over several. What a gang loses there is measured
(`profile`) or predicted (`speed.interference`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from muster.scheduling.gang import Gang, gpus_by_node
from muster.scheduling.profile import CoLocation, Via
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.node import Node


class Occupancy:
    """Gangs by name, and those with a placement by node. `trial` takes back all that was put within it."""

    def __init__(self, gangs: Iterable[Gang] = ()) -> None:
        self.gangs: dict[str, Gang] = {}
        self.on_node: dict[str, dict[str, tuple[Gang, GpuSet]]] = {}
        """Gangs with a placement on a node, running or suspended, with their GPUs there."""
        self._undo: list[Gang] | None = None
        for gang in gangs:
            self.add(gang)

    def add(self, gang: Gang) -> None:
        """Take in a gang whose name is new."""
        self.gangs[gang.name] = gang
        self._enter(gang)

    def remove(self, gang: Gang) -> None:
        """Drop a gang; outside of trials only."""
        self._leave(self.gangs.pop(gang.name))

    def put(self, gang: Gang) -> None:
        """Take a known gang as it is from now on."""
        before = self.gangs[gang.name]
        if self._undo is not None:
            self._undo.append(before)
        self._leave(before)
        self.gangs[gang.name] = gang
        self._enter(gang)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo every `put` within the block at its end."""
        outer, self._undo = self._undo, []
        try:
            yield
        finally:
            changed, self._undo = self._undo, None
            for gang in reversed(changed):
                self.put(gang)
            self._undo = outer

    def residents(self, node: str) -> dict[str, tuple[Gang, GpuSet]]:
        """Return the gangs with a placement on a node, each with its GPUs there; read only."""
        return self.on_node.get(node, {})

    def taken(self, node: str, *, but: str = "", running: bool = False) -> GpuSet:
        """Return the GPUs of a node on which gangs other than `but` have a placement; of `running` ones only, if so asked."""
        taken = 0
        for name, (gang, gpus) in self.residents(node).items():
            if name != but and (gang.running or not running):
                taken |= gpus
        return taken

    def co_location(self, name: str, gpus: Mapping[str, GpuSet], nodes: Mapping[str, Node]) -> CoLocation:
        """Return the neighbours that gang `name` has, or would have, on these GPUs by node."""
        return tuple(sorted(self.neighbours(name, gpus, nodes).values()))

    def neighbours(self, name: str, gpus: Mapping[str, GpuSet], nodes: Mapping[str, Node]) -> dict[str, tuple[Via, str]]:
        """Return the running gangs that gang `name` meets, or would meet: where they hurt it most, and their kind."""
        met: dict[str, tuple[Via, str]] = {}
        for node, held in gpus.items():
            machine = nodes[node].machine
            for other, (gang, theirs) in self.residents(node).items():
                if other == name or not gang.running:
                    continue
                if held & theirs:
                    met[other] = (Via.GPU, gang.profile_name)
                elif len(gpus) > 1 and other not in met and any(assigned.node != node for assigned in gang.placement):
                    met[other] = (Via.NIC, gang.profile_name)
                elif machine.switched(held) & theirs and other not in met:
                    met[other] = (Via.SWITCH, gang.profile_name)
        return met

    def _enter(self, gang: Gang) -> None:
        for node, gpus in gpus_by_node(gang.placement).items():
            self.on_node.setdefault(node, {})[gang.name] = (gang, gpus)

    def _leave(self, gang: Gang) -> None:
        for node in gpus_by_node(gang.placement):
            gangs = self.on_node[node]
            del gangs[gang.name]
            if not gangs:
                del self.on_node[node]
