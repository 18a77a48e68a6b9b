"""The paper's policy: nodes in the order of algorithm 1, turns where no GPU is idle."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from builders import sessions
from builders.cluster import gang, node, running, tasks, world
from builders.sessions import PACKS, TURNS, measured, said, turning
from muster.scheduling.decisions import Reason
from muster.scheduling.gang import Effect, Trial, gpus_by_node
from muster.scheduling.planner import plan
from muster.scheduling.policies.gandiva import policy as gandiva
from muster.scheduling.session import Session
from muster.scheduling.settings import Policy, Settings

SETTINGS = Settings(policy=Policy.GANDIVA)
session_of = partial(sessions.session_of, settings=SETTINGS)


def where(session: Session) -> set[str]:
    return set(gpus_by_node(session.gangs["new"].placement))


def test_gang_starts_first_on_a_node_that_serves_its_size() -> None:
    there = [turning("pair", ("b", [0, 1])), turning("single", ("c", [0]))]
    session = session_of([node("a", 4), node("b", 4), node("c", 4)], [*there, gang("new", 2, 1, sharing=TURNS)])
    gandiva.react(session)
    assert where(session) == {"b"}


def test_gang_starts_on_the_least_loaded_node_of_its_size() -> None:
    there = [turning("a1", ("a", [0])), turning("a2", ("a", [1])), turning("b1", ("b", [0]))]
    session = session_of([node("a", 4), node("b", 4)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(session)
    assert where(session) == {"b"}


def test_gang_starts_next_on_an_empty_node() -> None:
    there = [turning("pair", ("a", [0, 1]))]
    session = session_of([node("a", 4), node("b", 4)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(session)
    assert where(session) == {"b"}


def test_gang_starts_next_on_idle_gpus_of_any_node() -> None:
    there = [turning("pair", ("a", [0, 1])), turning("four", ("b", [0, 1, 2, 3]))]
    session = session_of([node("a", 4), node("b", 4)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(session)
    assert where(session) == {"a"}


def test_gang_without_idle_gpus_takes_turns_on_the_least_loaded_node_of_its_size() -> None:
    there = [
        turning("four", ("a", [0, 1, 2, 3])),
        turning("b1", ("b", [0, 1])),
        turning("b2", ("b", [2, 3])),
        turning("b3", ("b", [0, 1]), running=False),
        turning("c1", ("c", [0, 1])),
        turning("c2", ("c", [2, 3])),
    ]
    session = session_of([node("a", 4), node("b", 4), node("c", 4)], [*there, gang("new", 2, 1, sharing=TURNS)])
    gandiva.react(session)
    assert where(session) == {"c"}
    assert said(session.decisions) == [("Join", "new")]
    assert not session.gangs["new"].running


def test_gang_without_a_node_of_its_size_waits_with_a_reason() -> None:
    session = session_of([node("a", 4)], [turning("four", ("a", [0, 1, 2, 3])), gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(session)
    (decision,) = session.decided()
    assert "needs 1 GPU" in decision.message


def test_gpus_of_exclusive_gangs_are_never_oversubscribed() -> None:
    there = [running("mine", ("a", [0])), turning("single", ("a", [1]))]
    session = session_of([node("a", 2)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(session)
    assert gpus_by_node(session.gangs["new"].placement) == {"a": 0b10}


def test_freed_gpus_go_first_to_the_gang_suspended_there() -> None:
    there = [turning("waits", ("a", [0]), running=False)]
    session = session_of([node("a", 1)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(session)
    assert said(session.decisions)[0] == ("Resume", "waits")


def test_introspective_pass_takes_turns() -> None:
    there = [turning("a", ("n", [0])), turning("b", ("n", [0]), running=False)]
    session = session_of([node("n", 1)], there, now=60.0)
    gandiva.introspect(session)
    assert said(session.decisions) == [("Suspend", "a"), ("Resume", "b")]


def test_quotas_hold_for_gangs_that_take_turns() -> None:
    there = [turning("mine", ("a", [0]), queue="q")]
    new = [gang("head", 2, 1, sharing=TURNS, queue="q"), gang("small", 1, 1, sharing=TURNS, queue="q", arrived=1.0)]
    session = session_of([node("a", 4)], [*there, *new], queues={"q": 2})
    gandiva.react(session)
    assert [(wait.gang.name, wait.reason, wait.message) for wait in session.waits.values()] == [
        ("head", Reason.QUOTA_EXHAUSTED, "needs 2 GPUs; queue q uses 1 of 2 GPUs"),
        ("small", Reason.BEHIND_IN_QUEUE, "comes after head, which waits for quota of q"),
    ]


def test_gang_that_lacks_pods_or_backs_off_does_not_start() -> None:
    new = [gang("absent", sharing=TURNS, absent=1), gang("later", sharing=TURNS, not_before=100.0)]
    decisions = plan(world([node("a", 4)], new), 50.0, SETTINGS)
    assert [(decision.gang.name, decision.reason) for decision in decisions] == [
        ("absent", Reason.PODS_ABSENT),
        ("later", Reason.BACK_OFF),
    ]


def test_gpus_left_by_a_migration_are_used_in_the_same_pass() -> None:
    """The gang suspended on the crowded node resumes as soon as its neighbour moves away."""
    there = [turning("a", ("m", [0])), turning("b", ("m", [0]), running=False)]
    session = session_of([node("m", 1), node("n", 1)], there)
    gandiva.introspect(session)
    assert all(one.running for one in session.gangs.values())


def test_gang_that_joins_a_node_with_unused_gpus_runs_at_once() -> None:
    wide = turning("wide", ("a", [0, 1]), ("b", [0, 1]), running=False)
    first = turning("first", ("b", [0, 1]), priority=5)
    new = gang("new", tasks=tasks("new", 1, 2), sharing=TURNS, priority=1)
    for act in (gandiva.react, gandiva.introspect):
        session = session_of([node("a", 2), node("b", 2)], [wide, first, new])
        act(session)
        assert session.gangs["new"].running


@pytest.mark.parametrize(("slices", "joins"), [(9, False), (11, True)])
def test_gang_that_waited_ten_slices_takes_turns_on_any_node(slices: int, joins: bool) -> None:
    session = session_of(
        [node("a", 4)],
        [turning("four", ("a", [0, 1, 2, 3])), gang("new", 1, 1, sharing=TURNS)],
        now=slices * SETTINGS.slice_seconds,
    )
    gandiva.react(session)
    assert (("Join", "new") in said(session.decisions)) is joins


def test_grown_gang_shrinks_for_an_exclusive_gang() -> None:
    grown = replace(turning("grown", ("a", [0]), ("a", [1])), asked=1, fewest=1)
    decisions = plan(world([node("a", 2)], [grown, gang("mine")]), 0.0, SETTINGS)
    assert ("Shrink", "grown") in said(decisions)


def packed_pair(rate: float) -> Session:
    """Two gangs packed onto one GPU that each reach `rate` of the 10 mini-batches/s that they reach alone."""
    there = turning("a", ("n", [0]), sharing=PACKS, kind="k")
    trial = Trial("Pack", 0.0, Effect(1.0, 1.6), there.placement)
    guest = replace(there, name="b", packed="a", trial=trial)
    server = [node("n", 1)]
    profile = measured(there, server, 10.0, {("k",): rate}, utilisation=0.3, memory=0.3)
    return session_of(server, [there, guest], 60.0, {"k": profile})


@pytest.mark.parametrize(("rate", "verbs"), [(8.0, []), (3.0, [("Unpack", "b"), ("Suspend", "a"), ("Resume", "b")])])
def test_slow_packing_is_undone_and_turns_are_taken_again(rate: float, verbs: list[tuple[str, str]]) -> None:
    session = packed_pair(rate)
    gandiva.introspect(session)
    assert said(session.decisions) == verbs


def test_no_gang_is_packed_while_there_are_gpus_for_all() -> None:
    there = [
        turning("a", ("n", [0]), sharing=PACKS, kind="k"),
        turning("b", ("n", [0]), sharing=PACKS, kind="k", running=False),
    ]
    servers = [node("m", 4), node("n", 1)]
    profile = measured(there[0], servers, 10.0, {("k",): 8.0}, utilisation=0.3, memory=0.3)
    session = session_of(servers, there, 60.0, {"k": profile})
    gandiva.introspect(session)
    assert "Pack" not in {verb for verb, _ in said(session.decisions)}


def test_no_gang_grows_while_another_waits() -> None:
    grows = turning("grows", ("a", [0]), asked=1)
    grows = replace(grows, tasks=tasks("grows", 4))
    large = gang("large", tasks=tasks("large", 1, 4))
    for gangs, verbs in (([grows], ["Grow"]), ([grows, large], [])):
        session = session_of([node("a", 4)], gangs, now=3600.0)
        gandiva.introspect(session)
        assert [verb for verb, _ in said(session.decisions)] == verbs
