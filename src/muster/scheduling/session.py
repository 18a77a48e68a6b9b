"""The cluster during one pass: where every gang is, as the decisions so far leave it.

A GPU is *idle* while no gang has a place on it, and *free* while none runs on it. Decisions are put on the session in the order
in which they are to be carried out, so that each is possible once those before it came true.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from functools import cached_property

from muster.scheduling.admission.queueing import Quotas
from muster.scheduling.decisions import (
    AnyAssignment,
    Assignment,
    Decision,
    Join,
    Pack,
    Preempt,
    Reason,
    Requeue,
    Resume,
    Suspend,
    Wait,
)
from muster.scheduling.gang import EXCLUSIVE, Gang, Placement
from muster.scheduling.places import Places
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster.scheduling.planner_cache import PlannerCache
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.speed.occupancy import gpus_by_node
from muster.scheduling.topology.links import GpuSet

Spots = dict[str, GpuSet]
"""GPUs by node."""


class Session:
    """What a pass knows and what it has decided."""

    def __init__(
        self,
        snapshot: Snapshot,
        now: float,
        decided: Iterable[Decision] = (),
        memory: PlannerCache | None = None,
    ) -> None:
        memory = memory or PlannerCache()
        self.nodes, self.queues, self.now = snapshot.nodes, snapshot.queues, now
        self.capacity = memory.capacity(snapshot.nodes)
        """The idle GPUs, to place gangs in."""
        self.rates = memory.rates(snapshot.profiles, self.capacity)
        self.gittins_index = memory.gittins_index(snapshot.ended)
        self.ranks = memory.ranks
        self._memory = memory
        memory.follow(snapshot.gangs)
        self.quotas = Quotas(snapshot.queues, snapshot.gangs)
        self.decisions: list[Decision] = []
        self.waits: dict[str, Wait] = {}
        """Why gangs wait, or stay where they are although they are to move, of which nothing else is decided."""
        self._kept: Spots = {}
        """GPUs that are kept for gangs which will start when others have gone."""
        self._stand_on(memory.places(snapshot.nodes))
        for decision in decided:
            if isinstance(decision, Wait):
                self.waits[decision.gang.name] = decision
                if decision.keeps:
                    self._keep(decision.keeps)
            else:
                self._take_over(decision)

    def _stand_on(self, places: Places) -> None:
        self._places = places
        self.gangs, self.running, self.residents = places.gangs, places.running, places.residents

    # What is there

    def idle(self, node: str) -> GpuSet:
        """GPUs on which nobody has a place, and that are kept for nobody."""
        return self._left(node, self.residents.get(node, {}).values()) & ~self._kept.get(node, 0)

    def free(self, node: str) -> GpuSet:
        """GPUs on which nobody runs."""
        return self._left(node, (gpus for _, gpus in self.running.on_node.get(node, {}).values()))

    @cached_property
    def fragmentation(self) -> Fragmentation | None:
        """How much of a node's GPUs the tasks that come would leave unused; they are like those of the gangs that are there."""
        return self._memory.fragmentation(self.capacity)

    @cached_property
    def largest(self) -> int:
        """The GPUs in order of the largest server."""
        return max((node.healthy.bit_count() for node in self.nodes.values()), default=0)

    def height(self, node: str) -> float:
        """GPUs that gangs want of a node beside those it has; over 1 they take turns (Gandiva, section 3.1)."""
        healthy = self.nodes[node].healthy.bit_count()
        wanted = sum(gpus.bit_count() for gpus in self.residents.get(node, {}).values())
        return wanted / healthy if healthy else float("inf")

    def cluster_height(self) -> float:
        """GPUs that all gangs ask for beside those there are; over 1 the cluster is overloaded."""
        there = sum(node.healthy.bit_count() for node in self.nodes.values())
        wanted = sum(gang.held if gang.placement else gang.gpus for gang in self.gangs.values())
        return wanted / there if there else float("inf")

    def waiting(self) -> list[Gang]:
        """Gangs without a place, by turn."""
        return sorted(
            (gang for gang in self.gangs.values() if not gang.placement), key=lambda g: (-g.priority, g.arrived, g.name)
        )

    def on(self, node: str) -> list[Gang]:
        """The gangs that have a place on a node, by name."""
        return [self.gangs[name] for name in sorted(self.residents.get(node, ()))]

    def is_packed(self, gang: Gang) -> bool:
        """Say whether another gang runs on its GPUs."""
        return any(
            other.name != gang.name and held & gpus
            for node, gpus in self.spots(gang).items()
            for other, held in self.running.on_node.get(node, {}).values()
        )

    def spots(self, gang: Gang) -> Spots:
        return gpus_by_node(gang.placement)

    def shared(self, node: str) -> GpuSet:
        """GPUs on which gangs take turns, or nobody is."""
        gpus = self.idle(node)
        for gang in self.on(node):
            if gang.sharing.slices:
                gpus |= self.residents[node][gang.name]
        return gpus

    def find(self, gang: Gang, capacity: FreeCapacity) -> Placement | None:
        """A place in a room that is best by what is known of rates, and of the tasks that come."""
        return find(gang, capacity, fragmentation=self.fragmentation, rate=self.rates.by_shape(gang))

    def only(self, spots: Spots) -> FreeCapacity:
        """The room with these GPUs only, whoever is on them."""
        return self.capacity.only(spots)

    def supposing(self, gangs: Iterable[Gang]) -> Session:
        """The board as if these gangs were so, apart from this one: to find out what others could have."""
        twin = copy(self)
        twin.waits, twin.decisions, twin.capacity = dict(self.waits), list(self.decisions), self.capacity.copy()
        twin._stand_on(self._places.copy())
        twin.quotas = Quotas(self.queues, self.gangs.values())
        for gang in gangs:
            before = twin.gangs[gang.name]
            twin._places.put(gang)
            twin._settle(before, gang)
        return twin

    # What is decided

    def decided(self) -> list[Decision]:
        """The decisions of the pass: what is to be done, in order, then who waits and why."""
        return [*self.decisions, *self.waits.values()]

    def wait(self, gang: Gang, reason: Reason, message: str) -> None:
        """Say why a gang waits, unless the pass finds it a place later."""
        self.waits[gang.name] = Wait(gang, reason, message)

    def put(self, decision: AnyAssignment) -> Gang:
        """Decide where a gang runs, or joins those that take turns; return it as it will be."""
        before = self.gangs[decision.gang.name]
        after = replace(
            self._counted(before),
            placement=decision.placement,
            running=bool(decision.placement) and not isinstance(decision, Join),
            packed=decision.onto if isinstance(decision, Pack) else before.packed if isinstance(decision, Resume) else "",
        )
        self._places.put(after)
        self._settle(before, after)
        self._decide(decision)
        return after

    def suspend(self, gang: Gang, reason: Reason, message: str) -> Gang:
        """Decide to take a gang off its GPUs for the turns of others."""
        return self._take_off(Suspend(gang, reason, message))

    def requeue(self, gang: Gang, reason: Reason, message: str) -> Gang:
        """Decide to take a gang off its GPUs for good."""
        return self._take_off(Requeue(gang, reason, message))

    def _take_off(self, decision: Suspend | Requeue) -> Gang:
        before = self.gangs[decision.gang.name]
        placement = before.placement if isinstance(decision, Suspend) else ()
        after = replace(self._counted(before), running=False, placement=placement)
        self._places.put(after)
        self._settle(before, after)
        self._decide(decision)
        return after

    def _decide(self, decision: AnyAssignment | Suspend | Requeue) -> None:
        self.decisions.append(decision)
        self.waits.pop(decision.gang.name, None)

    def _take_over(self, decision: AnyAssignment | Suspend | Requeue | Preempt) -> None:
        """Start from what was decided before this board was made."""
        if isinstance(decision, Assignment):
            self.put(decision)
        elif isinstance(decision, Suspend | Requeue):
            self._take_off(decision)
        else:
            self.decisions.append(decision)
            for victim in decision.victims:
                self._withdraw(victim)
            self._keep(decision.keeps)

    def _keep(self, placement: Placement) -> None:
        """Keep GPUs from everybody, during this pass."""
        for node, gpus in gpus_by_node(placement).items():
            self._kept[node] = self._kept.get(node, 0) | gpus
            self.capacity.set(node, self.capacity.free[node] & ~gpus)

    def _withdraw(self, victim: Gang) -> None:
        """Keep the GPUs of a gang that is on its way out from everybody, during this pass."""
        self._places.put(replace(self.gangs[victim.name], sharing=EXCLUSIVE, asked=None))

    def _counted(self, gang: Gang) -> Gang:
        return replace(gang, attained=gang.attained_at(self.now), since=self.now)

    def _settle(self, before: Gang, after: Gang) -> None:
        """Bring room and quotas up to date."""
        self.quotas.add(after.queue, after.held - before.held)
        self.capacity.give_back(before.placement)
        self.capacity.take(after.placement)
        for node in {*gpus_by_node(before.placement), *gpus_by_node(after.placement)}:
            self.capacity.set(node, self.idle(node))

    def _left(self, node: str, taken: Iterable[GpuSet]) -> GpuSet:
        left = self._places.ours.get(node, self.nodes[node].free)
        for gpus in taken:
            left &= ~gpus
        return left
