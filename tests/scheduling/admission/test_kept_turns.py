"""A gang that was taken off its GPUs by nobody's fault keeps its turn until it may start again."""

from __future__ import annotations

from typing import Any

import pytest

from builders.cluster import decide, gang, node, placed, reasons, running, world
from muster.scheduling.decisions import Wait
from muster.scheduling.gang import Gang

SOON: dict[str, Any] = {"keeps_turn": True, "not_before": 1.0}
RESTING: list[dict[str, Any]] = [SOON, {"keeps_turn": True, "stopping": True}]


def drained(gpus: int = 8, **fields: Any) -> Gang:
    return gang("drained", 1, gpus, arrived=0.0, **fields)


@pytest.mark.parametrize("fields", RESTING, ids=["backs off", "pods stop"])
def test_later_gang_does_not_take_what_it_needs(fields: dict[str, Any]) -> None:
    decisions = decide(world([node("a")], [drained(**fields), gang("later", 1, 1, arrived=1.0)]))
    assert isinstance(decisions["later"], Wait)
    assert isinstance(found := decisions["drained"], Wait)
    assert [place.node for place in found.keeps] == ["a"]


@pytest.mark.parametrize("fields", RESTING, ids=["backs off", "pods stop"])
def test_others_have_what_is_left(fields: dict[str, Any]) -> None:
    decisions = decide(world([node("a"), node("b")], [drained(**fields), gang("later", 1, 8, arrived=1.0)]))
    kept = decisions["drained"]
    assert isinstance(kept, Wait)
    assert {kept.keeps[0].node, placed(decisions["later"])[0].node} == {"a", "b"}


def test_gangs_before_it_do_not_wait_for_it() -> None:
    decisions = decide(world([node("a")], [drained(**SOON), gang("urgent", 1, 8, arrived=1.0, priority=1)]))
    assert placed(decisions["urgent"])[0].node == "a"


def test_quota_is_kept_for_it_too() -> None:
    nodes = [node("a"), node("b")]
    later = gang("later", 1, 8, arrived=1.0)
    kept = decide(world(nodes, [drained(**SOON), later], {"default": 8}))
    assert reasons(kept)["later"] == "QuotaExhausted"
    lost = decide(world(nodes, [drained(not_before=1.0), later], {"default": 8}))
    assert placed(lost["later"])


def test_gang_that_finds_no_place_at_once_reserves_nodes_as_any_that_waits() -> None:
    full = world([node("a")], [running("r", ("a", range(4))), drained(**SOON), gang("later", 1, 1, arrived=1.0)])
    assert reasons(decide(full)) == {"drained": "BackOff", "later": "BehindInQueue"}


def test_gang_without_that_claim_keeps_nothing() -> None:
    decisions = decide(world([node("a")], [drained(not_before=1.0), gang("later", 1, 8, arrived=1.0)]))
    assert placed(decisions["later"])


def test_gang_whose_pods_stop_is_not_placed() -> None:
    assert reasons(decide(world([node("a")], [drained(stopping=True)]))) == {"drained": "PodsStopping"}
