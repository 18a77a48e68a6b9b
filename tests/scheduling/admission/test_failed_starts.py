"""A gang whose last start failed costs nobody anything: it takes what is free in its turn, and no more."""

from __future__ import annotations

import pytest

from builders.cluster import decide, gang, node, placed, reasons, running, world
from builders.sessions import TURNS, said
from muster.scheduling.decisions import Wait
from muster.scheduling.planner import plan

LOW = running("low", ("a", range(7)), priority=-1)


def test_it_preempts_nobody() -> None:
    assert isinstance(decide(world([node("a")], [LOW, gang("failed", 1, 8, start_failed=True)]))["failed"], Wait)


def test_it_reserves_no_nodes_from_gangs_behind_it() -> None:
    behind = gang("behind", 1, 1, arrived=1.0)
    decisions = decide(world([node("a")], [LOW, gang("failed", 1, 8, start_failed=True), behind]))
    assert placed(decisions["behind"])[0].node == "a"
    assert reasons(decide(world([node("a")], [LOW, gang("waits", 1, 8, preempts=False), behind])))["behind"] == "BehindInQueue"


def test_it_reserves_no_quota_from_gangs_behind_it() -> None:
    behind = gang("behind", 1, 1, arrived=1.0)
    for failed in (gang("failed", 1, 8, start_failed=True), gang("failed", 2, 4, start_failed=True)):
        decisions = decide(world([node("a")], [LOW, failed, behind], {"default": 8}))
        assert placed(decisions["behind"])


def test_it_starts_again_in_its_turn() -> None:
    decisions = decide(world([node("a")], [gang("failed", 1, 8, start_failed=True), gang("behind", 1, 8, arrived=1.0)]))
    assert placed(decisions["failed"])


@pytest.mark.parametrize("failed", [False, True])
def test_it_takes_no_turn_of_others(failed: bool) -> None:
    """However long it has waited: it would take the GPUs of a gang that runs, and fail again."""
    long = running("long", ("a", range(8)), sharing=TURNS)
    starved = gang("starved", 1, 8, arrived=1e4, since=1e4, sharing=TURNS, start_failed=failed)
    decisions = said(plan(world([node("a")], [long, starved]), 1e5))
    assert (("Requeue", "long") in decisions) is not failed
