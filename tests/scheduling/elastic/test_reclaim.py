"""Reclaim: waiting gangs get the GPUs that elastic gangs have beyond what they asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from builders.cluster import gang, node, tasks
from builders.sessions import session_of, turning
from muster.scheduling.elastic.reclaim import reclaim
from muster.scheduling.gang import Gang, Placement, Task
from muster.scheduling.topology.node import Node

NEW = gang("new", 1)


def elastic(name: str, where: str, held: int, asked: int = 1, *, servers: int = 0) -> Gang:
    """A gang of one-GPU workers that holds the first GPUs of a node, with parameter servers that need no GPU."""
    found = turning(name, *[(where, [index]) for index in range(held)], *[(where, []) for _ in range(servers)])
    others = tuple(Task(f"{name}-ps-{index}", 0, role="ps", index=index) for index in range(servers))
    members = (*tasks(name, held), *others)
    placement = tuple(one._replace(task=task) for one, task in zip(found.placement, members, strict=True))
    return replace(found, tasks=members, placement=placement, asked=asked, fewest=1)


def filled(
    nodes: Iterable[Node], there: Iterable[Gang], *waiting: Gang, queues: dict[str, int | None] | None = None
) -> dict[str, Placement]:
    """The targets after reclaim, where the gangs of `there` stay as they are; each waiting gang has reserved its quota."""
    there = list(there)
    session = session_of(nodes, [*there, *waiting], queues=queues)
    for one in waiting:
        session.quotas.reserve(one.queue, one.gpus)
    return reclaim(
        session, {one.name: one.placement for one in there}, [(one.name, one.gpus) for one in waiting], session.quotas
    )


def held(targets: dict[str, Placement]) -> dict[str, int]:
    return {name: sum(one.gpus.bit_count() for one in target) for name, target in targets.items()}


def test_waiting_gang_starts_on_gpus_beyond_what_an_elastic_gang_asked_for() -> None:
    assert held(filled([node("n", 4)], [elastic("e", "n", 4, asked=2)], NEW)) == {"e": 2, "new": 1}
    assert held(filled([node("n", 4)], [elastic("e", "n", 4, asked=4)], NEW)) == {"e": 4}


def test_idle_gpus_are_used_before_gpus_are_reclaimed() -> None:
    assert held(filled([node("n", 5)], [elastic("e", "n", 4, asked=2)], NEW)) == {"e": 4, "new": 1}


def test_only_elastic_gangs_in_the_way_give_gpus_back() -> None:
    there = [elastic("a", "m", 2), elastic("b", "n", 4)]
    assert held(filled([node("m", 2), node("n", 4)], there, gang("new", 1, 3))) == {"a": 2, "b": 1, "new": 3}


def test_reclaimed_gpus_go_to_the_first_in_rank() -> None:
    found = filled([node("n", 2)], [elastic("e", "n", 2)], NEW, gang("later", 1))
    assert held(found) == {"e": 1, "new": 1}


def test_quota_holds_and_counts_reclaimed_gpus() -> None:
    there, mine = replace(elastic("e", "n", 4), queue="q"), replace(NEW, queue="q")
    assert held(filled([node("n", 4)], [there], mine, queues={"q": 3})) == {"e": 4}
    assert held(filled([node("n", 5)], [there], gang("large", 1, 4), mine, queues={"q": 4})) == {"e": 1, "large": 4}
    assert held(filled([node("n", 5)], [there], gang("large", 1, 3), mine, queues={"q": 4})) == {"e": 1, "large": 3, "new": 1}


def test_gang_that_starts_counts_in_the_quota_of_later_ones() -> None:
    mine, later = replace(NEW, queue="q"), replace(gang("later", 1), queue="q")
    assert held(filled([node("n", 4)], [], mine, later, queues={"q": 1})) == {"new": 1}


def test_no_gang_overtakes_one_of_its_queue_that_waits_for_quota() -> None:
    large, small = replace(gang("large", 1, 8), queue="q"), replace(NEW, queue="q")
    assert filled([node("n", 4)], [], large, small, queues={"q": 8}) == {}
    assert held(filled([node("n", 4)], [], small, large, queues={"q": 8})) == {"new": 1}


def test_rest_of_a_surplus_is_for_the_next_gang() -> None:
    found = filled([node("n", 4)], [elastic("e", "n", 4)], gang("first", 1, 2), gang("later", 1))
    assert held(found) == {"e": 1, "first": 2, "later": 1}


def test_ranks_have_no_gap_after_a_reclaim() -> None:
    found = filled([node("n", 3)], [elastic("e", "n", 3, servers=1)], NEW)
    assert sorted(one.rank for one in found["e"]) == [0, 1]
