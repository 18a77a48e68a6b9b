"""A session: the cluster during one pass, as the decisions so far leave it.

The session owns what changes while a pass decides: free capacity, occupancy, quotas, and the decisions themselves. Admission
and policies put their decisions on it in the order in which these are to be carried out, so each is possible once those before
it came true. What is only tried happens within `trial`, which takes all of it back (as Checkpoint and Rollback of a Statement
do in NVIDIA's KAI scheduler).

A GPU is *idle* while no gang has a placement on it: that is the free capacity. It is *unused* while no gang runs on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from muster.scheduling.decisions import (
    AnyAssignment,
    Decision,
    Join,
    Move,
    Pack,
    Preempt,
    Requeue,
    Resize,
    Resume,
    Suspend,
    Wait,
)
from muster.scheduling.gang import EXCLUSIVE, Gang, Placement, gpus_by_node
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.placement import find
from muster.scheduling.planner_cache import PlannerCache
from muster.scheduling.queue_order import in_order
from muster.scheduling.quotas import Quotas
from muster.scheduling.settings import DEFAULTS, Policy, Settings
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.speed.rates import Rates
from muster.scheduling.topology.links import GpuSet

GpusByNode = dict[str, GpuSet]


class ForbiddenVerb(Exception):
    """A decision whose verb the caller cannot execute: a fault of the planner."""


class Session:
    """What a pass sees and what it has decided."""

    def __init__(
        self, snapshot: Snapshot, now: float, settings: Settings = DEFAULTS, cache: PlannerCache | None = None
    ) -> None:
        self.cache = cache or PlannerCache()
        self.cache.follow(snapshot)
        self.nodes, self.profiles, self.now, self.settings = snapshot.nodes, snapshot.profiles, now, settings
        self.index = self.cache.index
        self.capacity = self.cache.capacity
        self.occupancy = self.index.occupancy
        self.quotas = Quotas(snapshot.queues, self.index.placed.values(), snapshot.resource_quotas)
        self.ended = snapshot.ended
        self.decisions: list[AnyAssignment | Suspend | Requeue | Preempt] = []
        self.waits: dict[str, Wait] = {}
        """Why gangs wait, or stay where they are although they are to change, of which nothing else is decided."""
        self._kept: GpusByNode = {}
        """GPUs kept for gangs that will start when others have gone."""

    # What is there

    @property
    def gangs(self) -> dict[str, Gang]:
        """The gangs by name, as the decisions so far leave them."""
        return self.occupancy.gangs

    @cached_property
    def rates(self) -> Rates:
        """What to expect of placements."""
        return self.cache.rates(self.profiles, self.nodes)

    @cached_property
    def fragmentation(self) -> Fragmentation | None:
        """How much of a node's GPUs the tasks to come would leave unused; the paper's policy does not ask."""
        return self.index.demand.fragmentation(self.capacity.fleet) if self.settings.policy is Policy.MUSTER else None

    @cached_property
    def largest(self) -> int:
        """The healthy GPUs of the largest node."""
        return max((node.healthy.bit_count() for node in self.nodes.values()), default=0)

    def can(self, *verbs: type[Decision]) -> bool:
        """Say whether the caller can execute all of these verbs."""
        return self.settings.verbs.issuperset(verbs)

    def idle(self, node: str) -> GpuSet:
        """Return the GPUs on which no gang has a placement, and that are kept for none."""
        return self.capacity.free[node]

    def unused(self, node: str) -> GpuSet:
        """Return the GPUs on which no gang runs."""
        return (self.idle(node) | self.occupancy.taken(node)) & ~self.occupancy.taken(node, running=True)

    def on(self, node: str) -> list[Gang]:
        """Return the gangs that have a placement on a node, by name."""
        return [gang for _, (gang, _) in sorted(self.occupancy.residents(node).items())]

    def waiting(self) -> list[Gang]:
        """Return the gangs without a placement, in queue order."""
        return in_order(gang for gang in self.gangs.values() if not gang.placement)

    def is_packed(self, gang: Gang) -> bool:
        """Say whether another gang runs on its GPUs."""
        held = gpus_by_node(gang.placement).items()
        return any(self.occupancy.taken(node, but=gang.name, running=True) & gpus for node, gpus in held)

    def find(self, gang: Gang) -> Placement | None:
        """Return the best placement on idle GPUs, by what is known of rates and of the tasks to come."""
        return find(gang, self.capacity, fragmentation=self.fragmentation, rate=self.rates.by_shape(gang))

    # What is decided

    def decided(self) -> list[Decision]:
        """Return the decisions of the pass: what is to be done, in order, then which gangs wait and why."""
        return [*self.decisions, *(self.waits.values() if Wait in self.settings.verbs else ())]

    def apply(self, decision: Decision) -> None:
        """Put a decision on the session: what comes after it starts from there. Raises ForbiddenVerb."""
        if isinstance(decision, Wait):
            self.waits[decision.gang.name] = decision
            if decision.keeps:
                self._keep(decision.keeps)
            return
        if type(decision) not in self.settings.verbs:
            raise ForbiddenVerb(f"{type(decision).__name__} of {decision.gang.name} is not among the caller's verbs")
        if isinstance(decision, Preempt):
            self._set_aside(decision)
        elif isinstance(decision, Suspend | Requeue):
            before = self.gangs[decision.gang.name]
            self._change(before, before.placement if isinstance(decision, Suspend) else (), running=False)
        else:
            self._assign(decision)
        self.decisions.append(decision)
        self.waits.pop(decision.gang.name, None)

    def apply_all(self, decisions: Iterable[Decision]) -> None:
        """Put decisions on the session, in order."""
        for decision in decisions:
            if isinstance(decision, Wait) and not decision.keeps:
                self.waits[decision.gang.name] = decision
            else:
                self.apply(decision)

    def suppose(self, gang: Gang) -> None:
        """Take a gang as it might be, deciding nothing; within a trial."""
        before = self.gangs[gang.name]
        self.occupancy.put(gang)
        self.quotas.add(gang.queue, gang.held - before.held)
        self._release(before)
        self.capacity.take(gang.placement)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo all that the block changed and decided at its end."""
        before = self.quotas, list(self.decisions), dict(self.waits), dict(self._kept)
        self.quotas = self.quotas.copy()
        try:
            with self.capacity.trial(), self.occupancy.trial():
                yield
        finally:
            self.quotas, self.decisions, self.waits, self._kept = before

    def _assign(self, decision: AnyAssignment) -> None:
        before = self.gangs[decision.gang.name]
        packed = decision.onto if isinstance(decision, Pack) else before.packed if isinstance(decision, Resume) else ""
        running = bool(decision.placement) and not isinstance(decision, Join)
        leaves = not isinstance(decision, Move | Resize)  # these leave their GPUs when their pods have gone
        self._change(before, decision.placement, running=running, packed=packed, leaves=leaves)

    def _change(self, before: Gang, placement: Placement, *, running: bool, packed: str = "", leaves: bool = True) -> None:
        attained = before.attained_at(self.now)
        after = replace(before, placement=placement, running=running, packed=packed, attained=attained, since=self.now)
        self.occupancy.put(after)
        self.quotas.place(before, placement)
        if leaves:
            self._release(before)
        self.capacity.take(placement)

    def _release(self, gang: Gang) -> None:
        """Give back what a gang had, but for GPUs on which others have a placement, or that are kept."""
        self.capacity.give_back(gang.placement)
        for node in gpus_by_node(gang.placement):
            if node in self.capacity.free:
                free = self.capacity.free[node]
                blocked = free & (self.occupancy.taken(node) | self._kept.get(node, 0))
                if blocked:
                    self.capacity.set(node, free & ~blocked)

    def _set_aside(self, decision: Preempt) -> None:
        """Keep the GPUs of gangs that are on their way out from everybody, during this pass."""
        for victim in decision.victims:
            self.occupancy.put(replace(self.gangs[victim.name], sharing=EXCLUSIVE, asked=None))
        self._keep(decision.keeps)

    def _keep(self, placement: Placement) -> None:
        """Keep GPUs from everybody, during this pass."""
        for node, gpus in gpus_by_node(placement).items():
            self._kept[node] = self._kept.get(node, 0) | gpus
            self.capacity.set(node, self.capacity.free[node] & ~gpus)
