"""Placement: few nodes and tight fits, near before far, and only nodes that a gang may use."""

from __future__ import annotations

import pytest

from builders.cluster import cluster, gang, known, node, tasks
from muster.scheduling.gang import Gang, Placement, Sensitivity, Task, gpus_by_node
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.resources import Resources
from muster.scheduling.topology.eligibility import Constraint, Taint
from muster.scheduling.topology.links import gpu_set
from muster.scheduling.topology.node import Level, Node

POOL_A = Constraint(labels=(("pool", "a"),))


def find(wanted: Gang, *nodes: Node) -> Placement:
    found = place(wanted, FreeCapacity(cluster(*nodes)))
    assert not isinstance(found, Shortage), found.message
    return found


def sizes(found: Placement) -> dict[str, int]:
    """GPUs of a placement by node."""
    return {name: gpus.bit_count() for name, gpus in sorted(gpus_by_node(found).items())}


def lacks(wanted: Gang, *nodes: Node) -> str:
    found = place(wanted, FreeCapacity(cluster(*nodes)))
    assert isinstance(found, Shortage), found
    return found.message


@pytest.mark.parametrize(
    ("count", "gpus", "free", "expected"),
    [
        pytest.param(4, 1, (2, 4, 8), {"n1": 4}, id="one node, the tightest"),
        pytest.param(4, 1, (8, 8, 8), {"n0": 4}, id="of equals the first by name"),
        pytest.param(8, 1, (3, 3, 6), {"n2": 6, "n0": 2}, id="no node holds all: the largest first"),
        pytest.param(10, 1, (8, 4, 2), {"n0": 8, "n2": 2}, id="the last share on the tightest fit"),
        pytest.param(2, 3, (5, 4, 1), {"n0": 3, "n1": 3}, id="a task is not split"),
        pytest.param(2, 3, (5, 4, 3, 3), {"n2": 3, "n3": 3}, id="of nodes that take as much the tightest"),
        pytest.param(3, 2, (3, 5, 1), {"n0": 2, "n1": 4}, id="pods by whole GPUs"),
    ],
)
def test_packed_gang_takes_few_nodes_and_tight_fits(
    count: int, gpus: int, free: tuple[int, ...], expected: dict[str, int]
) -> None:
    nodes = [node(f"n{i}", 8, free=number) for i, number in enumerate(free)]
    assert sizes(find(gang("g", count, gpus), *nodes)) == expected


@pytest.mark.parametrize(
    ("count", "free", "expected"),
    [
        pytest.param(3, (8, 8, 8), {"n0": 1, "n1": 1, "n2": 1}, id="one each"),
        pytest.param(4, (2, 8, 4), {"n0": 1, "n1": 2, "n2": 1}, id="the second round starts where most is free"),
        pytest.param(2, (2, 8, 4), {"n1": 1, "n2": 1}, id="the emptiest first"),
        pytest.param(5, (1, 1, 8), {"n0": 1, "n1": 1, "n2": 3}, id="uneven only where it must be"),
    ],
)
def test_spread_gang_takes_many_nodes_evenly(count: int, free: tuple[int, ...], expected: dict[str, int]) -> None:
    nodes = [node(f"n{i}", 8, free=number) for i, number in enumerate(free)]
    assert sizes(find(gang("g", count, spread=True), *nodes)) == expected


def test_spread_gang_stays_in_the_emptiest_rack_where_one_is_required() -> None:
    nodes = [node(f"{rack}{i}", 8, free=free, rack=rack) for rack, free in (("r", 4), ("s", 6)) for i in range(2)]
    assert sizes(find(gang("g", 4, spread=True, required=Level.RACK), *nodes)) == {"s0": 2, "s1": 2}


def test_spread_gang_reaches_beyond_the_preferred_rack() -> None:
    nodes = [node(f"{rack}{i}", 8, rack=rack) for rack in "rs" for i in range(2)]
    assert len(sizes(find(gang("g", 4, spread=True, preferred=Level.RACK), *nodes))) == 4


def test_spread_gang_takes_equal_nodes_by_name() -> None:
    """The chief goes to n1, which has most free GPUs, a worker to n0; then each node has one task and four free GPUs."""
    members = tasks("g", 1, 2, "chief") + tasks("g", 2)
    found = find(gang("g", tasks=members, spread=True), node("n0", 8, free=5), node("n1", 8, free=6))
    assert sizes(found) == {"n0": 2, "n1": 2}


def racks(*free: tuple[str, str, int]) -> list[Node]:
    return [node(f"n{i}", 8, free=number, block=block, rack=rack) for i, (block, rack, number) in enumerate(free)]


@pytest.mark.parametrize(
    ("preferred", "required", "expected"),
    [
        pytest.param(Level.NODE, Level.CLUSTER, {"n2": 3, "n3": 3}, id="no node has 6: the fullest rack that has"),
        pytest.param(Level.RACK, Level.RACK, {"n2": 3, "n3": 3}, id="rack required"),
        pytest.param(Level.BLOCK, Level.BLOCK, {"n2": 3, "n3": 3}, id="block required: the fuller block"),
        pytest.param(Level.CLUSTER, Level.CLUSTER, {"n0": 5, "n4": 1}, id="nothing preferred: the fewest and tightest nodes"),
    ],
)
def test_gang_takes_the_nearest_level_that_holds_it(preferred: Level, required: Level, expected: dict[str, int]) -> None:
    nodes = racks(("a", "r", 5), ("a", "r", 4), ("b", "s", 3), ("b", "s", 3), ("c", "t", 1), ("c", "t", 1))
    assert sizes(find(gang("g", 6, preferred=preferred, required=required), *nodes)) == expected


def test_racks_of_the_same_name_in_two_blocks_are_two_racks() -> None:
    nodes = racks(("a", "r", 2), ("b", "r", 2))
    assert lacks(gang("g", 4, required=Level.RACK), *nodes) == (
        "needs 4 GPUs (4 pods of up to 1) in one rack; at most 2 are free in one (b/r)"
    )
    assert sizes(find(gang("g", 4), *nodes)) == {"n0": 2, "n1": 2}


def test_block_holds_a_gang_that_none_of_its_racks_does() -> None:
    nodes = racks(("a", "r", 2), ("b", "s", 2), ("b", "t", 2))
    assert sizes(find(gang("g", 4), *nodes)) == {"n1": 2, "n2": 2}


BRIDGED = known("a100-pcie")
SOME_PAIRS = gpu_set([0, 2, 3, 5])  # one bridged pair and two singles


@pytest.mark.parametrize(
    ("sensitivity", "count", "expected"),
    [
        (Sensitivity.HIGH, 2, [2, 3]),
        (Sensitivity.AUTO, 2, [2, 3]),
        (Sensitivity.LOW, 2, [0, 5]),
        (Sensitivity.AUTO, 1, [5]),  # a single GPU has nothing to join: the one that is far from the rest
    ],
)
def test_sensitivity_decides_which_gpus(sensitivity: Sensitivity, count: int, expected: list[int]) -> None:
    one = node("n1", machine=BRIDGED, free_set=SOME_PAIRS)
    assert gpus_by_node(find(gang("g", 1, count, sensitivity=sensitivity), one)) == {"n1": gpu_set(expected)}


@pytest.mark.parametrize(("sensitivity", "expected"), [(Sensitivity.HIGH, "nvlink"), (Sensitivity.LOW, "pcie")])
def test_sensitivity_decides_which_node(sensitivity: Sensitivity, expected: str) -> None:
    """The tighter fit has slow links: only an insensitive gang takes it."""
    nodes = (node("nvlink", machine=known("dgx-a100")), node("pcie", machine=known("pcie-8"), free=4))
    assert list(gpus_by_node(find(gang("g", 4, sensitivity=sensitivity), *nodes))) == [expected]


def test_each_pod_gets_near_gpus_of_its_node() -> None:
    found = find(gang("g", 2, 2), node("n1", machine=BRIDGED, free_set=gpu_set([0, 1, 6, 7])))
    assert [p.gpus for p in found] == [gpu_set([0, 1]), gpu_set([6, 7])]


def test_ranks_follow_block_rack_node_and_gpu() -> None:
    nodes = [
        node("n1", 2, block="b", rack="r"),
        node("n2", 2, block="a", rack="s"),
        node("n3", 2, block="a", rack="r"),
    ]
    found = find(gang("g", 6), *nodes)
    assert [(p.rank, p.node, p.gpus) for p in found] == [
        (0, "n3", 1), (1, "n3", 2), (2, "n2", 1), (3, "n2", 2), (4, "n1", 1), (5, "n1", 2),
    ]  # fmt: skip
    assert [p.task.index for p in found] == list(range(6))


def test_chief_comes_first_and_parameter_servers_after_workers() -> None:
    members = tasks("g", 1, 1, "evaluator") + tasks("g", 1, 0, "ps") + tasks("g", 2) + tasks("g", 1, 1, "chief")
    found = find(gang("g", tasks=members), node("n1"))
    assert [p.task.role for p in found] == ["chief", "worker", "worker", "ps", "evaluator"]


@pytest.mark.parametrize(
    ("free", "fewest", "expected"), [(8, 2, 4), (3, 2, 3), (2, 2, 2), (3, None, None), (1, 2, None), (8, 9, 4)]
)
def test_elastic_gang_takes_as_many_workers_as_fit(free: int, fewest: int | None, expected: int | None) -> None:
    found = place(gang("g", 4, fewest=fewest), FreeCapacity(cluster(node("n1", 8, free=free))))
    assert (None if isinstance(found, Shortage) else len(found)) == expected


def test_elastic_gang_keeps_its_other_roles_and_first_workers() -> None:
    members = tasks("g", 1, 1, "chief") + tasks("g", 4)
    found = find(gang("g", tasks=members, fewest=1), node("n1", 8, free=3))
    assert [p.task.name for p in found] == ["g-chief-0", "g-worker-0", "g-worker-1"]


def test_node_where_the_gang_failed_is_the_last_resort() -> None:
    wanted = gang("g", 2, avoid=frozenset({"n1"}))
    assert list(gpus_by_node(find(wanted, node("n1", 8, free=2), node("n2")))) == ["n2"]
    assert sizes(find(wanted, node("n1"), node("n2", 8, free=1))) == {"n1": 2}


def test_node_that_refused_the_gang_is_never_taken() -> None:
    wanted = gang("g", 2, refused={"n1": "no such device"})
    assert list(gpus_by_node(find(wanted, node("n1", 8, free=2), node("n2")))) == ["n2"]
    assert lacks(wanted, node("n1"), node("n2", 8, free=1)) == (
        "needs 2 GPUs (2 pods of up to 1); 1 free on 1 of 1 nodes that it may use"
    )


@pytest.mark.parametrize(
    ("resources", "short"),
    [(Resources(3000, 64, 9), "CPU"), (Resources(9000, 32, 9), "memory"), (Resources(9000, 64, 1), "pod slots")],
)
def test_cpu_memory_and_pods_bound_what_a_node_takes(resources: Resources, short: str) -> None:
    each = {"resources": Resources(2000, 32, 1)}
    assert sizes(find(gang("g", 2, each=each), node("n1", resources=resources), node("n2", resources=resources))) == {
        "n1": 1,
        "n2": 1,
    }
    assert lacks(gang("g", 2, each=each), node("n1", resources=resources)) == (
        f"needs 2 GPUs (2 pods of up to 1); 8 free on 1 of 1 nodes that it may use, but {short} for 1 of its 2 pods"
    )


def test_tasks_of_all_roles_bound_what_a_node_takes() -> None:
    """Each node has memory for one of the tasks, and GPUs for both."""
    each = Resources(1000, 32, 1)
    wanted = gang("g", tasks=(Task("chief", 1, each, role="chief"), Task("worker", 1, each)))
    rest = Resources(9000, 48, 9)
    assert sizes(find(wanted, node("n1", resources=rest), node("n2", resources=rest))) == {"n1": 1, "n2": 1}
    assert "but not together with what else its pods ask for" in lacks(wanted, node("n1", resources=rest))


def test_constraints_and_taints_are_kept() -> None:
    nodes = (node("n1", labels={"pool": "b"}), node("n2", labels={"pool": "a"}), node("n3", taints=(Taint("full"),)))
    assert list(gpus_by_node(find(gang("g", each={"where": POOL_A}), *nodes))) == ["n2"]
    assert "16 free on 2 of 2 nodes" in lacks(gang("g", 17), *nodes)


def test_tasks_without_gpus_go_to_nodes_without_gpus() -> None:
    workers, server = tasks("g", 2, 4), tasks("g", 1, 0, "ps", where=Constraint(labels=(("pool", "cpu"),)))
    found = find(gang("g", tasks=workers + server), node("gpu"), node("cpu", 0, labels={"pool": "cpu"}))
    assert {p.task.role: p.node for p in found} == {"worker": "gpu", "ps": "cpu"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (gang("g", 1, 8), "needs 8 GPUs; 7 free on 2 of 3 nodes that it may use"),
        (gang("g", 4, 2), "needs 8 GPUs (4 pods of up to 2); 7 free on 2 of 3 nodes that it may use"),
        (gang("g", 1, 6), "needs 6 GPUs; 7 free on 2 of 3 nodes that it may use, at most 4 on one node"),
        (gang("g", 1, 5), "needs 5 GPUs; 7 free on 2 of 3 nodes that it may use, at most 4 on one node"),
        (gang("g", 6, required=Level.NODE), "needs 6 GPUs (6 pods of up to 1) in one node; at most 4 are free in one (n0)"),
        (gang("g", 1, 9), "needs 9 GPUs; 0 of 3 nodes can take a pod: 3 have too few GPUs (largest: 8 of 9 asked)"),
    ],
)
def test_shortage_gives_both_numbers(wanted: Gang, message: str) -> None:
    assert lacks(wanted, node("n0", 8, free=4), node("n1", 8, free=3), node("n2", 8, free=0)) == message


def test_gang_that_requires_a_rack_does_not_span_nodes_without_one() -> None:
    """Which of them are near each other nobody knows."""
    unlabelled = (node("m0", 2), node("m1", 2))
    assert lacks(gang("g", 2, 2, required=Level.RACK), *unlabelled) == (
        "needs 4 GPUs (2 pods of up to 2) in one rack; 2 of 2 nodes that it may use have no rack label"
    )
    assert lacks(gang("g", 3, required=Level.RACK), *unlabelled, *racks(("b", "r", 1))) == (
        "needs 3 GPUs (3 pods of up to 1) in one rack; at most 1 are free in one (b/r);"
        " 2 of 3 nodes that it may use have no rack label"
    )


def test_node_without_a_rack_holds_a_gang_that_requires_one_rack() -> None:
    """Wherever it stands, it stands in one rack."""
    for preferred in (Level.NODE, Level.RACK):
        assert sizes(find(gang("g", 2, preferred=preferred, required=Level.RACK), node("m0", 2), node("m1", 1))) == {"m0": 2}


def test_nodes_without_racks_hold_a_gang_that_only_prefers_one() -> None:
    assert sizes(find(gang("g", 4, preferred=Level.RACK), node("m0", 2), node("m1", 2))) == {"m0": 2, "m1": 2}


def test_rack_without_a_block_holds_a_gang_that_requires_one_block() -> None:
    nodes = [node("m0", 2, rack="r"), node("m1", 2, rack="r"), node("m2", 8, free=1, rack="s")]
    for spread in (False, True):
        assert sizes(find(gang("g", 4, 1, preferred=Level.BLOCK, required=Level.BLOCK, spread=spread), *nodes)) == {
            "m0": 2,
            "m1": 2,
        }
    assert lacks(gang("g", 5, required=Level.BLOCK), *nodes).endswith("3 of 3 nodes that it may use have no block label")


def test_reason_explains_enough_free_gpus_in_one_rack() -> None:
    nodes = racks(("b", "r", 4), ("b", "r", 2))
    assert lacks(gang("g", 2, 3, required=Level.RACK), *nodes) == (
        "needs 6 GPUs (2 pods of up to 3) in one rack; at most 6 are free in one (b/r),"
        " in pieces that hold 1 of its 2 pods of 3"
    )


def test_shortage_says_that_free_gpus_lie_in_pieces() -> None:
    assert lacks(gang("g", 2, 3), node("n0", 8, free=4), node("n1", 8, free=2)) == (
        "needs 6 GPUs (2 pods of up to 3); 6 free on 2 of 2 nodes that it may use, in pieces that hold 1 of its 2 pods of 3"
    )
