"""A planner with a cache answers as one without, whatever happens between passes, and works out again only what changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from sys import getrefcount
from typing import Any

import pytest

from builders.changing_cluster import ChangingCluster
from builders.cluster import gang, node, running, world
from builders.sessions import TURNS, said
from muster.scheduling.gang import EXCLUSIVE, Sharing
from muster.scheduling.placing import demand
from muster.scheduling.planner import Planner, introspect, plan
from muster.scheduling.planner_cache import GangFacts
from muster.scheduling.profile import NO_NEIGHBOURS, CoLocation, Profile, Shape
from muster.scheduling.settings import Policy, Settings
from muster.scheduling.snapshot import Queue, Snapshot
from muster.scheduling.speed.rates import Rates
from muster.scheduling.time_sharing.rank import Rank
from muster.scheduling.topology.fleet import Fleet

STEPS = 40


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("seed", range(40))
def test_planner_with_a_cache_answers_as_one_without(policy: Policy, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "ENOUGH", 4)  # few as they are, the tasks tell what comes
    cluster, chosen = ChangingCluster(seed), Settings(policy)
    planner = Planner(chosen)
    for _ in range(STEPS):
        cluster.change()
        snapshot = cluster.snapshot()
        if cluster.random.random() < 0.3:
            decided = planner.introspect(snapshot, cluster.now)
            assert decided == introspect(snapshot, cluster.now, chosen)
        else:
            decided = planner.plan(snapshot, cluster.now)
            assert decided == plan(snapshot, cluster.now, chosen)
        cluster.carry_out(decided)
        cluster.now += cluster.random.choice((0.0, 1.0, 60.0))


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


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("seed", range(20))
def test_snapshots_made_anew_get_the_same_answers(policy: Policy, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator makes some gangs and nodes anew for each pass: that costs comparisons, and changes nothing."""
    monkeypatch.setattr(demand, "ENOUGH", 4)
    cluster, chosen = ChangingCluster(seed), Settings(policy)
    planner = Planner(chosen)
    for _ in range(20):
        cluster.change()
        for _ in range(2):
            snapshot = made_anew(cluster.snapshot())
            act, anew = (planner.introspect, introspect) if cluster.random.random() < 0.5 else (planner.plan, plan)
            decisions = act(snapshot, cluster.now)
            assert decisions == anew(snapshot, cluster.now, chosen)
        cluster.carry_out(decisions)
        cluster.now += cluster.random.choice((1.0, 60.0))


def measured_snapshot() -> Snapshot:
    """Gangs that run on all GPUs but one, of a kind with measured rates, and one that waits."""
    nodes = [node("fast", 2, model="V100"), node("slow", 2, model="K80")]
    there = [running(name, (where, [0]), sharing=TURNS, kind="k") for name, where in (("a", "fast"), ("b", "slow"))]
    other = running("other", ("slow", [1]), sharing=TURNS, kind="k")
    waits = gang("waits", 4, sharing=TURNS, kind="k")
    rates: dict[tuple[Shape, CoLocation], float] = {
        (Shape(model, (1,), float("inf")), ()): rate for model, rate in (("V100", 2.0), ("K80", 1.9))
    }
    return replace(world(nodes, [*there, other, waits]), profiles={"k": Profile(rates)})


MEASURED = measured_snapshot()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the classes of which objects were made since, of those that the cache keeps."""
    names: list[str] = []

    def watch(kind: type) -> None:
        construct: Callable[..., None] = vars(kind)["__init__"]

        def noting(self: object, *args: Any, **fields: Any) -> None:
            names.append(kind.__name__)
            construct(self, *args, **fields)

        monkeypatch.setattr(kind, "__init__", noting)

    for kind in (Fleet, GangFacts, Rank, Rates):
        watch(kind)
    return names


@pytest.mark.parametrize(
    ("policy", "kept"), [(Policy.MUSTER, {"Fleet", "GangFacts", "Rank", "Rates"}), (Policy.GANDIVA, {"Fleet", "Rates"})]
)
def test_nothing_is_worked_out_again_for_equal_snapshots(policy: Policy, kept: set[str], made: list[str]) -> None:
    planner = Planner(Settings(policy))
    first = [act(made_anew(MEASURED), 60.0) for act in (planner.plan, planner.introspect)]
    assert kept <= set(made)
    made.clear()
    for _ in range(3):
        assert [act(made_anew(MEASURED), 60.0) for act in (planner.plan, planner.introspect)] == first
    assert made == []


CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a rate is measured": ({"profiles": {**MEASURED.profiles, "other": Profile(memory=0.5)}}, ["Rates"]),
    "nodes get a label": (
        {"nodes": {name: replace(node, labels={"new": ""}) for name, node in MEASURED.nodes.items()}},
        ["Fleet", "GangFacts", "Rates"],
    ),
    "the waiting gang asks for less": (
        {"gangs": (*MEASURED.gangs[:-1], replace(MEASURED.gangs[-1], tasks=MEASURED.gangs[-1].tasks[:-1]))},
        ["GangFacts", "Rank"],
    ),
    "a quota is set": ({"queues": {"default": Queue("default", 3)}}, []),
    "a gang ends": ({"ended": (60.0,)}, []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_a_change_makes_wrong_is_worked_out_again(change: str, made: list[str]) -> None:
    planner, (changed, expected) = Planner(), CHANGES[change]
    planner.plan(MEASURED, 60.0)
    made.clear()
    planner.plan(replace(made_anew(MEASURED), **changed), 60.0)
    assert sorted(made) == expected


def made_anew(snapshot: Snapshot) -> Snapshot:
    """An equal snapshot of other gangs, nodes and profiles; machine types stay, of which there is one for each link matrix."""
    return replace(
        snapshot,
        nodes={name: replace(one, labels=dict(one.labels)) for name, one in snapshot.nodes.items()},
        gangs=tuple(replace(one, tasks=tuple(replace(task) for task in one.tasks)) for one in snapshot.gangs),
        queues={name: replace(queue) for name, queue in snapshot.queues.items()},
        profiles={name: replace(profile, rates=dict(profile.rates)) for name, profile in snapshot.profiles.items()},
    )


def test_gang_moves_once_its_rate_elsewhere_is_measured_though_nothing_else_changed() -> None:
    """A search that found nothing is not repeated; a new rate is a reason to search again."""
    snapshot = world(
        [node("fast", 1, model="V100"), node("slow", 1, model="K80")], [running("a", ("slow", [0]), sharing=TURNS)]
    )
    here, there = ((Shape(model, (1,), float("inf")), NO_NEIGHBOURS) for model in ("K80", "V100"))
    planner = Planner()
    assert planner.introspect(replace(snapshot, profiles={"a": Profile({here: 1.0})}), 36_000.0) == []
    measured = replace(snapshot, profiles={"a": Profile({here: 1.0, there: 2.0})})
    assert said(planner.introspect(measured, 36_060.0)) == [("Migrate", "a")]
