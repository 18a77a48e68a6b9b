"""Migration: moves that pay for the gang itself, or for gangs to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from builders.cluster import known, node, tasks
from builders.sessions import TURNS, said, session_of, turning
from muster.scheduling.gang import Gang, Sensitivity, gpus_by_node
from muster.scheduling.policies.gandiva import migration
from muster.scheduling.profile import Profile
from muster.scheduling.session import Session
from muster.scheduling.speed.shapes import shape_of
from muster.scheduling.topology.node import Node

SERVERS = [node("m", machine=known("aws-4gpu")), node("n", machine=known("aws-4gpu"))]


def apart(**fields: Any) -> Gang:
    """A gang of two GPUs on two servers that would fit on one."""
    fields.setdefault("sensitivity", Sensitivity.HIGH)
    return turning("apart", ("m", [0]), ("n", [0]), **fields)


def measured_session(nodes: Sequence[Node], gangs: Sequence[Gang], now: float = 3600.0) -> Session:
    """A session in which the first gang was measured where it is, and twice as fast on any two GPUs of one node."""
    session, gang = session_of(nodes, gangs, now), gangs[0]
    pairs = [{node.name: 1 << one | 1 << other} for node in nodes for one, other in combinations(range(node.machine.gpus), 2)]
    rates = {
        (shape_of(gpus, session.nodes), session.occupancy.co_location(gang.name, gpus, session.nodes)): rate
        for gpus, rate in [*((pair, 2.0) for pair in pairs), (gpus_by_node(gang.placement), 1.0)]
    }
    return session_of(nodes, gangs, now, {gang.name: Profile(rates)})


def test_gang_on_two_nodes_moves_to_one_with_enough_idle_gpus() -> None:
    session = measured_session(SERVERS, [apart()])
    migration.improve(session)
    assert said(session.decisions) == [("Migrate", "apart")]
    assert len(gpus_by_node(session.gangs["apart"].placement)) == 1


def test_gang_of_which_no_rate_was_measured_is_not_moved_for_speed() -> None:
    session = session_of(SERVERS, [apart()], now=3600.0)
    migration.improve(session)
    assert session.decisions == []


def test_gang_insensitive_to_links_stays() -> None:
    session = session_of(SERVERS, [apart(sensitivity=Sensitivity.LOW)], now=3600.0)
    migration.improve(session)
    assert session.decisions == []


def test_gang_stays_where_a_move_costs_more_than_it_gains() -> None:
    profile = Profile(migrate_seconds=3000.0)
    session = session_of(SERVERS, [apart()], 60.0, {"apart": profile})
    migration.improve(session)
    assert session.decisions == []


def test_exclusive_gang_is_never_moved() -> None:
    session = session_of(SERVERS, [apart(sharing=replace(TURNS, slices=False))], now=3600.0)
    migration.improve(session)
    assert session.decisions == []


def test_gang_moves_from_a_crowded_node_to_an_empty_one() -> None:
    gangs = [turning(name, ("m", [0, 1, 2, 3]), running=name == "a") for name in ("a", "b")]
    session = session_of(SERVERS, gangs, now=60.0)
    migration.level(session)
    assert said(session.decisions) == [("Migrate", "b")]
    assert migration.height(session, "m") == migration.height(session, "n") == 1.0


def test_node_with_three_of_four_gpus_idle_is_emptied() -> None:
    gangs = [turning("small", ("m", [0])), turning("other", ("n", [0, 1]))]
    session = session_of(SERVERS, gangs, now=60.0)
    migration.defragment(session)
    assert said(session.decisions) == [("Migrate", "small")]
    assert session.idle("m") == 0b1111


def test_node_with_two_of_four_gpus_idle_is_left_alone() -> None:
    gangs = [turning("pair", ("m", [0, 1])), turning("other", ("n", [0, 1]))]
    session = session_of(SERVERS, gangs, now=60.0)
    migration.defragment(session)
    assert session.decisions == []


def test_migration_keeps_the_size_of_an_elastic_gang() -> None:
    """Its new node has room for three workers; whether it grows is decided elsewhere, by quotas and waiting gangs."""
    whole = tasks("apart", 3)
    found = apart()
    placement = tuple(place._replace(task=whole[place.task.index]) for place in found.placement)
    session = measured_session(SERVERS, [replace(found, tasks=whole, placement=placement, fewest=1)])
    migration.improve(session)
    assert said(session.decisions) == [("Migrate", "apart")]
    assert session.gangs["apart"].held == 2


def test_grown_gang_moves_with_all_its_workers() -> None:
    session = measured_session(SERVERS, [apart(asked=1, fewest=1)])
    migration.improve(session)
    assert said(session.decisions) == [("Migrate", "apart")]
    assert session.gangs["apart"].held == 2


def test_gang_does_not_shrink_to_leave_a_crowded_node() -> None:
    wide = turning("wide", ("m", [0]), ("m", [1]), running=False, fewest=1)
    session = session_of([node("m", 2), node("n", 1)], [turning("a", ("m", [0, 1])), wide])
    migration.level(session)
    assert session.decisions == []


def test_only_as_many_gangs_leave_a_crowded_node_as_necessary() -> None:
    there = [turning(name, ("m", [0]), running=name == "a") for name in "abc"]
    session = session_of([node("m", 1), node("n", 4)], there)
    migration.level(session)
    assert said(session.decisions) == [("Migrate", "b"), ("Migrate", "c")]


def test_packed_gangs_are_not_moved_apart() -> None:
    session = session_of(SERVERS, [apart(), turning("guest", ("m", [0]), packed="apart")], now=3600.0)
    migration.improve(session)
    assert session.decisions == []


def test_no_gang_moves_to_a_node_on_which_others_wait_for_their_turn() -> None:
    """The idle GPUs of that node are too few for the suspended gang now, and enough once another gang leaves."""
    busy = [turning("b", ("m", [1, 2, 3])), turning("c", ("n", [1, 2, 3])), turning("d", ("o", [0, 1]))]
    servers = [*SERVERS, node("o", machine=known("aws-4gpu"))]
    wide = turning("wide", ("o", [0, 1]), running=False)
    for gangs, moves in (([apart(), *busy], [("Migrate", "apart")]), ([apart(), *busy, wide], [])):
        session = measured_session(servers, gangs)
        migration.improve(session)
        assert said(session.decisions) == moves
