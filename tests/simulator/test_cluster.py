"""The simulated cluster: rejected decisions and free capacity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from builders.cluster import gang, running
from builders.scripted import servers
from muster.scheduling.gang import Gang, Sharing
from muster.simulator.cluster import Cluster, Invalid

PACKS = Sharing(slices=True, packs=True)


def cluster_with(*gangs: Gang) -> Cluster:
    """Two servers of two GPUs with these gangs."""
    cluster = Cluster(servers())
    for placed in gangs:
        cluster.put(placed)
    return cluster


def on(name: str, gpus: Iterable[int], sharing: Sharing = PACKS, *, runs: bool = True) -> Gang:
    return replace(running(name, ("n0", gpus), sharing=sharing), running=runs)


def test_exclusive_gangs_cannot_share_a_gpu() -> None:
    with pytest.raises(Invalid, match=r"b is placed on GPUs \(1,\) of n0, where a runs"):
        cluster_with(on("a", [0, 1], Sharing(slices=True)), on("b", [1]))


def test_gangs_that_both_allow_packing_share_a_gpu() -> None:
    assert set(cluster_with(on("a", [0]), on("b", [0])).running.on_node["n0"]) == {"a", "b"}


def test_suspended_gang_keeps_its_placement_on_gpus_of_a_running_gang() -> None:
    cluster = cluster_with(on("a", [0], Sharing(slices=True)), on("b", [0], Sharing(slices=True), runs=False))
    assert set(cluster.running.on_node["n0"]) == {"a"}
    assert set(cluster.placed("n0")) == {"a", "b"}


def test_placement_on_unhealthy_gpu_is_rejected() -> None:
    cluster = cluster_with()
    cluster.set_node(replace(cluster.nodes["n0"], healthy=0b01))
    with pytest.raises(Invalid, match=r"a is placed on unhealthy GPUs \(1,\) of n0"):
        cluster.put(on("a", [1]))


def test_free_gpus_are_those_without_placements() -> None:
    cluster = cluster_with(on("a", [0]), on("b", [0]), on("c", [0], runs=False))
    assert cluster.nodes["n0"].free == 0b10
    cluster.remove("a")
    cluster.remove("b")
    assert cluster.nodes["n0"].free == 0b10
    cluster.remove("c")
    assert cluster.nodes["n0"].free == 0b11
    assert sum(node.free.bit_count() for node in cluster.nodes.values()) == 4


def test_failed_gpus_are_free_again_after_repair() -> None:
    cluster = cluster_with(on("a", [0]))
    node = cluster.nodes["n0"]
    cluster.set_node(replace(node, healthy=0b01))
    assert cluster.nodes["n0"].free == 0
    cluster.set_node(replace(node, healthy=0b11))
    assert cluster.nodes["n0"].free == 0b10


def test_moved_gang_frees_its_former_gpus() -> None:
    cluster = cluster_with(on("a", [0, 1]))
    cluster.put(running("a", ("n1", [0, 1])))
    assert (cluster.nodes["n0"].free, cluster.nodes["n1"].free) == (0b11, 0)
    assert cluster.neighbourhood(["n0"]) == {}


def test_unchanged_nodes_and_gangs_are_identical_in_the_next_snapshot() -> None:
    cluster = cluster_with(on("a", [0]), gang("b"))
    before = cluster.snapshot()
    cluster.put(running("c", ("n1", [0])))
    after = cluster.snapshot()
    assert after.nodes["n0"] is before.nodes["n0"]
    assert after.nodes["n1"] is not before.nodes["n1"]
    assert after.gangs[0] is before.gangs[0]
    assert before.nodes["n1"].free == 0b11, "later changes leave a snapshot as it was"
