"""Elastic shares: gangs that speed up more get more GPUs, and no change is made that does not pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from builders.cluster import gang, node, running, tasks, world
from builders.sessions import TURNS, said
from muster.scheduling.decisions import Assignment, Decision, Grow, Place, Shrink
from muster.scheduling.gang import Assigned, Gang
from muster.scheduling.planner import introspect, plan
from muster.scheduling.profile import NO_NEIGHBOURS, Profile, Shape
from muster.scheduling.topology.links import gpu_set
from muster.scheduling.topology.node import Node

NOW = 100_000.0
LINEAR = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}
POOR = {1: 1.0, 2: 1.2, 4: 1.3, 8: 1.4}


def shape(*counts: int) -> Shape:
    return Shape("", counts, 12.0)


def scaling(rates: Mapping[int, float], restart: float = 0.0) -> Profile:
    """A profile with these rates by number of GPUs, each measured on one node."""
    return Profile({(shape(gpus), NO_NEIGHBOURS): value for gpus, value in rates.items()}, migrate_seconds=restart)


def elastic(name: str, most: int = 8, asked: int = 1, **fields: Any) -> Gang:
    """A waiting gang of up to `most` workers with a GPU each."""
    fields.setdefault("arrived", NOW)
    return gang(name, tasks=tasks(name, most), asked=asked, fewest=fields.pop("fewest", 1), sharing=TURNS, since=NOW, **fields)


def on(found: Gang, *spots: tuple[str, int]) -> Gang:
    """The gang as it runs on these GPUs, a worker on each."""
    placement = tuple(
        Assigned(task, where, gpu_set([index]), rank)
        for rank, (task, (where, index)) in enumerate(zip(found.tasks, spots, strict=False))
    )
    return replace(found, placement=placement, started=NOW - 3600, arrived=NOW - 3600)


def decisions(nodes: Sequence[Node], gangs: Sequence[Gang], profiles: Mapping[str, Profile], **fields: Any) -> list[Decision]:
    return list(introspect(replace(world(nodes, gangs, **fields), profiles=profiles), NOW))


def sizes(nodes: Sequence[Node], gangs: Sequence[Gang], profiles: Mapping[str, Profile], **fields: Any) -> dict[str, int]:
    """The GPUs of each gang once the decisions are carried out."""
    found = {one.name: one.held for one in gangs}
    for decision in decisions(nodes, gangs, profiles, **fields):
        placement = decision.placement if isinstance(decision, Assignment) else ()
        found[decision.gang.name] = sum(place.gpus.bit_count() for place in placement)
    return found


# Shares


def test_gang_that_speeds_up_more_gets_more_gpus() -> None:
    found = sizes([node("n", 8)], [elastic("good"), elastic("poor")], {"good": scaling(LINEAR), "poor": scaling(POOR)})
    assert found == {"good": 7, "poor": 1}


def test_gang_that_had_more_service_gets_fewer_gpus() -> None:
    gangs = [elastic("new"), elastic("old", attained=1e6)]
    found = sizes([node("n", 8)], gangs, {"new": scaling(LINEAR), "old": scaling(LINEAR)})
    assert found == {"new": 7, "old": 1}


def test_size_that_gains_little_is_skipped_for_one_that_gains_much() -> None:
    stairs = scaling({1: 1.0, 2: 1.0, 4: 4.0})
    assert sizes([node("n", 4)], [elastic("a")], {"a": stairs}) == {"a": 4}


def test_elastic_gangs_start_at_their_fewest_before_others_have_more() -> None:
    gangs = [
        elastic("a", asked=4, fewest=2),
        elastic("b", asked=4, fewest=2),
        on(elastic("big", asked=8), *[("n", i) for i in range(8)]),
    ]
    found = sizes([node("n", 8)], gangs, {"big": scaling(LINEAR), "a": scaling(POOR), "b": scaling(POOR)})
    assert found == {"a": 2, "b": 2, "big": 4}


def test_gang_never_measured_stays_at_its_fewest() -> None:
    assert sizes([node("n", 8)], [elastic("a", asked=4)], {}) == {"a": 1}


def test_gang_grows_to_the_double_of_its_largest_measured_size() -> None:
    assert sizes([node("n", 8)], [elastic("a")], {"a": scaling({1: 1.0, 2: 2.0})}) == {"a": 4}


def test_gang_of_several_nodes_has_whole_ones() -> None:
    nodes = [node("n", 4), node("m", 4), node("o", 2)]
    found = decisions(nodes, [elastic("a", most=10)], {"a": scaling(LINEAR)})
    assert isinstance(found[0], Place)
    assert {place.node for place in found[0].placement} == {"n", "m"}


@pytest.mark.parametrize(("restart", "expected"), [(0.0, 4), (170.0, 2)])
def test_gang_changes_size_only_where_that_pays_for_the_restart(restart: float, expected: int) -> None:
    there = on(elastic("a", most=4), ("n", 0), ("n", 1))
    found = sizes([node("n", 4)], [there], {"a": scaling({1: 1.0, 2: 1.9, 4: 3.6}, restart)})
    assert found == {"a": expected}


def test_profile_of_a_gang_goes_before_that_of_its_kind() -> None:
    gangs = [elastic("a", kind="k"), elastic("b", kind="k")]
    found = sizes([node("n", 8)], gangs, {"k": scaling(LINEAR), "a": scaling(POOR)})
    assert found == {"a": 1, "b": 7}


def test_elastic_gang_grows_within_its_quota() -> None:
    found = sizes([node("n", 8)], [elastic("a", queue="small")], {"a": scaling(LINEAR)}, queues={"small": 3})
    assert found == {"a": 3}


def test_higher_priority_is_served_first() -> None:
    gangs = [elastic("low"), elastic("high", priority=5)]
    found = sizes([node("n", 8)], gangs, {"low": scaling(LINEAR), "high": scaling({1: 1.0, 8: 4.0})})
    assert found == {"low": 1, "high": 7}


# Rigid gangs


def test_waiting_rigid_gang_gets_gpus_of_an_elastic_one_beyond_its_fewest() -> None:
    there = on(elastic("a"), *[("n", index) for index in range(8)])
    waits = gang("rigid", 4, 1, arrived=NOW)
    found = decisions([node("n", 8)], [there, waits], {"a": scaling(LINEAR)})
    assert said(found) == [("Shrink", "a"), ("Place", "rigid")]
    assert sizes([node("n", 8)], [there, waits], {"a": scaling(LINEAR)}) == {"a": 4, "rigid": 4}


def test_gpus_of_rigid_gangs_are_not_shared_out() -> None:
    there = running("rigid", ("n", [0, 1, 2]), sharing=TURNS, since=NOW - 60, started=NOW - 60)
    assert sizes([node("n", 8)], [there, elastic("a")], {"a": scaling(LINEAR)}) == {"rigid": 3, "a": 5}


# Decisions


def test_shrinks_come_before_grows() -> None:
    first = on(elastic("first", attained=1e6), *[("n", index) for index in range(1, 8)])
    second = on(elastic("second"), ("n", 0))
    found = decisions([node("n", 8)], [second, first], {"first": scaling(LINEAR), "second": scaling(LINEAR)})
    assert [type(decision) for decision in found] == [Shrink, Grow]
    assert all(isinstance(decision, Assignment) and decision.message and decision.effect for decision in found)


def test_gangs_that_swap_nodes_make_way_for_each_other() -> None:
    """Each of the two needs a GPU of the other to be on one node: one is requeued first, and placed in the same pass."""
    a = on(elastic("a", most=4), ("n", 0), ("m", 1))
    b = on(elastic("b", most=4), ("m", 0), ("n", 1))
    rates = {"a": scaling({1: 1.0, 2: 2.0, 4: 4.0}), "b": scaling({1: 1.0, 2: 2.0, 4: 4.0})}
    found = plan(replace(world([node("n", 4), node("m", 4)], [a, b]), profiles=rates), NOW)
    assert len(found) > 2
    held: dict[tuple[str, int], str] = {}
    for one in (a, b):
        held |= {(place.node, place.gpus): one.name for place in one.placement}
    for decision in found:
        held = {spot: name for spot, name in held.items() if name != decision.gang.name}
        for place in decision.placement if isinstance(decision, Assignment) else ():
            assert (place.node, place.gpus) not in held
            held[place.node, place.gpus] = decision.gang.name
    assert sorted(held.values()) == ["a"] * 4 + ["b"] * 4


def test_shares_that_are_right_are_left_alone() -> None:
    seen = [on(elastic("a", most=4), *[("n", index) for index in range(4)])]
    assert decisions([node("n", 4)], seen, {"a": scaling(LINEAR)}) == []


def test_elastic_gang_shrinks_at_once_for_an_arrival() -> None:
    there = on(elastic("a", most=4), *[("n", index) for index in range(4)])
    seen = replace(world([node("n", 4)], [there, elastic("b")]), profiles={"a": scaling(LINEAR)})
    assert said(plan(seen, NOW)) == [("Shrink", "a"), ("Place", "b")]


def test_gpus_that_an_elastic_gang_leaves_are_used_in_the_same_pass() -> None:
    """With one worker, as fast as two, it fits the smaller node, so the gang that needs the larger node gets it."""
    nodes = [node("large", 4), node("small", 2)]
    wide = gang("wide", 1, 4, sharing=TURNS, arrived=NOW, since=NOW)
    profiles = {"e": scaling({1: 1.0, 2: 1.0}), "wide": scaling({4: 4.0})}
    found = {one.gang.name: one for one in decisions(nodes, [on(elastic("e", 2), ("large", 0), ("small", 0)), wide], profiles)}
    assert isinstance(found["e"], Shrink)
    assert {place.node for place in found["e"].placement} == {"small"}
    assert isinstance(found["wide"], Place)
