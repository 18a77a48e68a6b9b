"""Tasks that take a part of a GPU: several share one GPU, and no part is placed twice."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.cluster import cluster, gang, known, node, tasks
from muster.scheduling.gang import Gang, Placement, Task, gpus_by_node
from muster.scheduling.placing.fragmentation import Fragmentation, TaskMix
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.resources import WHOLE
from muster.scheduling.topology.links import gpu_set, indices
from muster.scheduling.topology.node import Node

SIZES = ((1, 190), (1, 470), (1, 810), (1, WHOLE), (2, WHOLE), (0, WHOLE))


def of_parts(name: str, *sizes: int, spread: bool = False) -> Gang:
    """A gang of tasks that take parts of a GPU."""
    members = tuple(Task(f"{name}-{i}", 1, share=share, index=i) for i, share in enumerate(sizes))
    return gang(name, tasks=members, spread=spread)


def find(wanted: Gang, *nodes: Node) -> Placement:
    found = place(wanted, FreeCapacity(cluster(*nodes)))
    assert not isinstance(found, Shortage), found.message
    return found


def taken(placements: list[Placement]) -> Counter[tuple[str, int]]:
    """Thousandths taken, by node and GPU."""
    held: Counter[tuple[str, int]] = Counter()
    for placement in placements:
        for one in placement:
            for gpu in indices(one.gpus):
                held[one.node, gpu] += one.task.share
    return held


def left(capacity: FreeCapacity) -> dict[tuple[str, int], int]:
    """Free thousandths of a capacity, by node and GPU."""
    whole = {(name, gpu): WHOLE for name, free in capacity.free.items() for gpu in indices(free)}
    parts = {(name, gpu): part for name, found in capacity.parts.items() for gpu, part in found}
    assert not whole.keys() & parts.keys()
    return {**whole, **parts}


@st.composite
def wishes(draw: st.DrawFn) -> Gang:
    members = tuple(
        Task(f"t{i}", gpus, share=share, index=i)
        for i, (gpus, share) in enumerate(draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=4)))
    )
    return gang("g", tasks=members, spread=draw(st.booleans()))


@settings(max_examples=200)
@given(st.lists(st.one_of(wishes(), st.integers(0, 9)), max_size=14), st.booleans())
def test_gpus_and_parts_are_placed_once_and_given_back_whole(steps: list[Gang | int], measured: bool) -> None:
    """A step is a gang to place, or a number that tells which placement to give back; at the end all are given back."""
    nodes = cluster(
        node("n0", 2),
        node("n1", machine=known("pcie-8"), healthy=gpu_set(range(4)), free_set=gpu_set(range(3)), parts=((3, 190),)),
    )
    capacity = FreeCapacity(nodes)
    before, at_first = left(capacity), dict(capacity.states)
    mix = TaskMix.of(Task("t", gpus, share=share) for gpus, share in SIZES)
    measure = Fragmentation(mix, capacity.fleet) if measured else None
    there: list[Placement] = []
    for step in steps:
        if isinstance(step, Gang):
            found = place(step, capacity, fragmentation=measure)
            if not isinstance(found, Shortage):
                assert [one.gpus.bit_count() for one in found] == [one.task.gpus for one in found]
                capacity.take(found)
                there.append(found)
        elif there:
            capacity.give_back(there.pop(step % len(there)))
        held = taken(there)
        assert {key: whole - held[key] for key, whole in before.items() if whole > held[key]} == left(capacity)
        assert all(held[key] <= whole for key, whole in before.items())
    for placement in there:
        capacity.give_back(placement)
    assert capacity.states == at_first


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(1, 999), max_size=2)), min_size=1, max_size=3),
    st.integers(1, 999),
)
def test_part_is_placed_exactly_where_one_is_free(free: list[tuple[int, list[int]]], share: int) -> None:
    nodes = [
        node(f"n{i}", 4, free=whole, parts=tuple((whole + j, part) for j, part in enumerate(parts)))
        for i, (whole, parts) in enumerate(free)
    ]
    found = place(of_parts("g", share), FreeCapacity(cluster(*nodes)))
    fits = any(whole or any(part >= share for part in parts) for whole, parts in free)
    assert isinstance(found, Shortage) != fits


def test_part_goes_to_the_fullest_gpu_that_holds_it() -> None:
    one = node("n", 4, free=1, parts=((1, 530), (2, 350), (3, 190)))
    assert gpus_by_node(find(of_parts("g", 320), one)) == {"n": gpu_set([2])}
    assert gpus_by_node(find(of_parts("g", 600), one)) == {"n": gpu_set([0])}


def test_tasks_of_a_gang_share_a_gpu() -> None:
    assert [one.gpus for one in find(of_parts("g", 300, 700, 500), node("n", 2))] == [1, 1, 2]


def test_whole_gpus_are_placed_before_parts() -> None:
    members = (*tasks("g", 1, 2), Task("part", 1, share=500, index=1))
    found = find(gang("g", tasks=members), node("n", 3, free_set=gpu_set([0, 1]), parts=((2, 500),)))
    assert {one.task.name: one.gpus for one in found} == {"g-worker-0": gpu_set([0, 1]), "part": gpu_set([2])}


def test_parts_spread_over_nodes() -> None:
    found = find(of_parts("g", 300, 300, 300, spread=True), node("n0", 1), node("n1", 1))
    assert Counter(one.node for one in found) == {"n0": 2, "n1": 1}


def test_trial_takes_back_a_part_that_was_taken() -> None:
    capacity = FreeCapacity(cluster(node("n", 1)))
    with capacity.trial():
        capacity.take(find(of_parts("g", 300), node("n", 1)))
        assert left(capacity) == {("n", 0): 700}
    assert left(capacity) == {("n", 0): 1000}


def test_parts_of_a_failed_gpu_are_not_given_back() -> None:
    capacity = FreeCapacity(cluster(node("n", 1, healthy=0)))
    capacity.give_back(find(of_parts("g", 300), node("n", 1)))
    assert left(capacity) == {}


def test_closed_node_takes_no_part() -> None:
    capacity = FreeCapacity(cluster(node("n", 2, free=1, parts=((1, 500),))))
    assert not isinstance(place(of_parts("g", 100), capacity), Shortage)
    assert isinstance(place(of_parts("g", 100), capacity, closed=["n"]), Shortage)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((600,), "needs 0.6 GPUs; 0.9 free on 2 of 2 nodes that it may use, at most 0.5 of one GPU"),
        ((500, 500), "needs 1 GPU (2 pods of up to 1); 0.9 free on 2 of 2 nodes that it may use"),
    ],
)
def test_shortage_counts_parts(sizes: tuple[int, ...], message: str) -> None:
    nodes = cluster(node("n0", 1, free=0, parts=((0, 400),)), node("n1", 1, free=0, parts=((0, 500),)))
    found = place(of_parts("g", *sizes), FreeCapacity(nodes))
    assert isinstance(found, Shortage)
    assert found.message == message
