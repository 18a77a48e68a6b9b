"""The cluster of a simulation: what no decision can make of it, and what is free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from builders.cluster import gang, running
from builders.scripted import servers
from muster.scheduling.gang import Gang, Sharing
from muster.simulator.cluster import Cluster, Invalid

PACKS = Sharing(slices=True, packs=True)


def cluster(*gangs: Gang) -> Cluster:
    """Two servers of two GPUs, and these gangs."""
    found = Cluster(servers())
    for one in gangs:
        found.put(one)
    return found


def on(name: str, gpus: Iterable[int], sharing: Sharing = PACKS, *, runs: bool = True) -> Gang:
    return replace(running(name, ("n0", gpus), sharing=sharing), running=runs)


def test_no_gpu_is_given_twice() -> None:
    with pytest.raises(Invalid, match=r"b is put on GPUs \(1,\) of n0, on which a runs"):
        cluster(on("a", [0, 1], Sharing(slices=True)), on("b", [1]))


def test_gpus_are_shared_where_both_let_themselves_be_packed() -> None:
    assert set(cluster(on("a", [0]), on("b", [0])).running.on_node["n0"]) == {"a", "b"}


def test_who_waits_for_a_turn_has_a_place_among_those_who_run() -> None:
    found = cluster(on("a", [0], Sharing(slices=True)), on("b", [0], Sharing(slices=True), runs=False))
    assert set(found.running.on_node["n0"]) == {"a"}
    assert set(found.placed("n0")) == {"a", "b"}


def test_no_gpu_is_given_that_does_not_work() -> None:
    found = cluster()
    found.set_node(replace(found.nodes["n0"], healthy=0b01))
    with pytest.raises(Invalid, match=r"a is put on GPUs \(1,\) of n0, which do not work"):
        found.put(on("a", [1]))


def test_free_is_what_no_place_covers() -> None:
    found = cluster(on("a", [0]), on("b", [0]), on("c", [0], runs=False))
    assert found.nodes["n0"].free == 0b10
    found.remove("a")
    found.remove("b")
    assert found.nodes["n0"].free == 0b10
    found.remove("c")
    assert found.nodes["n0"].free == 0b11
    assert sum(node.free.bit_count() for node in found.nodes.values()) == 4


def test_gpus_that_fail_are_not_free_and_are_again_when_they_come_back() -> None:
    found = cluster(on("a", [0]))
    node = found.nodes["n0"]
    found.set_node(replace(node, healthy=0b01))
    assert found.nodes["n0"].free == 0
    found.set_node(replace(node, healthy=0b11))
    assert found.nodes["n0"].free == 0b10


def test_a_gang_that_moves_leaves_what_it_had() -> None:
    found = cluster(on("a", [0, 1]))
    found.put(running("a", ("n1", [0, 1])))
    assert (found.nodes["n0"].free, found.nodes["n1"].free) == (0b11, 0)
    assert found.neighbourhood(["n0"]) == {}


def test_what_did_not_change_is_the_same_object_in_the_next_snapshot() -> None:
    found = cluster(on("a", [0]), gang("b"))
    before = found.snapshot()
    found.put(running("c", ("n1", [0])))
    after = found.snapshot()
    assert after.nodes["n0"] is before.nodes["n0"]
    assert after.nodes["n1"] is not before.nodes["n1"]
    assert after.gangs[0] is before.gangs[0]
    assert before.nodes["n1"].free == 0b11, "a snapshot is not changed by what comes after it"
