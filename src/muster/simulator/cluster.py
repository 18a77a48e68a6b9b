"""The simulated cluster: nodes and gangs after the decisions so far, and the snapshot that a policy sees.

Invariant: a GPU has one running gang, several gangs that all allow packing, or tasks with fractions of it that sum to at most
one GPU. `Node.free`, `parts` and `resources` are net of all placements (`resources` only where the node declares CPU and
memory). Unchanged nodes and gangs are the same objects in the next snapshot.
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
    """A decision that no cluster could carry out: a bug of the policy."""


class Cluster:
    """Nodes, gangs by name, and the GPUs that each gang holds."""

    def __init__(self, nodes: Iterable[Node], queues: Iterable[Queue] = ()) -> None:
        self.nodes: dict[str, Node] = {node.name: node for node in nodes}
        self.queues = {queue.name: queue for queue in queues}
        self.gangs: dict[str, Gang] = {}
        self.profiles: dict[str, Profile] = {}
        self.ended: tuple[float, ...] = ()
        self.running = Occupancy()
        self.gpus = sum(node.healthy.bit_count() for node in self.nodes.values())
        self._placed: dict[str, dict[str, GpuSet]] = {name: {} for name in self.nodes}
        self._resources = {name: node.resources for name, node in self.nodes.items()}
        """CPU, memory and pods that placements leave on each node."""
        self._used_share: dict[str, dict[int, int]] = {}
        """Thousandths of each GPU that fractional tasks hold, by node and GPU index."""
        self._snapshot: Snapshot | None = None
        """The last snapshot, unless nodes or gangs have changed since."""

    def snapshot(self) -> Snapshot:
        """Return what a policy sees: the same object as long as nothing changed."""
        last = self._snapshot
        if last is None or last.profiles is not self.profiles or last.ended is not self.ended:
            last = Snapshot(dict(self.nodes), tuple(self.gangs.values()), self.queues, self.profiles, self.ended)
            self._snapshot = last
        return last

    def put(self, gang: Gang) -> None:
        """Add a gang or replace its state: queued, placed, running or suspended."""
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
        """Replace a node whose GPU health changed; its gangs stay until the caller removes them."""
        self.nodes[node.name] = node
        self._snapshot = None
        self._count(node.name)

    def neighbourhood(self, names: Iterable[str]) -> dict[str, Gang]:
        """Return the gangs that run on any of these nodes, by name."""
        return {name: self.gangs[name] for node in names for name in self.running.on_node.get(node, ())}

    def placed(self, name: str) -> dict[str, GpuSet]:
        """Return the GPUs of each gang with a placement on a node, running or not, by name of the gang."""
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
        """Take (step 1) or give back (step -1) the CPU, memory and GPU fractions of tasks."""
        for assigned in placement:
            name, task = assigned.node, assigned.task
            if self.nodes[name].allocatable != PLENTY:
                left = self._resources[name]
                self._resources[name] = left - task.resources if step > 0 else left + task.resources
            if task.share < WHOLE:
                used = self._used_share.setdefault(name, {})
                gpu = assigned.gpus.bit_length() - 1
                used[gpu] = used.get(gpu, 0) + step * task.share
                if not used[gpu]:
                    del used[gpu]

    def _check(self, gang: Gang, name: str, gpus: int) -> None:
        broken = gpus & ~self.nodes[name].healthy
        if broken:
            raise Invalid(f"{gang.name} is placed on unhealthy GPUs {indices(broken)} of {name}")
        fractional = sum(1 << gpu for gpu, used in self._used_share.get(name, {}).items() if used <= WHOLE)
        for neighbour, held in self.running.on_node.get(name, {}).values():
            if held & gpus & ~fractional and not (gang.sharing.packs and neighbour.sharing.packs):
                raise Invalid(f"{gang.name} is placed on GPUs {indices(held & gpus)} of {name}, where {neighbour.name} runs")

    def _count_all(self, placement: Placement) -> None:
        for name in dict.fromkeys(assigned.node for assigned in placement):
            self._count(name)

    def _count(self, name: str) -> None:
        """Recompute the free capacity of a node."""
        held = 0
        for gpus in self._placed[name].values():
            held |= gpus
        node, used_share = self.nodes[name], self._used_share.get(name, {})
        parts = tuple(
            sorted((gpu, WHOLE - used) for gpu, used in used_share.items() if used < WHOLE and node.healthy >> gpu & 1)
        )
        self.nodes[name] = replace(node, free=node.healthy & ~held, resources=self._resources[name], parts=parts)
