"""Reasons name each rule that excludes nodes, how many it excludes, and the largest node where the pod is too large."""

from __future__ import annotations

from typing import Any

import pytest

from builders.cluster import cluster, decide, gang, node, tasks, world
from muster.scheduling.decisions import Reason
from muster.scheduling.gang import Gang
from muster.scheduling.planner import Planner
from muster.scheduling.resources import ONE_POD, Resources
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.eligibility import Alternatives, Constraint, Requirement, Taint
from muster.scheduling.topology.node import Node, Unusable

GIB = 1 << 30
BIG = Resources(64_000, 512 * GIB, 110)
A100 = Constraint(labels=(("gpu", "a100"),))


def asking(gpus: int = 8, where: Constraint = A100, resources: Resources = ONE_POD, count: int = 1) -> Gang:
    return gang("g", count, gpus, each={"where": where, "resources": resources})


def a100(name: str, **fields: Any) -> Node:
    return node(name, labels={"gpu": "a100"}, **fields)


def reason(wanted: Gang, *nodes: Node, unusable: dict[str, Unusable] | None = None) -> str:
    snapshot = Snapshot(cluster(*nodes), (wanted,), unusable=unusable or {})
    return decide(snapshot)["g"].message


def test_each_node_counts_once_for_the_first_rule_that_excludes_it() -> None:
    small = Resources(64_000, 64 * GIB, 110)
    nodes = [
        *(node(f"other{i}", taints=(Taint("team", "x"),)) for i in range(6)),
        *(a100(f"tainted{i}", taints=(Taint("team", "x"),)) for i in range(3)),
        a100("small", resources=small, allocatable=small),
    ]
    cordoned = {f"c{i}": Unusable(a100(f"c{i}"), "are cordoned") for i in range(2)}
    assert reason(asking(resources=Resources(0, 128 * GIB, 1)), *nodes, unusable=cordoned) == (
        "needs 8 GPUs; 0 of 12 nodes can take a pod: 6 do not have the label gpu=a100, 3 have the taint team=x:NoSchedule,"
        " 2 are cordoned, 1 has too little memory (largest: 64Gi of 128Gi asked)"
    )


def of_size(**sizes: int) -> list[Node]:
    return [node(name, gpus, resources=BIG, allocatable=BIG) for name, gpus in sizes.items()]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (asking(16, Constraint()), "2 have too few GPUs (largest: 8 of 16 asked), 1 has no GPUs"),
        (asking(8, Constraint(), Resources(96_500, 0, 1)), "1 has no GPUs, 1 has too few GPUs (largest: 4 of 8 asked), "
         "1 has too little CPU (largest: 64 of 96500m asked)"),
        (asking(1, Constraint(), Resources(0, 0, 1, (("rdma/hca", 1),))), "2 have no rdma/hca, 1 has no GPUs"),
        (asking(1, Constraint(), Resources(0, 0, 200)), "2 have too few pods allowed, 1 has no GPUs"),
    ],
)  # fmt: skip
def test_reason_has_the_largest_node_where_the_pod_is_too_large(wanted: Gang, told: str) -> None:
    assert reason(wanted, *of_size(n0=0, n1=4, n2=8)).endswith(f"; 0 of 3 nodes can take a pod: {told}")


def test_reason_tells_broken_gpus_from_too_few() -> None:
    message = reason(asking(8, Constraint()), node("n0", 8, healthy=0b1111111))
    assert message == "needs 8 GPUs; 0 of 1 nodes can take a pod: 1 has too few working GPUs (largest: 7 of 8 asked)"


@pytest.mark.parametrize(
    ("requirement", "told"),
    [
        (Requirement("gpu", "In", ("a100",)), "1 does not have the label gpu=a100"),
        (Requirement("gpu", "In", ("a", "b", "c", "d")), "1 does not have the label gpu in (a, b, c, ...)"),
        (Requirement("zone", "NotIn", ("z1", "z2")), "1 has the label zone=z1"),
        (Requirement("gpu", "Exists"), "1 does not have the label gpu"),
        (Requirement("zone", "DoesNotExist"), "1 has the label zone"),
        (Requirement("memory", "Gt", ("40",)), "1 does not have the label memory > 40"),
        (Requirement("metadata.name", "In", ("n9",)), "1 does not have the name n9"),
    ],
)
def test_required_affinity_is_told_by_the_requirement_that_fails(requirement: Requirement, told: str) -> None:
    where = Constraint(terms=((Requirement("zone", "Exists"), requirement),))
    assert reason(asking(1, where), node("n0", labels={"zone": "z1"})).endswith(f"can take a pod: {told}")


def test_affinity_of_several_terms_is_told_as_a_whole() -> None:
    where = Constraint(terms=((Requirement("a", "Exists"),), (Requirement("b", "Exists"),)))
    assert reason(asking(1, where), node("n0")).endswith("1 does not match the required node affinity")


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (((Requirement("zone", "In", ("a", "b")),),), "1 cannot reach its volume at zone=a|b"),
        (((Requirement("metadata.name", "In", ("n9",)),),), "1 cannot reach its volume at node n9"),
        (((Requirement("zone", "In", ("a",)),), (Requirement("host", "In", ("h",)),)), "1 cannot reach its volume"),
        ((), "1 cannot reach its volume"),
    ],
)
def test_volumes_that_nodes_cannot_reach_are_told(places: Alternatives, told: str) -> None:
    anywhere = ((Requirement("zone", "Exists"),),)
    assert reason(asking(1, Constraint(volumes=(anywhere, places))), node("n0", labels={"zone": "z"})).endswith(f": {told}")


def test_sentence_names_few_rules_and_counts_the_rest() -> None:
    nodes = [node(f"n{i}", taints=(Taint(f"team-{i}"),)) for i in range(6)]
    assert reason(asking(1, Constraint()), *nodes) == (
        "needs 1 GPU; 0 of 6 nodes can take a pod: 1 has the taint team-0:NoSchedule, 1 has the taint team-1:NoSchedule,"
        " 1 has the taint team-2:NoSchedule, 1 has the taint team-3:NoSchedule, 2 for other reasons"
    )


def test_gang_larger_than_the_nodes_that_it_may_use_hears_of_the_others() -> None:
    nodes = [a100("n0"), node("n1"), a100("n2", taints=(Taint("team", "x"),))]
    assert reason(asking(8, count=2), *nodes) == (
        "needs 16 GPUs (2 pods of up to 8); 8 free on 1 of 1 nodes that it may use, with nobody else running;"
        " 2 of 3 nodes cannot take a pod: 1 does not have the label gpu=a100, 1 has the taint team=x:NoSchedule"
    )


def test_reason_names_the_role_that_no_node_takes() -> None:
    server = tasks("g", 1, 0, "ps", where=Constraint(labels=(("pool", "cpu"),)))
    assert reason(gang("g", tasks=tasks("g", 1, 8) + server), node("n0")) == (
        "needs 8 GPUs (2 pods of up to 8); 0 of 1 nodes can take a pod of role ps: 1 does not have the label pool=cpu"
    )


def test_gang_without_gpus_hears_what_is_short() -> None:
    wanted = asking(0, Constraint(), Resources(40_000, 0, 1), count=2)
    assert reason(wanted, *of_size(n0=0)) == (
        "needs 0 GPUs (2 pods); 1 node that it may use, but CPU for 1 of its 2 pods, with nobody else running"
    )


def test_port_of_the_node_that_another_pod_holds_is_named() -> None:
    port = (("host port TCP/29500", 1),)
    held = node("n0", resources=BIG._replace(others=(("host port TCP/29500", -1),)), allocatable=BIG)
    assert reason(asking(1, Constraint(), Resources(0, 0, 1, port)), held) == (
        "needs 1 GPU; 8 free on 1 of 1 nodes that it may use, but host port TCP/29500 for 0 of its 1 pod"
    )


def test_reason_follows_nodes_that_take_no_pods() -> None:
    planner, wanted = Planner(), asking(1, Constraint())
    for why, told in (("are cordoned", "1 is cordoned"), ("are not ready", "1 is not ready")):
        snapshot = Snapshot({}, (wanted,), unusable={"n": Unusable(node("n"), why)})
        (decision,) = planner.plan(snapshot, 0.0)
        assert (decision.reason, decision.message) == (
            Reason.NEVER_FITS,
            f"needs 1 GPU; 0 of 1 nodes can take a pod: {told}",
        )


def test_reason_says_that_there_are_no_nodes() -> None:
    assert decide(world([], [asking()]))["g"].message == "needs 8 GPUs; 0 of 0 nodes can take a pod"
