"""Who is where: nodes and gangs as the decisions made them, and the snapshot that a policy sees.

Invariant: a GPU has one running gang, several that all let themselves be packed, or tasks that take parts of it and no more
than all; `Node.free`, `parts` and `rest` are what placements leave, `rest` where a node says what it has beside GPUs.
Objects that did not change are the same objects in the next snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from muster.scheduling.gang import Gang, Placement, gpus_by_node
from muster.scheduling.occupancy import Occupancy
from muster.scheduling.profile import Profile
from muster.scheduling.resources import PLENTY, WHOLE
from muster.scheduling.snapshot import Queue, Snapshot
from muster.scheduling.topology.links import GpuSet, indices
from muster.scheduling.topology.node import Node


class Invalid(Exception):
    """A decision that no cluster could carry out: a fault of the policy."""


class Cluster:
    """Nodes, gangs by name, and who runs on which GPUs."""

    def __init__(self, nodes: Iterable[Node], queues: Iterable[Queue] = ()) -> None:
        self.nodes: dict[str, Node] = {node.name: node for node in nodes}
        self.queues = {queue.name: queue for queue in queues}
        self.gangs: dict[str, Gang] = {}
        self.profiles: dict[str, Profile] = {}
        self.ended: tuple[float, ...] = ()
        self.running = Occupancy()
        self.gpus = sum(node.healthy.bit_count() for node in self.nodes.values())
        self._placed: dict[str, dict[str, GpuSet]] = {name: {} for name in self.nodes}
        self._rest = {name: node.resources for name, node in self.nodes.items()}
        self._shared: dict[str, dict[int, int]] = {}
        """The thousandths that tasks with parts take of GPUs, by node and index."""
        self._snapshot: Snapshot | None = None
        """The last one, unless nodes or gangs have changed since."""

    def snapshot(self) -> Snapshot:
        """What a policy sees: the same object for as long as nothing changed."""
        last = self._snapshot
        if last is None or last.profiles is not self.profiles or last.ended is not self.ended:
            last = Snapshot(dict(self.nodes), tuple(self.gangs.values()), self.queues, self.profiles, self.ended)
            self._snapshot = last
        return last

    def put(self, gang: Gang) -> None:
        """Take a gang as it is from now on: new, placed, running, suspended or queued."""
        before = self.gangs.get(gang.name)
        if before is not None:
            self._leave(before)
        self.gangs[gang.name] = gang
        self._snapshot = None
        self._enter(gang)

    def remove(self, name: str) -> None:
        self._snapshot = None
        self._leave(self.gangs.pop(name))

    def set_node(self, node: Node) -> None:
        """Take a node with other GPUs in order than before; who runs on it stays until the policy hears of it."""
        self.nodes[node.name] = node
        self._snapshot = None
        self._count(node.name)

    def neighbourhood(self, names: Iterable[str]) -> dict[str, Gang]:
        """The gangs that run on any of these nodes."""
        return {name: self.gangs[name] for node in names for name in self.running.on_node.get(node, ())}

    def placed(self, name: str) -> dict[str, GpuSet]:
        """The gangs that have a place on a node, running or not, with their GPUs there."""
        return dict(self._placed[name])

    def _enter(self, gang: Gang) -> None:
        self._use(gang.placement, 1)
        for name, gpus in gpus_by_node(gang.placement).items():
            if gang.running:
                self._check(gang, name, gpus)
            self._placed[name][gang.name] = gpus
        self._count_all(gang.placement)
        if gang.placement and gang.running:
            self.running.add(gang)

    def _leave(self, gang: Gang) -> None:
        if gang.placement and gang.running:
            self.running.remove(gang)
        self._use(gang.placement, -1)
        for name in gpus_by_node(gang.placement):
            del self._placed[name][gang.name]
        self._count_all(gang.placement)

    def _use(self, placement: Placement, step: int) -> None:
        """Count what tasks take beside whole GPUs on or off their nodes."""
        for place in placement:
            if self.nodes[place.node].allocatable != PLENTY:
                rest, asked = self._rest[place.node], place.task.resources
                self._rest[place.node] = rest - asked if step > 0 else rest + asked
            if place.task.share < WHOLE:
                used = self._shared.setdefault(place.node, {})
                gpu = place.gpus.bit_length() - 1
                used[gpu] = used.get(gpu, 0) + step * place.task.share
                if not used[gpu]:
                    del used[gpu]

    def _check(self, gang: Gang, name: str, gpus: int) -> None:
        broken = gpus & ~self.nodes[name].healthy
        if broken:
            raise Invalid(f"{gang.name} is put on GPUs {indices(broken)} of {name}, which do not work")
        shared = self._shared.get(name, {})
        parted = sum(1 << gpu for gpu, used in shared.items() if used <= WHOLE)
        for other, theirs in self.running.on_node.get(name, {}).values():
            if theirs & gpus & ~parted and not (gang.sharing.packs and other.sharing.packs):
                raise Invalid(f"{gang.name} is put on GPUs {indices(theirs & gpus)} of {name}, on which {other.name} runs")

    def _count_all(self, placement: Placement) -> None:
        for name in dict.fromkeys(place.node for place in placement):
            self._count(name)

    def _count(self, name: str) -> None:
        """Work out what is free of a node."""
        taken = 0
        for gpus in self._placed[name].values():
            taken |= gpus
        node = self.nodes[name]
        shared = self._shared.get(name, {})
        parts = [(gpu, WHOLE - used) for gpu, used in shared.items() if used < WHOLE and node.healthy >> gpu & 1]
        self.nodes[name] = replace(node, free=node.healthy & ~taken, resources=self._rest[name], parts=tuple(sorted(parts)))
