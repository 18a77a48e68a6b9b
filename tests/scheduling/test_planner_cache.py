"""A planner with a cache answers as one without, whatever happens between passes, and works out again only what changed.

A world changes step by step: what the planner decided comes true, in part; gangs come, end, are changed or wait for pods;
nodes come, go, fail and get other labels; quotas and profiles change. Objects that did not change stay the same ones, as the
planner's memory expects them to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from sys import getrefcount

import pytest

from builders.cluster import gang, known, node, running, tasks
from builders.sessions import TURNS, said
from muster.scheduling.decisions import Assignment, Decision, Join, Pack, Preempt, Requeue, Suspend
from muster.scheduling.gang import EXCLUSIVE, Gang, Placement, Sharing, gpus_by_node
from muster.scheduling.placing import demand
from muster.scheduling.planner import Planner, introspect, plan
from muster.scheduling.profile import Profile
from muster.scheduling.settings import Policy, Settings
from muster.scheduling.snapshot import Queue, Snapshot
from muster.scheduling.speed.shapes import shape
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint, Taint
from muster.scheduling.topology.node import Level, Node

STEPS = 40
QUEUES = ("default", "research", "tiny")
POOL_A = Constraint(labels=(("pool", "a"),))
TAINT = Taint("dedicated", "research")


class World:
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
        found = dict.fromkeys(self.nodes, 0)
        for one in self.gangs.values():
            for name, gpus in gpus_by_node(one.placement).items():
                found[name] |= gpus
        return found

    def carry_out(self, decisions: Sequence[Decision]) -> None:
        """Let the first of the decisions come true, mostly all."""
        for decision in decisions[: self.random.choice((1, 3, 100, 100))]:
            match decision:
                case Assignment():
                    onto = decision.onto if isinstance(decision, Pack) else ""
                    self.put(decision.gang, decision.placement, not isinstance(decision, Join), packed=onto)
                case Suspend():
                    self.put(decision.gang, decision.gang.placement, False)
                case Requeue():
                    self.put(decision.gang, (), False)
                case Preempt():
                    for victim in decision.victims:
                        self.put(victim, (), False)

    def put(self, one: Gang, placement: Placement, runs: bool, packed: str = "") -> None:
        now = self.gangs[one.name]
        attained = now.attained_at(self.now)
        self.gangs[one.name] = replace(
            now, placement=placement, running=runs and bool(placement), since=self.now, attained=attained, packed=packed
        )

    def change(self) -> None:
        """Let something happen."""
        happenings = (self.add_gang, self.add_gang, self.add_gang, self.end_gang, self.change_gang, self.measure)
        seldom = (self.add_node, self.remove_node, self.change_node, self.change_quota)
        for happening in self.random.choices((*happenings, *happenings, *seldom), k=self.random.choice((0, 1, 1, 2, 4))):
            happening()

    def add_gang(self) -> None:
        self.came += 1
        name, draw = f"g{self.came:03}", self.random.choice
        count, most = draw((1, 1, 2, 3)), draw((0, 0, 2))
        where = draw((ANYWHERE, ANYWHERE, POOL_A))
        self.gangs[name] = gang(
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
        waiting = sorted(name for name, one in self.gangs.items() if not one.placement)
        if waiting:
            name = self.random.choice(waiting)
            other = tasks(name, self.random.choice((1, 2)), self.random.choice((1, 2, 9)))
            self.gangs[name] = replace(self.gangs[name], absent=0, tasks=other, asked=None, fewest=None)

    def measure(self) -> None:
        for one in self.gangs.values():
            if one.placement and one.running and self.random.random() < 0.5:
                before = self.profiles.get(one.profile_name, Profile(utilisation=0.4, memory=0.3))
                rates = {**before.rates, (shape(one.placement, self.nodes), ()): self.random.choice((1.0, 2.0, 3.0))}
                self.profiles = {**self.profiles, one.profile_name: replace(before, rates=rates)}

    def add_node(self) -> None:
        name = f"n{self.random.randrange(8)}"
        if name not in self.nodes:
            self.nodes[name] = node(name, machine=known(self.random.choice(("pcie-8", "v100"))), rack=self.random.choice("rs"))

    def remove_node(self) -> None:
        empty = sorted(name for name, gpus in self.held().items() if not gpus)
        if empty and len(self.nodes) > 1:
            del self.nodes[self.random.choice(empty)]

    def change_node(self) -> None:
        """Let a node have other labels or taints, or let GPUs that nobody holds fail or be repaired."""
        name = self.random.choice(sorted(self.nodes))
        before = self.nodes[name]
        held = self.held()[name]
        self.nodes[name] = self.random.choice(
            (
                replace(before, labels={"pool": self.random.choice("ab")}),
                replace(before, taints=self.random.choice(((), (TAINT,)))),
                replace(before, healthy=held | self.random.randrange(before.machine.all + 1)),
            )
        )

    def change_quota(self) -> None:
        name = self.random.choice(QUEUES)
        self.queues = {**self.queues, name: Queue(name, self.random.choice((None, 2, 5, 12)))}


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("seed", range(40))
def test_planner_with_a_cache_answers_as_one_without(policy: Policy, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "ENOUGH", 4)  # few as they are, the tasks tell what comes
    world, chosen = World(seed), Settings(policy)
    planner = Planner(chosen)
    for _ in range(STEPS):
        world.change()
        snapshot = world.snapshot()
        if world.random.random() < 0.3:
            decided = planner.introspect(snapshot, world.now)
            assert decided == introspect(snapshot, world.now, chosen)
        else:
            decided = planner.plan(snapshot, world.now)
            assert decided == plan(snapshot, world.now, chosen)
        world.carry_out(decided)
        world.now += world.random.choice((0.0, 1.0, 60.0))


def test_failed_pass_leaves_nothing_behind() -> None:
    """The placement of `bad` cannot be read: the pass fails while the index takes it in, and the next one starts anew."""
    nodes, waiting = {"n": node("n", 4, free=1)}, gang("waits", 1, 1, sharing=TURNS)
    planner = Planner()
    planner.plan(Snapshot(nodes, (waiting,)), 0.0)
    with pytest.raises(AttributeError):
        planner.plan(Snapshot(nodes, (replace(waiting, priority=1), gang("bad", placement=(None,)))), 1.0)
    after = Snapshot(nodes, (replace(waiting, priority=1), gang("later", 1, 1, sharing=TURNS)))
    assert planner.plan(after, 2.0) == plan(after, 2.0)


def test_two_gangs_of_one_name_disturb_no_later_pass() -> None:
    """They are against the contract: whatever they bring, it ends with them."""
    nodes, waiting = {"n": node("n", 4, free=1)}, gang("waits", 1, 1, sharing=TURNS)
    twins = [running("twin", ("n", [0])), running("twin", ("n", [1]))]
    planner = Planner()
    planner.plan(Snapshot(nodes, (*twins, waiting)), 0.0)
    after = Snapshot(nodes, (replace(waiting, priority=1), gang("later", 1, 1, sharing=TURNS)))
    assert planner.plan(after, 1.0) == plan(after, 1.0)


def test_nothing_is_kept_of_gangs_that_have_gone() -> None:
    """What the last snapshot changed is kept until the next one; nothing is after that."""
    nodes, gone = {"n": node("n", 1, free=0)}, gang("gone", 1, 1, sharing=TURNS)
    planner, held = Planner(), getrefcount(gone)
    planner.plan(Snapshot(nodes, (gone,)), 0.0)
    for now in (1.0, 2.0):
        planner.plan(Snapshot(nodes, (gang("other", 1, 1, sharing=TURNS),)), now)
    assert getrefcount(gone) == held


@pytest.mark.parametrize("sharing", [TURNS, EXCLUSIVE])
def test_placement_on_a_node_that_has_gone_blocks_nobody(sharing: Sharing) -> None:
    lost, waiting = running("lost", ("gone", [0]), sharing=sharing), [gang(name, 1, 1, sharing=TURNS) for name in "ab"]
    snapshot = Snapshot({"n": node("n", 1)}, (lost, *waiting))
    assert said(Planner().plan(snapshot, 60.0)) == [("Place", "a"), ("Wait", "b")]
