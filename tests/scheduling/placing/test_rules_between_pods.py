"""Rules between pods hold: random gangs and residents against a checker that places pod by pod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.cluster import cluster, decide, gang, node, placed, world
from builders.pod_rules import Standing, allowed, broken
from muster.scheduling.decisions import Decision, Place, Preempt, Reason
from muster.scheduling.gang import Assigned, Gang, Task
from muster.scheduling.planner import Planner, plan
from muster.scheduling.relations import Kind, Relations, Rule
from muster.scheduling.residents import Bystander
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.eligibility import Constraint, Requirement, Taint, Toleration
from muster.scheduling.topology.node import Node, Unusable

HOST, ZONE = "kubernetes.io/hostname", "zone"
APPS = ("a", "b", "c")
POOL = Constraint(labels=(("pool", "x"),))
TOLERANT = Constraint(tolerations=(Toleration("team", "Exists"),))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    kind = draw(st.sampled_from(Kind))
    operator = draw(st.sampled_from(("In", "In", "In", "NotIn", "Exists")))
    values = () if operator == "Exists" else (draw(st.sampled_from(APPS)),)
    namespaces = draw(st.sampled_from((("ns",), ("ns",), ("ns", "other")))) if kind is not Kind.SPREAD else ("ns",)
    rule = Rule(kind, draw(st.sampled_from((HOST, HOST, ZONE))), (Requirement("app", operator, values),), namespaces)
    if kind is Kind.SPREAD:
        rule = rule._replace(max_skew=draw(st.integers(1, 2)), min_domains=draw(st.sampled_from((1, 1, 1, 2, 4))))
        rule = rule._replace(honours_affinity=draw(st.booleans()), honours_taints=draw(st.booleans()), told=False)
        rule = rule if draw(st.integers(0, 7)) else rule._replace(selector=())
    return rule


@st.composite
def relations(draw: st.DrawFn, most: int = 2) -> Relations:
    own = draw(st.lists(rules(), max_size=most))
    return Relations(draw(st.sampled_from(("ns", "ns", "other"))), (("app", draw(st.sampled_from(APPS))),), tuple(own))


@st.composite
def nodes(draw: st.DrawFn) -> list[Node]:
    names = [f"n{i}" for i in range(draw(st.integers(1, 5)))]
    taints = st.sampled_from(((), (), (), (Taint("team"),)))
    return [node(name, draw(st.sampled_from((1, 2, 4))), labels=draw(labels(name)), taints=draw(taints)) for name in names]


@st.composite
def labels(draw: st.DrawFn, name: str) -> dict[str, str]:
    zone = draw(st.sampled_from(("z0", "z0", "z1", "z2", None)))
    return {HOST: name, "pool": draw(st.sampled_from(("x", "x", "y")))} | ({"zone": zone} if zone else {})


@st.composite
def gangs(draw: st.DrawFn, name: str, most_roles: int = 2) -> Gang:
    roles = ("worker", "ps")[: draw(st.integers(1, most_roles))]
    members: list[Task] = []
    for role in roles:
        mine, where = draw(relations()), draw(st.sampled_from((Constraint(), Constraint(), POOL, TOLERANT)))
        members += [
            Task(f"{name}-{role}-{i}", 1, role=role, index=i, where=where, relations=mine._replace(namespace="ns"))
            for i in range(draw(st.integers(1, 4)))
        ]
    return gang(name, tasks=tuple(members), spread=draw(st.booleans()), arrived=float(draw(st.integers(0, 1))))


@st.composite
def worlds(draw: st.DrawFn, most_gangs: int = 3, most_roles: int = 2) -> Snapshot:
    """Some nodes of which one may take no pods, waiting gangs, and pods that are nobody's."""
    drawn = draw(nodes())
    closed = drawn[:1] if len(drawn) > 1 and draw(st.integers(0, 3)) == 0 else []
    found = world(drawn[len(closed) :], [draw(gangs(f"g{i}", most_roles)) for i in range(draw(st.integers(1, most_gangs)))])
    pods = [
        (draw(st.sampled_from(drawn)).name, Bystander(f"ns/p{i}", draw(relations(1)), draw(st.booleans())))
        for i in range(draw(st.integers(0, 3)))
    ]
    bystanders = {one.name: [pod for where, pod in pods if where == one.name] for one in drawn}
    return Snapshot(
        found.nodes, found.gangs, bystanders=bystanders, unusable={one.name: Unusable(one, "cordoned") for one in closed}
    )


def everyone(snapshot: Snapshot) -> dict[str, Node]:
    return {**snapshot.nodes, **{name: one.node for name, one in snapshot.unusable.items()}}


def standing(snapshot: Snapshot) -> list[Standing]:
    return [Standing(pod.relations, name, pod.leaving) for name, pods in snapshot.bystanders.items() for pod in pods]


def fits_in_turn(wanted: Gang, snapshot: Snapshot, pods: Sequence[Standing]) -> bool:
    """Whether the gang fits where each pod, in order, takes the first node that lets it; those that none lets come again."""
    all_nodes, there = everyone(snapshot), list(pods)
    free = {name: one.free.bit_count() for name, one in snapshot.nodes.items()}
    waiting = list(wanted.tasks)
    while waiting:
        found = next(
            (
                (task, name)
                for task in waiting
                for name, one in snapshot.nodes.items()
                if free[name] and task.where.admits(name, one.labels, one.taints) and allowed(task, name, all_nodes, there)
            ),
            None,
        )
        if found is None:
            return False
        task, name = found
        waiting.remove(task)
        free[name] -= 1
        there.append(Standing(task.relations, name))
    return True


@settings(max_examples=80)
@given(worlds())
def test_every_admitted_pod_is_let_onto_its_node(snapshot: Snapshot) -> None:
    pods = standing(snapshot)
    for decision in plan(snapshot, 0.0):
        if isinstance(decision, Place):
            assert broken(decision.placement, everyone(snapshot), pods) == []
            pods += [Standing(one.task.relations, one.node) for one in decision.placement]


@settings(max_examples=80)
@given(worlds(most_gangs=1, most_roles=1))
def test_gang_of_one_role_that_fits_pod_by_pod_is_admitted(snapshot: Snapshot) -> None:
    """Of gangs of two roles with rules about each other 7 in 812 are missed; pod by pod 11 others are."""
    [decision], [wanted] = plan(snapshot, 0.0), snapshot.gangs
    if not isinstance(decision, Place):
        assert not fits_in_turn(wanted, snapshot, standing(snapshot)), decision


# Single rules

SELF = (Requirement("app", "In", ("train",)),)


def ruled(name: str, count: int, *kinds: tuple[Kind, str], **fields: Any) -> Gang:
    """A gang of pods of app=train, with rules about themselves by these keys."""
    own = tuple(Rule(kind, key, SELF, ("ns",), **fields) for kind, key in kinds)
    return gang(name, count, 1, each={"relations": Relations("ns", (("app", "train"),), own)})


def zoned(*zones: str, gpus: int = 4) -> list[Node]:
    return [node(f"n{i}", gpus, labels={HOST: f"n{i}", "zone": zone}) for i, zone in enumerate(zones)]


def where(decision: Decision) -> list[str]:
    return sorted(one.node for one in placed(decision))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(ruled("g", 3), ["n0"] * 3, id="no rule: packed"),
        pytest.param(ruled("g", 3, (Kind.APART, HOST)), ["n0", "n1", "n2"], id="apart by node"),
        pytest.param(ruled("g", 2, (Kind.APART, "zone")), ["n0", "n2"], id="apart by zone"),
        pytest.param(ruled("g", 4, (Kind.SPREAD, HOST)), ["n0", "n1", "n2", "n3"], id="spread by node"),
        pytest.param(
            ruled("g", 6, (Kind.SPREAD, "zone")), ["n0", "n0", "n0", "n2", "n2", "n2"], id="spread by zone, packed in it"
        ),
        pytest.param(ruled("g", 6, (Kind.TOGETHER, "zone")), ["n0", "n0", "n0", "n0", "n1", "n1"], id="together in a zone"),
        pytest.param(
            ruled("g", 2, (Kind.APART, HOST), (Kind.TOGETHER, "zone")), ["n0", "n1"], id="apart by node, together in a zone"
        ),
    ],
)
def test_rule_decides_nodes(wanted: Gang, expected: list[str]) -> None:
    assert where(decide(world(zoned("a", "a", "b", "b"), [wanted]))["g"]) == expected


def test_affinity_takes_a_zone_that_holds_the_gang() -> None:
    nodes = [*zoned("a", "b"), node("n2", 4, labels={HOST: "n2", "zone": "b"})]
    assert where(decide(world(nodes, [ruled("g", 6, (Kind.TOGETHER, "zone"))]))["g"]) == ["n1"] * 4 + ["n2"] * 2


def test_placed_gang_keeps_others_away() -> None:
    """Also one placed a moment before, in the same pass; and both ways: the second has no rule itself."""
    first, second = ruled("a", 1, (Kind.APART, HOST)), ruled("b", 1)
    decisions = decide(world(zoned("a", "a"), [first, replace(second, arrived=1.0)]))
    assert (where(decisions["a"]), where(decisions["b"])) == (["n0"], ["n1"])


def test_gang_waits_for_the_pods_that_keep_it_away() -> None:
    runs = ruled("a", 1, (Kind.APART, HOST))
    runs = replace(runs, placement=(Assigned(runs.tasks[0], "n0", 1),), tasks=runs.tasks)
    decision = decide(world(zoned("a"), [runs, ruled("b", 1)]))["b"]
    assert (decision.reason, "anti-affinity by kubernetes.io/hostname" in decision.message) == (Reason.INSUFFICIENT_GPUS, True)


@pytest.mark.parametrize("preemptible", [True, False])
def test_preemption_sees_the_nodes_without_the_victims(preemptible: bool) -> None:
    runs = ruled("low", 1, (Kind.APART, HOST))
    runs = replace(runs, placement=(Assigned(runs.tasks[0], "n0", 1),), preemptible=preemptible)
    decision = decide(world(zoned("a"), [runs, replace(ruled("high", 1), priority=5)]))["high"]
    assert isinstance(decision, Preempt) == preemptible


def test_spread_over_pods_with_any_labels_wants_the_label_of_its_domains_and_nothing_else() -> None:
    """kube-scheduler counts no pod for an empty selector."""
    everything = Rule(Kind.SPREAD, "zone", (), ("ns",))
    wanted = gang("g", 2, each={"relations": Relations("ns", (), (everything,))})
    bare = node("n0", 2, labels={HOST: "n0"})
    assert where(decide(world([bare, *zoned("", "a", "b")[1:]], [wanted]))["g"]) == ["n1", "n1"]
    assert not isinstance(decide(world([bare], [wanted]))["g"], Place)


@pytest.mark.parametrize(("told", "expected"), [(False, ["n0", "n0", "n1", "n1"]), (True, None)])
def test_minimum_of_domains_that_the_pods_tell_allows_as_many_on_a_node_as_the_skew(
    told: bool, expected: list[str] | None
) -> None:
    """kube-scheduler sees one domain of each pod that is pinned, and so counts from 0."""
    wanted = ruled("g", 4, (Kind.SPREAD, "zone"), min_domains=2, told=told)
    decision = decide(world(zoned("a", "b"), [wanted]))["g"]
    assert (where(decision) if isinstance(decision, Place) else None) == expected


def test_own_pods_do_not_keep_a_gang_from_moving() -> None:
    runs = ruled("g", 2, (Kind.APART, HOST))
    placement = tuple(Assigned(task, f"n{i}", 1, i) for i, task in enumerate(runs.tasks))
    moves = replace(runs, placement=placement, leave="n0")
    assert where(decide(world(zoned("a", "a", "a"), [moves]))["g"]) == ["n1", "n2"]


def test_bystander_that_a_gang_owns_counts_once() -> None:
    """The gang is gone from the next snapshot, its pod is not; then it is in the way."""
    runs, waits = ruled("a", 1), ruled("b", 1, (Kind.APART, HOST))
    placement = (Assigned(runs.tasks[0], "n0", 1),)
    pods = {"n0": [Bystander("ns/a-worker-0", runs.tasks[0].relations)]}
    planner, nodes = Planner(), cluster(*zoned("a"))
    for gangs in ([replace(runs, placement=placement), waits], [waits]):
        decision = planner.plan(Snapshot(nodes, tuple(gangs), bystanders=pods), 0.0)[-1]
        assert decision.reason is Reason.INSUFFICIENT_GPUS
    assert isinstance(planner.plan(Snapshot(nodes, (waits,)), 0.0)[0], Place)


def test_rule_that_never_holds_is_said() -> None:
    decision = decide(world(zoned("a", "a"), [ruled("g", 3, (Kind.APART, HOST))]))["g"]
    assert (decision.reason, decision.message) == (
        Reason.NEVER_FITS,
        "needs 3 GPUs (3 pods of up to 1); 8 free on 2 of 2 nodes that it may use, but not as rules between pods ask:"
        " anti-affinity by kubernetes.io/hostname to pods with app=train, with nobody else running",
    )


def test_affinity_to_pods_that_may_come_is_waited_for() -> None:
    wanted = gang("g", each={"relations": Relations("ns", (), (Rule(Kind.TOGETHER, HOST, SELF, ("ns",)),))})
    decision = decide(world(zoned("a"), [wanted]))["g"]
    assert (decision.reason, decision.message) == (
        Reason.INSUFFICIENT_GPUS,
        "needs 1 GPU; 4 free on 1 of 1 nodes that it may use, but not as rules between pods ask:"
        " affinity by kubernetes.io/hostname to pods with app=train (closes 1 of 1 nodes)",
    )


def test_pods_that_others_want_to_be_near_are_placed_where_any_order_will_do() -> None:
    """A worker bound first leaves no node for a parameter server that was to be the first elsewhere."""
    near = Relations("ns", (("app", "train"),), (Rule(Kind.TOGETHER, HOST, SELF, ("ns",)),))
    members = (*ruled("g", 1).tasks, Task("g-ps-0", 1, role="ps", relations=near))
    apart, fits = (decide(world(zoned("a", "a", gpus=gpus), [gang("g", tasks=members)]))["g"] for gpus in (1, 2))
    assert (isinstance(apart, Place), where(fits)) == (False, ["n0", "n0"])
