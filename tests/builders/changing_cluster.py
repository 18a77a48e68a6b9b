"""A cluster that changes step by step, for tests of many passes in a row.

What a planner decided comes true, in part; gangs come, end, are changed or wait for pods; nodes come, go, fail and get other
labels; quotas and profiles change. Snapshots have the same objects for what did not change, as the planner's contract asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from builders import cluster
from builders.cluster import known, node, tasks
from muster.scheduling.decisions import Assignment, Decision, Join, Move, Pack, Preempt, Requeue, Resize, Resume, Suspend
from muster.scheduling.gang import Effect, Gang, Placement, Sharing, Trial, gpus_by_node
from muster.scheduling.occupancy import Occupancy
from muster.scheduling.profile import Profile
from muster.scheduling.snapshot import Queue, Snapshot
from muster.scheduling.speed.shapes import shape
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint, Taint
from muster.scheduling.topology.node import Level, Node

QUEUES = ("default", "research", "tiny")
POOL_A = Constraint(labels=(("pool", "a"),))
TAINT = Taint("dedicated", "research")


class ChangingCluster:
    """Nodes, gangs, queues and profiles; only what changes becomes another object."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.came = 0
        self.nodes: dict[str, Node] = {}
        self.gangs: dict[str, Gang] = {}
        self.queues = {name: Queue(name, quota) for name, quota in zip(QUEUES, (None, 9, 3), strict=True)}
        self.profiles: dict[str, Profile] = {}
        self.ended: tuple[float, ...] = ()
        for _ in range(self.random.randint(2, 5)):
            self.add_node()

    def snapshot(self) -> Snapshot:
        held = self.held()
        for name, before in self.nodes.items():
            free = before.healthy & ~held[name]
            if before.free != free:
                self.nodes[name] = replace(before, free=free)
        return Snapshot(dict(self.nodes), tuple(self.gangs.values()), self.queues, self.profiles, self.ended)

    def held(self) -> dict[str, int]:
        """The GPUs of each node that are in a placement."""
        held = dict.fromkeys(self.nodes, 0)
        for gang in self.gangs.values():
            for name, gpus in gpus_by_node(gang.placement).items():
                held[name] |= gpus
        return held

    def carry_out(self, decisions: Sequence[Decision]) -> None:
        """Let the first of the decisions come true, mostly all."""
        for decision in decisions[: self.random.choice((1, 3, 100, 100))]:
            name = decision.gang.name
            match decision:
                case Pack(placement=placement, onto=onto, effect=Effect() as effect):
                    trial = Trial("Pack", self.now, effect, self.gangs[name].placement)
                    self.put(name, placement, running=True, packed=onto, trial=trial)
                case Move(placement=placement) | Resize(placement=placement):
                    self.put(name, placement, running=True, leave=None, resize=False)
                case Resume(placement=placement):
                    self.put(name, placement, running=True, packed=self.gangs[name].packed)
                case Assignment(placement=placement):
                    self.put(name, placement, running=bool(placement) and not isinstance(decision, Join))
                case Suspend():
                    self.put(name, self.gangs[name].placement, running=False, packed=self.gangs[name].packed)
                case Requeue():
                    self.put(name, ())
                case Preempt(victims=victims):
                    for victim in victims:
                        self.put(victim.name, ())

    def put(self, name: str, placement: Placement, **fields: Any) -> None:
        """Let a gang have a placement, or none, from now on; it is packed and on trial only where `fields` say so."""
        before = self.gangs[name]
        fresh: dict[str, Any] = {"running": False, "packed": "", "trial": None, "since": self.now}
        self.gangs[name] = replace(before, placement=placement, attained=before.attained_at(self.now), **(fresh | fields))

    def change(self) -> None:
        """Let something happen."""
        happenings = (self.add_gang, self.add_gang, self.add_gang, self.end_gang, self.change_gang, self.measure)
        seldom = (self.add_node, self.remove_node, self.change_node, self.change_quota, self.wish)
        for happening in self.random.choices((*happenings, *happenings, *seldom), k=self.random.choice((0, 1, 1, 2, 4))):
            happening()

    def add_gang(self) -> None:
        self.came += 1
        name, draw = f"g{self.came:03}", self.random.choice
        count, most = draw((1, 1, 2, 3)), draw((0, 0, 2))
        where = draw((ANYWHERE, ANYWHERE, POOL_A))
        self.gangs[name] = cluster.gang(
            name,
            tasks=tasks(name, count + most, draw((1, 1, 2, 4)), where=where),
            asked=count if most else None,
            fewest=draw((None, None, 1)),
            queue=draw(QUEUES),
            arrived=self.now,
            since=self.now,
            priority=draw((0, 0, 5)),
            preemptible=draw((False, True)),
            required=draw((Level.CLUSTER, Level.CLUSTER, Level.NODE, Level.RACK)),
            absent=draw((0, 0, 0, 1)),
            not_before=self.now + draw((0.0, 0.0, 90.0)),
            kind=draw(("", "vgg", "lstm")),
            sharing=draw((Sharing(), Sharing(slices=True), Sharing(slices=True, packs=True))),
        )

    def end_gang(self) -> None:
        if self.gangs:
            gone = self.gangs.pop(self.random.choice(sorted(self.gangs)))
            self.ended = (*self.ended, gone.ran(self.now))

    def change_gang(self) -> None:
        """Let a gang that waits be complete, or ask for something else under the same name."""
        waiting = sorted(name for name, gang in self.gangs.items() if not gang.placement)
        if waiting:
            name = self.random.choice(waiting)
            other = tasks(name, self.random.choice((1, 2)), self.random.choice((1, 2, 9)))
            self.gangs[name] = replace(self.gangs[name], absent=0, tasks=other, asked=None, fewest=None)

    def wish(self) -> None:
        """Let a running gang be told to leave its nodes, or be scaled."""
        running = sorted(name for name, gang in self.gangs.items() if gang.placement and gang.running)
        if running:
            gang = self.gangs[self.random.choice(running)]
            if self.random.random() < 0.5:
                self.gangs[gang.name] = replace(gang, leave=self.random.choice(("", gang.placement[0].node)))
            elif gang.asked is None:
                scaled = tasks(gang.name, self.random.choice((1, 3)), gang.tasks[0].gpus)
                self.gangs[gang.name] = replace(gang, resize=True, tasks=scaled, fewest=None)

    def measure(self) -> None:
        """Let the rates of half the running gangs be measured, with the neighbours that they have."""
        occupancy = Occupancy(self.gangs.values())
        for gang in self.gangs.values():
            if gang.placement and gang.running and self.random.random() < 0.5:
                before = self.profiles.get(gang.profile_name, Profile(utilisation=0.4, memory=0.3))
                neighbours = occupancy.co_location(gang.name, gpus_by_node(gang.placement), self.nodes)
                rates = {**before.rates, (shape(gang.placement, self.nodes), neighbours): self.random.choice((1.0, 2.0, 3.0))}
                self.profiles = {**self.profiles, gang.profile_name: replace(before, rates=rates)}

    def add_node(self) -> None:
        name = f"n{self.random.randrange(8)}"
        if name not in self.nodes:
            self.nodes[name] = node(name, machine=known(self.random.choice(("pcie-8", "v100"))), rack=self.random.choice("rs"))

    def remove_node(self) -> None:
        empty = sorted(name for name, gpus in self.held().items() if not gpus)
        if empty and len(self.nodes) > 1:
            del self.nodes[self.random.choice(empty)]

    def change_node(self) -> None:
        """Let a node have other labels or taints, or let GPUs fail or be repaired, mostly those that no gang holds."""
        name = self.random.choice(sorted(self.nodes))
        before = self.nodes[name]
        held = self.held()[name]
        self.nodes[name] = self.random.choice(
            (
                replace(before, labels={"pool": self.random.choice("ab")}),
                replace(before, taints=self.random.choice(((), (TAINT,)))),
                replace(before, healthy=held | self.random.randrange(before.machine.all + 1)),
                replace(before, healthy=before.machine.all & ~(1 << self.random.randrange(before.machine.gpus))),
            )
        )

    def change_quota(self) -> None:
        name = self.random.choice(QUEUES)
        self.queues = {**self.queues, name: Queue(name, self.random.choice((None, 2, 5, 12)))}
