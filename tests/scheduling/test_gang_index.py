"""The gang index: kept up to date by the gangs that changed, whoever made their objects, and untouched by what a pass tries."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from builders.changing_cluster import ChangingCluster
from builders.cluster import gang, running, tasks
from builders.sessions import TURNS
from muster.scheduling.gang import Gang
from muster.scheduling.gang_index import Changes, GangIndex
from muster.scheduling.planner import Planner
from muster.scheduling.settings import Policy, Settings

GANGS = (
    gang("waits", 2),
    running("runs", ("n", [0, 1]), sharing=TURNS),
    running("leaves", ("n", [2]), leave=""),
    running("scaled", ("m", [0]), resize=True),
    gang("elastic", tasks=tasks("elastic", 4), asked=2, sharing=TURNS),
)
CHANGES: tuple[Callable[[Gang], Gang], ...] = (
    lambda gang: replace(gang, priority=5),
    lambda gang: replace(gang, tasks=tasks(gang.name, 1, 3)),
    lambda gang: replace(gang, placement=(), running=False),
    lambda gang: running(gang.name, ("m", [1, 2])),
    lambda gang: replace(gang, sharing=TURNS, asked=1),
    lambda gang: replace(gang, leave="n"),
)


def contents(index: GangIndex) -> tuple[object, ...]:
    """All that an index knows of gangs, in no order."""
    by_wish = (index.placed, index.waiting, index.changing, index.occupancy.gangs, index.occupancy.on_node)
    counts = (index.slicing, index.sized, index.elastic)
    return deepcopy((by_wish, counts, index.demand._counts))


def of(*gangs: Gang) -> tuple[object, ...]:
    """The contents of the index of these gangs alone."""
    index = GangIndex()
    index.follow(gangs)
    return contents(index)


def test_equal_gangs_made_anew_come_and_go_for_nobody() -> None:
    index = GangIndex()
    assert index.follow(GANGS) == Changes(list(GANGS), [])
    before = contents(index)
    made_anew = tuple(replace(one) for one in GANGS)
    assert all(new is not old for new, old in zip(made_anew, GANGS, strict=True))
    came, gone = index.follow(made_anew)
    assert (list(came), list(gone)) == ([], [])
    assert contents(index) == before


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", range(len(GANGS)))
def test_changed_gang_both_comes_and_goes(number: int, change: Callable[[Gang], Gang]) -> None:
    index = GangIndex()
    index.follow(GANGS)
    changed = change(GANGS[number])
    gangs = (*GANGS[:number], changed, *GANGS[number + 1 :])
    came, gone = index.follow(gangs)
    assert (list(came), list(gone)) == ([changed], [GANGS[number]])
    assert contents(index) == of(*gangs)


def test_index_follows_arrivals_and_ends() -> None:
    index = GangIndex()
    index.follow(GANGS[:3])
    came, gone = index.follow(GANGS[1:])
    assert (list(came), list(gone)) == (list(GANGS[3:]), [GANGS[0]])
    assert contents(index) == of(*GANGS[1:])
    index.follow(())
    assert contents(index) == of()


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("seed", range(10))
def test_index_is_that_of_the_snapshot_after_a_pass_whatever_it_decided(policy: Policy, seed: int) -> None:
    cluster, planner = ChangingCluster(seed), Planner(Settings(policy))
    for _ in range(30):
        cluster.change()
        snapshot = cluster.snapshot()
        act = planner.introspect if cluster.random.random() < 0.5 else planner.plan
        decisions = act(snapshot, cluster.now)
        assert contents(planner.cache.index) == of(*snapshot.gangs)
        cluster.carry_out(decisions)
        cluster.now += cluster.random.choice((1.0, 60.0))
