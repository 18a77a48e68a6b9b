"""A planner with a cache answers as one without, whatever happens between passes, and works out again only what changed."""

from __future__ import annotations

from dataclasses import replace
from sys import getrefcount

import pytest

from builders.changing_cluster import ChangingCluster
from builders.cluster import gang, node, running
from builders.sessions import TURNS, said
from muster.scheduling.gang import EXCLUSIVE, Sharing
from muster.scheduling.placing import demand
from muster.scheduling.planner import Planner, introspect, plan
from muster.scheduling.settings import Policy, Settings
from muster.scheduling.snapshot import Snapshot

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
