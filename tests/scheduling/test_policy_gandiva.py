"""Gandiva's policy: nodes in the paper's order (algorithm 1), turns where there are none idle."""

from __future__ import annotations

from builders.boards import TURNS, board, said, turning
from builders.cluster import gang, node, running
from muster.scheduling.mechanisms.board import Board
from muster.scheduling.policies import gandiva
from muster.scheduling.settings import Policy, Settings

SETTINGS = Settings(policy=Policy.GANDIVA)


def where(seen: Board) -> set[str]:
    return set(seen.spots(seen.gangs["new"]))


def test_first_a_server_that_serves_its_size_and_has_idle_gpus() -> None:
    there = [turning("pair", ("b", [0, 1])), turning("single", ("c", [0]))]
    seen = board([node("a", 4), node("b", 4), node("c", 4)], [*there, gang("new", 2, 1, sharing=TURNS)])
    gandiva.react(seen, SETTINGS)
    assert where(seen) == {"b"}


def test_of_these_the_least_loaded() -> None:
    there = [turning("a1", ("a", [0])), turning("a2", ("a", [1])), turning("b1", ("b", [0]))]
    seen = board([node("a", 4), node("b", 4)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(seen, SETTINGS)
    assert where(seen) == {"b"}


def test_then_an_empty_server() -> None:
    there = [turning("pair", ("a", [0, 1]))]
    seen = board([node("a", 4), node("b", 4)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(seen, SETTINGS)
    assert where(seen) == {"b"}


def test_then_idle_gpus_wherever_they_are() -> None:
    there = [turning("pair", ("a", [0, 1])), turning("four", ("b", [0, 1, 2, 3]))]
    seen = board([node("a", 4), node("b", 4)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(seen, SETTINGS)
    assert where(seen) == {"a"}


def test_then_turns_on_the_least_loaded_server_of_its_size() -> None:
    there = [
        turning("four", ("a", [0, 1, 2, 3])),
        turning("b1", ("b", [0, 1])),
        turning("b2", ("b", [2, 3])),
        turning("b3", ("b", [0, 1]), running=False),
        turning("c1", ("c", [0, 1])),
        turning("c2", ("c", [2, 3])),
    ]
    seen = board([node("a", 4), node("b", 4), node("c", 4)], [*there, gang("new", 2, 1, sharing=TURNS)])
    gandiva.react(seen, SETTINGS)
    assert where(seen) == {"c"}
    assert said(seen.decisions) == [("Join", "new")]
    assert not seen.gangs["new"].running


def test_else_it_waits_and_hears_why() -> None:
    seen = board([node("a", 4)], [turning("four", ("a", [0, 1, 2, 3])), gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(seen, SETTINGS)
    (decision,) = seen.decided()
    assert "needs 1 GPU" in decision.message


def test_gpus_of_those_who_share_nothing_are_never_oversubscribed() -> None:
    there = [running("mine", ("a", [0])), turning("single", ("a", [1]))]
    seen = board([node("a", 2)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(seen, SETTINGS)
    assert seen.spots(seen.gangs["new"]) == {"a": 0b10}


def test_gpus_that_came_free_go_to_those_who_wait_there_first() -> None:
    there = [turning("waits", ("a", [0]), running=False)]
    seen = board([node("a", 1)], [*there, gang("new", 1, 1, sharing=TURNS)])
    gandiva.react(seen, SETTINGS)
    assert said(seen.decisions)[0] == ("Resume", "waits")


def test_a_pass_takes_turns() -> None:
    there = [turning("a", ("n", [0])), turning("b", ("n", [0]), running=False)]
    seen = board([node("n", 1)], there, now=60.0)
    gandiva.introspect(seen, SETTINGS)
    assert said(seen.decisions) == [("Suspend", "a"), ("Resume", "b")]
