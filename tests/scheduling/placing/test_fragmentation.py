"""The measure of fragmentation, compared with its definition, worked out by counting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.cluster import cluster, gang, known, node
from muster.scheduling.gang import Task, gpus_by_node
from muster.scheduling.placing.batches import Ask
from muster.scheduling.placing.fragmentation import Fragmentation, Free, TaskMix
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.resources import PLENTY, WHOLE, Resources
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint
from muster.scheduling.topology.fleet import Fleet
from muster.scheduling.topology.links import gpu_set
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node

POOL_A = Constraint(labels=(("pool", "a"),))
FLEET = Fleet(cluster(node("a", labels={"pool": "a"}), node("b", labels={"pool": "b"})))
PARTS = (90, 190, 300, 530, 810)


def part(share: int, **fields: object) -> Task:
    return replace(Task("t", 1, share=share), **fields)  # type: ignore[arg-type]


def copies(rest: Resources, each: Resources) -> int:
    """How many times `rest` covers `each`, at most 20."""
    count = 0
    while count < 20 and rest.covers(each):
        rest, count = rest - each, count + 1
    return count


def chance(free: Free, sizes: list[int], size: int, mix: TaskMix) -> float:
    """The chance that the next task can use a certain GPU of which `size` is free."""
    found = total = 0.0
    for ask, weight in mix.weights.items():
        if not ask.gpus:
            continue
        total += weight
        able = sum(other >= ask.share for other in sizes)
        if size >= ask.share and able >= ask.gpus and (free.admits & 1 or ask.where == ANYWHERE):
            found += weight * min(1.0, copies(free.resources, ask.resources) * ask.gpus / able)
    return found / total


def by_definition(free: Free, mix: TaskMix, horizon: float) -> float:
    """For each GPU, the sum over numbers of tasks of the chance that so many come and none can use it."""
    sizes = [*free.parts, *[WHOLE] * free.gpus]
    unused = 0.0
    for size in sizes:
        fits = chance(free, sizes, size, mix)
        comes = ((1 / horizon) * (1 - 1 / horizon) ** (count - 1) * (1 - fits) ** count for count in range(1, 400))
        unused += size * sum(comes)
    return unused / WHOLE


@st.composite
def mixes(draw: st.DrawFn) -> TaskMix:
    asks = st.builds(
        lambda size, cpu, where: Ask(size[0], size[1], Resources(cpu, 0, 1), where),
        st.sampled_from([(1, 190), (1, 470), (1, WHOLE), (2, WHOLE), (4, WHOLE)]),
        st.sampled_from([0, 3, 8]),
        st.sampled_from([ANYWHERE, ANYWHERE, POOL_A]),
    )
    return TaskMix(draw(st.dictionaries(asks, st.integers(1, 9).map(float), min_size=1, max_size=6)))


frees = st.builds(
    lambda gpus, parts, cpu, admits: Free(gpus, tuple(sorted(parts)), Resources(cpu, 0, 20), admits),
    st.integers(0, 4),
    st.lists(st.sampled_from(PARTS), max_size=4),
    st.sampled_from([0, 3, 7, 16, 100]),
    st.sampled_from([0, 1]),
)


def as_masks(free: Free, measure: Fragmentation) -> Free:
    """The drawn state with `admits` as the bit set of a measure; drawn, it says whether the node is in POOL_A."""
    admitted = {ANYWHERE, POOL_A} if free.admits else {ANYWHERE}
    return free._replace(admits=sum(bit for where, bit in measure.constraints.items() if where in admitted))


@settings(max_examples=400)
@given(frees, mixes(), st.sampled_from([1.0, 3.0, 10.0]))
def test_unused_gpus_are_those_that_no_task_to_come_can_use(free: Free, mix: TaskMix, horizon: float) -> None:
    measure = Fragmentation(mix, FLEET, horizon)
    assert measure.unused(as_masks(free, measure)) == pytest.approx(by_definition(free, mix, horizon), abs=1e-9)


@settings(max_examples=200)
@given(frees, mixes())
def test_measure_one_task_ahead_is_that_of_fgd(free: Free, mix: TaskMix) -> None:
    """Weng et al., ATC'23: the free GPUs that a task cannot use, all if it does not fit, on average over the mix."""
    measure = Fragmentation(mix, FLEET, horizon=1.0)
    free = as_masks(free._replace(resources=PLENTY, admits=1), measure)
    sizes = [*free.parts, *[WHOLE] * free.gpus]
    expected = 0.0
    for ask, weight in mix.weights.items():
        able = [size for size in sizes if size >= ask.share]
        expected += weight * (sum(sizes) - (sum(able) if len(able) >= ask.gpus else 0)) / WHOLE
    assert measure.unused(free) == pytest.approx(expected / sum(mix.weights.values()))


@settings(max_examples=200)
@given(frees, mixes(), st.sampled_from([90, 190, 470]))
def test_part_goes_where_it_leaves_least_unused(free: Free, mix: TaskMix, share: int) -> None:
    measure, task = Fragmentation(mix, FLEET), part(share, resources=Resources())
    free = as_masks(free, measure)
    sizes = [*free.parts, *[WHOLE] * free.gpus]
    outcomes = []
    for index in range(len(sizes)):
        left = sorted(size - share * (at == index) for at, size in enumerate(sizes))
        if sizes[index] >= share:
            parts = tuple(size for size in left if 0 < size < WHOLE)
            outcomes.append(measure.unused(Free(left.count(WHOLE), parts, free.resources, free.admits)))
    if outcomes:
        assert measure.unused(free.after(task)[measure.choice(free, task)]) == pytest.approx(min(outcomes))
    else:
        assert free.after(task) == []


def test_only_the_proportions_of_tasks_with_gpus_count() -> None:
    one = {Ask(1, 470, Resources(3), ANYWHERE): 2.0, Ask(2, WHOLE, Resources(8), ANYWHERE): 1.0}
    more = {**{ask: 7 * weight for ask, weight in one.items()}, Ask(0, WHOLE, Resources(9), ANYWHERE): 50.0}
    free = Free(2, (190, 530), Resources(16), 1)
    assert Fragmentation(TaskMix(one), FLEET).unused(free) == Fragmentation(TaskMix(more), FLEET).unused(free) > 0


def test_every_free_gpu_is_unused_without_tasks_to_come() -> None:
    assert Fragmentation(TaskMix({}), FLEET).unused(Free(2, (500,), PLENTY, 0)) == 2.5


def test_mix_counts_tasks_by_what_they_ask_for() -> None:
    mix = TaskMix.of([part(470), part(470, name="u"), Task("v", 2)])
    assert sorted(mix.weights.values()) == [1.0, 2.0]


def find(wanted: Task, mix: list[Task], *nodes: Node) -> dict[str, int]:
    capacity = FreeCapacity(cluster(*nodes))
    found = place(gang("g", tasks=(wanted,)), capacity, fragmentation=Fragmentation(TaskMix.of(mix), capacity.fleet))
    assert not isinstance(found, Shortage)
    return gpus_by_node(found)


def test_task_goes_where_it_breaks_no_pair_that_is_asked_for() -> None:
    """The tightest fit would break a pair, and the tasks to come need pairs; of three free GPUs one is left over."""
    nodes = (node("pair", 4, free=2), node("three", 4, free=3))
    assert list(find(Task("t", 1), [Task("a", 1)], *nodes)) == ["pair"]
    assert list(find(Task("t", 1), [Task("a", 2)], *nodes)) == ["three"]


def test_task_goes_where_its_cpu_leaves_the_other_gpu_usable() -> None:
    """Both nodes have two free GPUs; on the one with little CPU the task would leave a GPU without CPU."""
    nodes = (node("few", 2, resources=Resources(10, 0, 9)), node("many", 2, resources=Resources(40, 0, 9)))
    hungry = Task("t", 1, Resources(8, 0, 1))
    assert list(find(hungry, [hungry], *nodes)) == ["many"]
    assert list(find(replace(hungry, resources=Resources(2, 0, 1)), [hungry], *nodes)) == ["few"]


def test_task_goes_to_a_node_that_the_tasks_to_come_may_not_use() -> None:
    nodes = (node("a", 2, labels={"pool": "a"}), node("b", 2, labels={"pool": "b"}))
    assert list(find(Task("t", 1), [Task("a", 1, where=POOL_A)], *nodes)) == ["b"]
    assert list(find(Task("t", 1), [Task("a", 1)], *nodes)) == ["a"]


def test_small_part_fills_the_gpu_that_a_large_one_left() -> None:
    one = node("n", 2, free_set=gpu_set([1]), parts=((0, 190),))
    assert find(part(160), [part(810), part(160), Task("a", 1)], one) == {"n": gpu_set([0])}


@pytest.mark.parametrize(("fast", "expected"), [("three", "three"), ("", "four")])
def test_sensitive_gang_takes_the_faster_ring_and_among_equals_leaves_pairs(fast: str, expected: str) -> None:
    """The tightest fit of two GPUs would leave a single one."""
    slow, nvlink = unknown_machine(8), known("dgx-a100")
    free = {"three": 3, "four": 4}
    capacity = FreeCapacity(cluster(*(node(name, machine=nvlink if name == fast else slow, free=free[name]) for name in free)))
    found = place(gang("g", 1, 2), capacity, fragmentation=Fragmentation(TaskMix.of([Task("a", 2)]), capacity.fleet))
    assert not isinstance(found, Shortage)
    assert list(gpus_by_node(found)) == [expected]
