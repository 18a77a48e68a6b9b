"""Nodes that refused a gang's pods: it takes and reserves none of them, and says what they said."""

from __future__ import annotations

from builders.cluster import decide, gang, node, reasons, running, victims, world
from muster.scheduling.decisions import Reason, Wait
from muster.scheduling.gang import Gang

NODES = [node(f"n{i}", 4) for i in range(4)]
CARD = "0/4 nodes are available: 4 Insufficient rdma/hca"


def refused(*nodes: int, words: str = CARD) -> dict[str, str]:
    return {f"n{i}": words for i in nodes}


def why(waits: Gang, *others: Gang) -> str:
    wait = decide(world(NODES, [waits, *others]))[waits.name]
    assert isinstance(wait, Wait)
    return wait.message


def test_gang_that_every_node_refused_waits_and_says_what_they_said() -> None:
    message = why(gang("g", 4, refused=refused(0, 1, 2) | refused(3, words="volume node affinity conflict")))
    assert message.endswith(f"; 4 nodes refused it: 3 (n0, ...) with: {CARD}; 1 (n3) with: volume node affinity conflict")


def test_sentence_has_few_of_many_words() -> None:
    message = why(gang("g", 4, refused={f"n{i}": f"words {i}" for i in range(4)}))
    assert message.endswith("1 (n0) with: words 0; 1 (n1) with: words 1; 1 (n2) with: words 2; 1 other answers")


def test_gang_that_every_node_refused_costs_nobody_anything() -> None:
    low, high = gang("low", 4, 4), gang("high", 1, 4, priority=9, refused=refused(0, 1, 2, 3))
    assert reasons(decide(world(NODES, [low, high]))) == {"low": Reason.PLACED, "high": Reason.NEVER_FITS}


def test_waiting_gang_reserves_no_node_that_refused_it() -> None:
    holds = running("holds", ("n3", range(4)), preemptible=False)
    first, second = gang("first", 1, 4, refused=refused(0, 1, 2), arrived=1), gang("second", 3, 4, arrived=2)
    decided = reasons(decide(world(NODES, [holds, first, second])))
    assert decided == {"first": Reason.INSUFFICIENT_GPUS, "second": Reason.PLACED}


def test_gangs_that_ask_alike_are_not_held_for_what_refused_one_of_them() -> None:
    holds = running("holds", ("n3", range(4)), preemptible=False)
    first, second = gang("first", 1, 4, refused=refused(0, 1, 2), arrived=1), gang("second", 1, 4, arrived=2)
    third = gang("third", 1, 4, arrived=3)
    decided = reasons(decide(world(NODES, [holds, first, second, third])))
    assert decided == {"first": Reason.INSUFFICIENT_GPUS, "second": Reason.PLACED, "third": Reason.PLACED}


def test_nodes_that_refused_a_gang_are_not_emptied_for_it() -> None:
    low = [running(f"low{i}", (f"n{i}", range(4))) for i in range(4)]
    high = gang("high", 1, 4, priority=9, refused=refused(0, 1, 2))
    assert victims(decide(world(NODES, [*low, high]))["high"]) == ["low3"]
