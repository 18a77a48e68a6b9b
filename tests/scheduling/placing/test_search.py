"""A sensitive gang goes where it is expected to train fastest."""

from __future__ import annotations

from builders.cluster import cluster, gang, known, node
from muster.scheduling.gang import Gang, Sensitivity
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.merits import Rate
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.profile import Shape
from muster.scheduling.topology.node import Level, Node


def counts(wanted: Gang, rate: Rate | None, *nodes: Node) -> dict[str, int]:
    """GPUs by node."""
    found = place(wanted, FreeCapacity(cluster(*nodes)), rate=rate)
    assert not isinstance(found, Shortage), found.message
    held: dict[str, int] = {}
    for one in found:
        held[one.node] = held.get(one.node, 0) + one.task.gpus
    return dict(sorted(held.items()))


def even(_: Gang, shape: Shape) -> float:
    """As if the network card with the most GPUs behind it were the slowest."""
    return -shape.counts[0] if len(shape.counts) > 1 else 1.0


def prefers_large(_: Gang, shape: Shape) -> float:
    return shape.counts[0]


THREES = (node("n0", 8, free=3), node("n1", 8, free=3), node("n2", 8, free=2), node("n3", 8, free=2))


def test_rates_decide_how_a_gang_is_divided_over_nodes() -> None:
    four = gang("g", 4)
    assert counts(four, None, *THREES[:2]) == {"n0": 3, "n1": 1}
    assert counts(four, even, *THREES[:2]) == {"n0": 2, "n1": 2}
    assert counts(four, even, *THREES) == {"n0": 1, "n1": 1, "n2": 1, "n3": 1}
    assert counts(four, prefers_large, *THREES) == counts(four, None, *THREES) == {"n0": 3, "n2": 1}


def test_gang_goes_to_the_node_of_the_faster_model() -> None:
    nodes = (node("old", 8, free=4, model="K80"), node("new", 8, model="V100"))
    by_model = {"K80": 1.0, "V100": 4.0}
    assert counts(gang("g", 1, 4), lambda _, shape: by_model[shape.model], *nodes) == {"new": 4}
    assert counts(gang("g", 1, 4), lambda _, shape: -by_model[shape.model], *nodes) == {"old": 4}


def test_gang_goes_to_the_rack_where_it_trains_fastest() -> None:
    nodes = [node(f"{rack}{i}", 4, free=2, rack=rack, model=model) for rack, model in (("r", "a"), ("s", "b")) for i in (0, 1)]
    assert counts(gang("g", 4), lambda _, shape: shape.model == "b", *nodes) == {"s0": 2, "s1": 2}
    assert counts(gang("g", 4), lambda _, shape: shape.model == "a", *nodes) == {"r0": 2, "r1": 2}


def test_sensitive_gang_goes_to_the_rack_with_fewer_nodes() -> None:
    full = [node(f"r{i}", 8, free=2, rack="r") for i in range(4)]
    roomy = [node(f"s{i}", 8, free=5, rack="s") for i in range(2)]
    assert counts(gang("g", 8), None, *full, *roomy) == {"s0": 5, "s1": 3}
    assert counts(gang("g", 8, sensitivity=Sensitivity.LOW), None, *full, *roomy) == {f"r{i}": 2 for i in range(4)}


def test_rates_do_not_matter_to_insensitive_and_spread_gangs() -> None:
    for wanted in (gang("g", 4, sensitivity=Sensitivity.LOW), gang("g", 4, spread=True)):
        assert counts(wanted, even, *THREES) == counts(wanted, None, *THREES)


def test_required_level_holds_whatever_the_rates() -> None:
    nodes = [node(f"n{i}", 8, free=4, rack=f"r{i}") for i in range(4)]
    assert counts(gang("g", 4, required=Level.NODE), even, *nodes) == {"n0": 4}


def test_faster_links_decide_without_rates() -> None:
    nodes = (node("pcie", machine=known("pcie-8"), free=4), node("nvlink", machine=known("dgx-a100")))
    assert counts(gang("g", 4), None, *nodes) == {"nvlink": 4}
