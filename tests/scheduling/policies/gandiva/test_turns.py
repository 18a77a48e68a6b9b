"""Time slices: which gangs run in the next one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.cluster import node, running
from builders.sessions import TURNS, said, session_of, turning
from muster.scheduling.gang import Sharing, gpus_by_node
from muster.scheduling.policies.gandiva import turns


def test_waiting_gang_runs_next_and_running_gang_is_suspended() -> None:
    session = session_of([node("n", 1)], [turning("a", ("n", [0])), turning("b", ("n", [0]), running=False)], now=60.0)
    turns.next_slice(session)
    assert said(session.decisions) == [("Suspend", "a"), ("Resume", "b")]


def test_no_gang_is_suspended_where_none_waits() -> None:
    session = session_of([node("n", 2)], [turning("a", ("n", [0])), turning("b", ("n", [1]))], now=60.0)
    turns.next_slice(session)
    assert session.decisions == []


def test_gang_that_waited_longest_runs_next() -> None:
    gangs = [
        turning("ran", ("n", [0])),
        turning("new", ("n", [0]), running=False, since=50.0),
        turning("old", ("n", [0]), running=False, since=10.0),
    ]
    session = session_of([node("n", 1)], gangs, now=60.0)
    turns.next_slice(session)
    assert said(session.decisions) == [("Suspend", "ran"), ("Resume", "old")]


def test_weight_multiplies_the_time_waited() -> None:
    gangs = [
        turning("ran", ("n", [0])),
        turning("heavy", ("n", [0]), running=False, since=20.0, sharing=Sharing(slices=True, weight=2.0)),
        turning("light", ("n", [0]), running=False, since=0.0),
    ]
    session = session_of([node("n", 1)], gangs, now=60.0)
    turns.next_slice(session)
    assert ("Resume", "heavy") in said(session.decisions)


def test_gang_of_two_nodes_gets_both_in_the_same_slice() -> None:
    wide = turning("wide", ("m", [0]), ("n", [0]), running=False)
    gangs = [turning("a", ("m", [0])), turning("b", ("n", [0])), wide]
    session = session_of([node("m", 1), node("n", 1)], gangs, now=60.0)
    turns.next_slice(session)
    assert said(session.decisions) == [("Suspend", "a"), ("Suspend", "b"), ("Resume", "wide")]


def test_gang_that_cannot_have_all_its_nodes_suspends_nobody() -> None:
    wide = turning("wide", ("m", [0]), ("n", [0]), running=False)
    gangs = [turning("a", ("m", [0])), turning("first", ("n", [0]), priority=5), wide]
    session = session_of([node("m", 1), node("n", 1)], gangs, now=60.0)
    turns.next_slice(session)
    assert session.decisions == []


def test_higher_priority_is_never_suspended_for_a_lower_one() -> None:
    gangs = [turning("high", ("n", [0]), priority=5), turning("low", ("n", [0]), running=False)]
    session = session_of([node("n", 1)], gangs, now=6000.0)
    turns.next_slice(session)
    assert session.decisions == []


def test_exclusive_gang_keeps_its_gpus() -> None:
    gangs = [running("mine", ("n", [0])), turning("waits", ("n", [0]), running=False)]
    session = session_of([node("n", 1)], gangs, now=60.0)
    turns.next_slice(session)
    assert session.decisions == []


def test_packed_gangs_take_their_turn_together() -> None:
    pair = [turning("a", ("n", [0])), turning("b", ("n", [0]), packed="a")]
    session = session_of([node("n", 1)], [*pair, turning("c", ("n", [0]), running=False)], now=60.0)
    turns.next_slice(session)
    assert said(session.decisions) == [("Suspend", "a"), ("Suspend", "b"), ("Resume", "c")]


def test_packed_pair_resumes_on_the_same_gpus() -> None:
    pair = [replace(turning(name, ("n", [0]), packed=packed), running=False) for name, packed in (("a", ""), ("b", "a"))]
    session = session_of([node("n", 2)], [*pair, turning("c", ("n", [0])), turning("d", ("n", [1]))], now=60.0)
    turns.next_slice(session)
    assert gpus_by_node(session.gangs["a"].placement) == gpus_by_node(session.gangs["b"].placement)
    assert session.gangs["a"].running
    assert session.gangs["b"].running


def test_freed_gpus_resume_a_gang_and_suspend_none() -> None:
    gangs = [turning("a", ("n", [0])), turning("b", ("n", [1]), running=False), turning("c", ("n", [0]), running=False)]
    session = session_of([node("n", 2)], gangs, now=30.0)
    turns.fill(session, ["n"])
    assert said(session.decisions) == [("Resume", "b")]


@pytest.mark.parametrize("gangs", [2, 3, 5, 6])
def test_gangs_of_equal_weight_run_equally_often(gangs: int) -> None:
    names = [f"g{index}" for index in range(gangs)]
    now, there = 0.0, [replace(turning(name, ("n", [0])), running=name in names[:1]) for name in names]
    ran = dict.fromkeys(names, 0)
    for _ in range(gangs * 6):
        now += 60.0
        ran = {name: count + there[names.index(name)].running for name, count in ran.items()}
        session = session_of([node("n", 1)], there, now)
        turns.next_slice(session)
        there = [session.gangs[name] for name in names]
    assert set(ran.values()) == {6}


def test_gang_of_double_weight_runs_more_often() -> None:
    names = {"heavy": 2.0, "a": 1.0, "b": 1.0}
    there = [replace(turning(n, ("n", [0]), sharing=replace(TURNS, weight=w)), running=n == "a") for n, w in names.items()]
    now, ran = 0.0, dict.fromkeys(names, 0)
    for _ in range(60):
        now += 60.0
        for gang in there:
            ran[gang.name] += gang.running
        session = session_of([node("n", 1)], there, now)
        turns.next_slice(session)
        there = [session.gangs[name] for name in names]
    assert ran["heavy"] >= 1.5 * max(ran["a"], ran["b"])
    assert min(ran.values()) > 0


def test_heavier_gang_has_the_longer_turn() -> None:
    heavy = turning("heavy", ("n", [0]), sharing=replace(TURNS, weight=2.0), since=0.0)
    gangs = [heavy, turning("light", ("n", [1]), since=20.0), turning("waits", ("n", [0]), running=False)]
    session = session_of([node("n", 2)], gangs, now=60.0)
    turns.next_slice(session)
    assert said(session.decisions) == [("Suspend", "light"), ("Resume", "waits")]


def test_packed_gangs_have_the_turn_of_the_first_of_them() -> None:
    pair = [turning("a", ("n", [0])), turning("b", ("n", [0]), packed="a", priority=5)]
    session = session_of([node("n", 1)], [*pair, turning("c", ("n", [0]), running=False, priority=3)], now=60.0)
    turns.next_slice(session)
    assert session.decisions == []


def test_suspended_gang_rejoins_the_running_gang_that_it_is_packed_with() -> None:
    pair = [turning("a", ("n", [0])), turning("b", ("n", [0]), packed="a", running=False)]
    session = session_of([node("n", 1)], pair, now=60.0)
    turns.next_slice(session)
    assert said(session.decisions) == [("Resume", "b")]


def test_gang_resumes_on_other_gpus_of_its_node_where_its_own_are_used() -> None:
    gangs = [turning("a", ("n", [0])), turning("wide", ("n", [0, 1]), running=False)]
    session = session_of([node("n", 3)], gangs, now=60.0)
    turns.fill(session, ["n"])
    assert said(session.decisions) == [("Resume", "wide")]
    assert gpus_by_node(session.gangs["wide"].placement) == {"n": 0b110}
