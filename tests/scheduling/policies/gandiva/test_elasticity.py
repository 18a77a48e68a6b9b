"""Elastic gangs grow to GPUs that stay idle, and shrink when others need them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from builders.cluster import node, tasks
from builders.sessions import said, session_of, turning
from muster.scheduling.gang import Assigned, Gang, Task, gpus_by_node
from muster.scheduling.policies.gandiva import elasticity
from muster.scheduling.resources import Resources


def elastic(held: int, most: int, asked: int = 1, **fields: Any) -> Gang:
    """A running gang with `held` workers of one GPU each, which asked for `asked` and may have `most`."""
    workers = tasks("e", most)
    gang = turning("e", *[("n", [index]) for index in range(held)], asked=asked, fewest=1, **fields)
    placement = tuple(place._replace(task=workers[index]) for index, place in enumerate(gang.placement))
    return replace(gang, tasks=workers, placement=placement)


def test_gang_grows_to_gpus_of_its_node_that_stayed_idle() -> None:
    session = session_of([node("n", 4), node("m", 4)], [elastic(1, 8)], now=600.0)
    elasticity.grow(session, 600.0)
    assert said(session.decisions) == [("Grow", "e")]
    assert session.gangs["e"].held == 4
    assert set(gpus_by_node(session.gangs["e"].placement)) == {"n"}


def test_gang_does_not_grow_before_gpus_stayed_idle_long_enough() -> None:
    session = session_of([node("n", 4)], [elastic(1, 4)], now=599.0)
    elasticity.grow(session, 600.0)
    assert session.decisions == []


def test_gang_grows_no_further_than_its_largest_size() -> None:
    session = session_of([node("n", 4)], [elastic(1, 2)], now=600.0)
    elasticity.grow(session, 600.0)
    assert session.gangs["e"].held == 2


def test_gang_does_not_grow_onto_gpus_of_suspended_neighbours() -> None:
    session = session_of([node("n", 4)], [elastic(1, 4), turning("b", ("n", [1, 2]), running=False)], now=600.0)
    elasticity.grow(session, 600.0)
    assert session.gangs["e"].held == 2


def test_grown_gang_shrinks_at_once_to_the_size_it_asked_for() -> None:
    session = session_of([node("n", 4)], [elastic(4, 4, asked=2)], now=1.0)
    assert elasticity.shrink(session, "n", 2)
    assert said(session.decisions) == [("Shrink", "e")]
    assert [place.task.index for place in session.gangs["e"].placement] == [0, 1]
    assert session.idle("n") == 0b1100


def test_ranks_have_no_gap_after_a_shrink() -> None:
    grown = elastic(3, 3)
    server = Assigned(Task("ps", 0, role="ps"), "n", 0, 3)
    session = session_of(
        [node("n", 4)], [replace(grown, tasks=(*grown.tasks, server.task), placement=(*grown.placement, server))]
    )
    assert elasticity.shrink(session, "n", 2)
    assert [(place.task.role, place.rank) for place in session.gangs["e"].placement] == [("worker", 0), ("ps", 1)]


def test_grown_gang_gives_back_no_more_than_is_needed() -> None:
    session = session_of([node("n", 4)], [elastic(4, 4, asked=1)], now=1.0)
    assert elasticity.shrink(session, "n", 2)
    assert session.gangs["e"].held == 2


def test_gang_of_the_size_it_asked_for_does_not_shrink() -> None:
    session = session_of([node("n", 4)], [elastic(2, 4, asked=2)], now=1.0)
    assert not elasticity.shrink(session, "n", 2)


def test_gang_grows_within_the_quota_of_its_queue() -> None:
    session = session_of([node("n", 4)], [elastic(1, 4, queue="q")], now=600.0, queues={"q": 2})
    elasticity.grow(session, 600.0)
    assert session.gangs["e"].held == 2


def test_gang_grows_only_as_far_as_its_node_has_room_for_pods() -> None:
    session = session_of([node("n", 4, resources=Resources(pods=3))], [elastic(1, 4)], now=600.0)
    elasticity.grow(session, 600.0)
    assert session.gangs["e"].held == 3


def test_growing_leaves_no_gap_in_the_worker_indices() -> None:
    """A worker that does not fit is not skipped for a later one: indices of workers have no gap."""
    grown = elastic(1, 3)
    large = replace(grown, tasks=(grown.tasks[0], replace(grown.tasks[1], gpus=4), grown.tasks[2]))
    session = session_of([node("n", 4)], [large], now=600.0)
    elasticity.grow(session, 600.0)
    assert session.decisions == []


def test_shrinking_everywhere_shrinks_on_every_node() -> None:
    other = replace(turning("f", ("m", [0]), ("m", [1])), asked=1, fewest=1)
    session = session_of([node("m", 2), node("n", 2)], [elastic(2, 2), other], now=1.0)
    elasticity.shrink_everywhere(session, 1)
    assert said(session.decisions) == [("Shrink", "f"), ("Shrink", "e")]
    elasticity.shrink_everywhere(session, 1)
    assert said(session.decisions) == [("Shrink", "f"), ("Shrink", "e")], "a gang shrinks only once a pass"


def test_packed_gang_and_gang_of_two_nodes_do_not_grow() -> None:
    packed = [elastic(1, 4, packed="b"), turning("b", ("n", [0]))]
    apart = replace(turning("apart", ("m", [0]), ("o", [0])), asked=2)
    apart = replace(apart, tasks=tasks("apart", 4))
    session = session_of([node("m", 4), node("n", 4), node("o", 4)], [*packed, apart], now=600.0)
    elasticity.grow(session, 600.0)
    assert session.decisions == []


def test_grown_gang_keeps_what_it_asked_for_however_much_is_needed() -> None:
    session = session_of([node("n", 4)], [elastic(4, 4, asked=2)], now=1.0)
    assert elasticity.shrink(session, "n", 100)
    assert session.gangs["e"].held == 2
