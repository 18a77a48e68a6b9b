"""Moves and resizes: to GPUs apart from the gang's own, else to some of its own, else not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.cluster import decide, gang, node, placed, reasons, running, tasks, world
from muster.scheduling.decisions import Reason
from muster.scheduling.gang import Gang, gpus_by_node
from muster.scheduling.resources import Resources
from muster.scheduling.topology.node import Level, Node


def mover(leave: str | None, *held: tuple[str, range]) -> Gang:
    return running("m", *held, leave=leave)


def resized(one: Gang, count: int) -> Gang:
    return replace(one, resize=True, tasks=tasks(one.name, count))


def test_running_gang_without_a_wish_gets_no_decision() -> None:
    assert decide(world([node("n1")], [running("r", ("n1", [0]))])) == {}


@pytest.mark.parametrize(
    ("leave", "to"),
    [
        pytest.param("", "n2", id="away from where it is"),
        pytest.param("n1", "n2", id="away from a node"),
        pytest.param("r", "n3", id="away from a rack"),
    ],
)
def test_gang_moves_to_a_placement_apart_from_its_own(leave: str, to: str) -> None:
    nodes = [node("n1", 4, rack="r"), node("n2", 4, rack="r"), node("n3", 4, rack="s")]
    decisions = decide(world(nodes, [mover(leave, ("n1", range(2)))]))
    assert reasons(decisions) == {"m": Reason.MIGRATED}
    assert list(gpus_by_node(placed(decisions["m"]))) == [to]
    assert decisions["m"].message == f"moves to 2 GPUs on 1 node ({to})"


def test_gang_moves_onto_gpus_of_its_own_where_others_are_short() -> None:
    """It leaves n1 for n2, where it has two GPUs already."""
    nodes = [node("n1", 2), node("n2", 4)]
    decisions = decide(world(nodes, [mover("n1", ("n1", range(2)), ("n2", range(2)))]))
    assert gpus_by_node(placed(decisions["m"])) == {"n2": 0b1111}


@pytest.mark.parametrize("leave", ["", "n1"])
def test_gang_stays_where_there_is_no_other_placement(leave: str) -> None:
    decisions = decide(world([node("n1", 4), node("n2", 4, free=1)], [mover(leave, ("n1", range(2)))]))
    assert reasons(decisions) == {"m": Reason.NO_OTHER_PLACE}
    assert decisions["m"].message == "stays where it is: needs 2 GPUs; 1 free on 1 of 2 nodes that it may use"


def test_tasks_without_gpus_move_too() -> None:
    members = tasks("m", 1, 2) + tasks("m", 1, 0, "ps")
    snapshot = world([node("n1", 4), node("n2", 4)], [replace(mover("n1", ("n1", range(2))), tasks=members)])
    assert {place.node for place in placed(decide(snapshot)["m"])} == {"n2"}


def test_gpus_that_a_move_leaves_are_not_free_in_the_same_pass() -> None:
    """They are free once its pods have gone; the GPUs that it moves to are taken."""
    snapshot = world([node("n1", 4), node("n2", 4)], [mover("n1", ("n1", range(4))), gang("g", 4)])
    assert reasons(decide(snapshot)) == {"m": Reason.MIGRATED, "g": Reason.INSUFFICIENT_GPUS}


def test_gpus_that_an_overlapping_move_leaves_are_not_free_in_the_same_pass() -> None:
    snapshot = world([node("n1", 2), node("n2", 4)], [mover("n1", ("n1", range(2)), ("n2", range(2))), gang("g", 1)])
    assert reasons(decide(snapshot)) == {"m": Reason.MIGRATED, "g": Reason.INSUFFICIENT_GPUS}


def test_move_costs_no_quota() -> None:
    mine = replace(mover("n1", ("n1", range(2))), queue="q")
    snapshot = world([node("n1", 4), node("n2", 4)], [mine, gang("g", 1, queue="q")], {"q": 3})
    assert reasons(decide(snapshot)) == {"m": Reason.MIGRATED, "g": Reason.PLACED}


@pytest.mark.parametrize(
    ("nodes", "count", "expected"),
    [
        pytest.param([node("n1", 4), node("n2", 4)], 4, {"n1": 0b1111}, id="growing where it is"),
        pytest.param([node("n1", 4), node("n2", 5)], 5, {"n2": 0b11111}, id="growing, to where it is nearer together"),
        pytest.param([node("n1", 3), node("n2", 3)], 4, {"n1": 0b11, "n2": 0b11}, id="growing beyond its node"),
        pytest.param([node("n1", 4), node("n2", 1), node("n3", 4)], 1, {"n1": 0b1}, id="shrinking"),
    ],
)
def test_resized_gang_gets_a_placement_of_its_new_size(nodes: list[Node], count: int, expected: dict[str, int]) -> None:
    decisions = decide(world(nodes, [resized(running("m", ("n1", [0]), ("n1", [1])), count)]))
    assert reasons(decisions) == {"m": Reason.RESIZED}
    assert gpus_by_node(placed(decisions["m"])) == expected


@pytest.mark.parametrize("count", range(1, 9))
def test_resized_gang_keeps_its_tasks_where_they_are(count: int) -> None:
    """In the same rack, although a node of another rack has room for more."""
    nodes = [node("n1", 2, rack="r"), node("n2", 4, rack="r"), node("n3", 4, rack="r"), node("n4", 2, rack="s")]
    before = running("m", ("n1", [0]), ("n1", [1]), ("n2", [2]), ("n2", [3]))
    found = placed(decide(world(nodes, [resized(before, count)]))["m"])
    kept = min(count, 4)
    assert found[:kept] == before.placement[:kept]
    assert [place.rank for place in found] == list(range(count))
    assert {place.node for place in found} <= {"n1", "n2", "n3"}
    gpus = gpus_by_node(found)
    assert sum(held.bit_count() for held in gpus.values()) == count


@pytest.mark.parametrize("required", [Level.NODE, Level.RACK, Level.BLOCK])
def test_gang_grows_within_the_domain_that_it_requires(required: Level) -> None:
    nodes = [node("n1", 2, rack="r", block="b"), node("n2", 2, rack="r", block="b"), node("n3", 4, rack="s", block="b")]
    before = replace(running("m", ("n1", [0]), ("n1", [1])), required=required)
    nodes_of = set(gpus_by_node(placed(decide(world(nodes, [resized(before, 4)]))["m"])))
    assert nodes_of == {"n3"}, "a node that holds all is nearest"
    decision = decide(world([*nodes[:2], node("n3", 3, rack="s", block="b")], [resized(before, 4)]))["m"]
    if required is Level.NODE:
        assert decision.reason == Reason.NO_OTHER_PLACE
    else:
        assert set(gpus_by_node(placed(decision))) == {"n1", "n2"}


def test_gang_with_a_broken_gpu_is_resized_elsewhere() -> None:
    before = resized(running("m", ("n1", [0]), ("n1", [1])), 1)
    broken = replace(node("n1", 4), healthy=0b1110, free=0b1100)
    assert gpus_by_node(placed(decide(world([broken], [before]))["m"])) == {"n1": 0b100}


def test_gang_is_not_scaled_up_beyond_its_quota() -> None:
    held = running("m", ("n1", [0]), ("n1", [1]), queue="q")
    decisions = decide(world([node("n1")], [resized(held, 4)], {"q": 3}))
    assert reasons(decisions) == {"m": Reason.QUOTA_EXHAUSTED}
    assert decisions["m"].message == "stays as it is: queue q uses 2 of 3 GPUs"
    assert reasons(decide(world([node("n1")], [resized(held, 3)], {"q": 3}))) == {"m": Reason.RESIZED}


def test_gang_of_a_queue_over_its_quota_may_be_scaled_down() -> None:
    held = running("m", ("n1", [0]), ("n1", [1]), ("n1", [2]), queue="q")
    assert reasons(decide(world([node("n1")], [resized(held, 2)], {"q": 1}))) == {"m": Reason.RESIZED}


def test_scaled_up_gang_counts_in_the_quota_of_later_gangs() -> None:
    held = running("m", ("n1", [0]), queue="q")
    snapshot = world([node("n1")], [resized(held, 3), gang("g", 2, queue="q", arrived=1.0)], {"q": 4})
    assert reasons(decide(snapshot)) == {"m": Reason.RESIZED, "g": Reason.QUOTA_EXHAUSTED}


@pytest.mark.parametrize(("priority", "grows"), [(0, True), (1, False)])
def test_gang_is_scaled_up_only_in_its_turn(priority: int, grows: bool) -> None:
    """A gang ahead that waits for GPUs reserves the nodes that it may use, so the gang that was scaled up stays as it is."""
    ahead = gang("g", 1, 4, priority=priority, arrived=1.0)
    held = replace(running("m", ("n1", [0])), preemptible=False)
    snapshot = world([node("n1", 4)], [resized(held, 2), ahead])
    expected = Reason.RESIZED if grows else Reason.NO_OTHER_PLACE
    assert reasons(decide(snapshot)) == {"m": expected, "g": Reason.INSUFFICIENT_GPUS}


def test_gang_not_on_the_node_to_leave_does_not_move() -> None:
    decisions = decide(world([node("n1", 2), node("n2", 2)], [mover("n2", ("n1", range(2)))]))
    assert reasons(decisions) == {"m": Reason.NOT_THERE}
    assert decisions["m"].message == "does not move: it is not on n2"
    decisions = decide(world([node("n1", 2), node("n2", 2)], [mover("n9", ("n1", range(2)))]))
    assert decisions["m"].message == "does not move: there is no node or rack n9"


def test_gang_keeps_its_size_where_it_cannot_be_scaled_up() -> None:
    decisions = decide(world([node("n1", 2)], [resized(running("m", ("n1", [0]), ("n1", [1])), 3)]))
    assert reasons(decisions) == {"m": Reason.NO_OTHER_PLACE}


def test_cpu_that_a_move_takes_is_not_free_for_others() -> None:
    each = Resources(5000, 1, 1)
    nodes = [node("n1", 4), node("n2", 4, resources=Resources(8000, 9, 9))]
    wanted = gang("g", 1, 4, each={"resources": each})
    snapshot = world(
        nodes, [running("m", ("n1", [0]), resources=each, leave="n1"), replace(wanted, tasks=tasks("g", 1, 3, resources=each))]
    )
    assert reasons(decide(snapshot)) == {"m": Reason.MIGRATED, "g": Reason.PLACED}
    assert list(gpus_by_node(placed(decide(snapshot)["g"]))) == ["n1"]
