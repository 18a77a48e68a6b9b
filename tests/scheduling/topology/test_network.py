"""Bandwidth between nodes, and the time of an exchange: it falls with distance and neighbours, and one node needs none."""

from __future__ import annotations

import pytest

from builders.cluster import cluster, node
from muster.scheduling.profile import Shape
from muster.scheduling.speed.shapes import shape_of
from muster.scheduling.topology.network import GOODPUT, between, exchange, level, network
from muster.scheduling.topology.node import Level

NODES = cluster(
    node("a", rack="r1", block="b1"),
    node("b", rack="r1", block="b1"),
    node("c", rack="r2", block="b1"),
    node("d", rack="r3", block="b2"),
    node("slow", rack="r1", block="b1", nic_gbps=5.0),
)


@pytest.mark.parametrize(
    ("names", "expected", "gbps"),
    [
        (["a"], Level.NODE, float("inf")),
        (["a", "b"], Level.RACK, 12.0 * GOODPUT),
        (["a", "b", "slow"], Level.RACK, 5.0 * GOODPUT),
        (["a", "c"], Level.BLOCK, 6.0 * GOODPUT),
        (["a", "b", "d"], Level.CLUSTER, 3.0 * GOODPUT),
    ],
)
def test_bandwidth_between_nodes_falls_with_distance_and_slowest_card(names: list[str], expected: Level, gbps: float) -> None:
    assert level(NODES[name] for name in names) is expected
    assert between(names, NODES) == pytest.approx(gbps)
    assert shape_of(dict.fromkeys(names, 1), NODES).between == pytest.approx(gbps)


def test_exchange_of_a_ring_follows_its_length() -> None:
    assert exchange(Shape("", (2,), 10.0)) == pytest.approx(0.1)
    assert exchange(Shape("", (4,), 10.0)) == pytest.approx(0.15)
    assert exchange(Shape("", (1,), float("inf"))) == 0.0


def test_exchange_inside_and_between_nodes_add_up_and_sharers_slow_the_latter() -> None:
    two_by_two = Shape("", (2, 2), 10.0, 5.0)
    assert network(two_by_two) == pytest.approx(1 / 5)
    assert exchange(two_by_two) == pytest.approx(1 / 10 + 1 / 5)
    assert exchange(two_by_two, sharers=3) == pytest.approx(1 / 10 + 4 / 5)


def test_fewer_nodes_exchange_faster() -> None:
    times = [exchange(Shape("", counts, 6.0, 2.25)) for counts in ((4,), (2, 2), (1, 1, 1, 1))]
    assert times == sorted(times)
