"""Backfill never delays a waiting gang: by the nodes of one pass, and by later passes with and without the gangs behind it."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from builders.cluster import decide, gang, node, reasons, running, world
from builders.contended import contended
from builders.passes import NO_PREEMPTION, starts
from muster.scheduling.decisions import Decision, Place, Preempt, Reason, Wait
from muster.scheduling.gang import Gang
from muster.scheduling.planner import plan
from muster.scheduling.queue_order import in_order
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.eligibility import Constraint

SEEDS = st.integers(0, 2**32)
FOR_GPUS = {Reason.INSUFFICIENT_GPUS, Reason.PODS_STOPPING, Reason.PREEMPTING}


def waits_for_gpus(decision: Decision) -> bool:
    if isinstance(decision, Wait) and decision.reason is Reason.BEHIND_IN_QUEUE:
        return "waits for GPUs" in decision.message
    return isinstance(decision, Wait | Preempt) and decision.reason in FOR_GPUS


def usable(gang: Gang, snapshot: Snapshot) -> set[str]:
    """The nodes that could hold a task of the gang if no other gang ran."""
    return {
        node.name
        for node in snapshot.nodes.values()
        for task in gang.tasks
        if task.where.admits(node.name, node.labels, node.taints) and node.healthy.bit_count() >= task.gpus
    }


def only(snapshot: Snapshot, keep: set[str]) -> Snapshot:
    """The snapshot with the gangs that run and those named, and no others."""
    return replace(snapshot, gangs=tuple(g for g in snapshot.gangs if g.placement or g.name in keep))


@settings(max_examples=1000)
@given(SEEDS)
def test_no_gang_gets_a_node_that_a_gang_ahead_waits_for(seed: int) -> None:
    snapshot = contended(random.Random(seed))
    kept: set[str] = set()
    for decision in plan(snapshot, 0.0):
        if isinstance(decision, Place) and not decision.gang.placement:
            assert not kept & {place.node for place in decision.placement}
        elif waits_for_gpus(decision):
            kept |= usable(decision.gang, snapshot)


@settings(max_examples=1000)
@given(SEEDS)
def test_waiting_gang_starts_no_later_because_of_gangs_behind_it(seed: int) -> None:
    """Left out are gangs behind one that waits for quota: which placement that reserves may change with the cluster."""
    order = random.Random(seed)
    snapshot = contended(order)
    decisions = plan(snapshot, 0.0, NO_PREEMPTION)
    waiting = [d.gang.name for d in decisions if waits_for_gpus(d)]
    quota = {d.gang.name for d in decisions if d.reason is Reason.QUOTA_EXHAUSTED or "quota" in d.message}
    ending = [g.name for g in snapshot.gangs if g.placement]
    order.shuffle(ending)
    turns = [g.name for g in in_order(snapshot.gangs) if not g.placement]
    for name in waiting:
        ahead = set(turns[: turns.index(name) + 1])
        if not ahead & quota:
            assert starts(snapshot, ending).get(name) == starts(only(snapshot, ahead), ending).get(name)


@settings(max_examples=1000)
@given(SEEDS)
def test_gang_waiting_for_quota_changes_nothing_for_other_gangs(seed: int) -> None:
    snapshot = contended(random.Random(seed))
    decisions = {d.gang.name: d for d in plan(snapshot, 0.0, NO_PREEMPTION)}
    held = {name for name, d in decisions.items() if d.reason is Reason.QUOTA_EXHAUSTED or "waits for quota" in d.message}
    without = replace(snapshot, gangs=tuple(g for g in snapshot.gangs if g.name not in held))
    others = {name: d for name, d in decisions.items() if name not in held}
    assert {d.gang.name: d for d in plan(without, 0.0, NO_PREEMPTION)} == others


def test_gangs_alike_come_after_the_same_gang_but_for_those_that_cannot_start_or_need_not_wait() -> None:
    """Of gangs alike, each has its own reasons first; and what one asks for does not speak for another's queue or demands."""
    taken = [running("r", ("n1", range(8)))]
    first = gang("a", 1, 8, arrived=1.0)
    behind = [gang(f"b{number}", 1, 8, arrived=2.0) for number in range(3)]
    own_reasons = [
        gang("c-absent", 1, 8, arrived=3.0, absent=1),
        gang("c-backs-off", 1, 8, arrived=3.0, not_before=10.0),
        gang("c-class", 1, 8, arrived=3.0, missing="PriorityClass x does not exist"),
        gang("c-quota", 1, 8, arrived=3.0, queue="team/small"),
        gang("c-large", 1, 16, arrived=3.0),
    ]
    free = gang("d", 1, 2, arrived=4.0, each={"where": Constraint((("disk", "ssd"),))})
    last = gang("e", 1, 8, arrived=5.0)
    nodes = [node("n1", free=0), node("n2", gpus=4, labels={"disk": "ssd"})]
    found = reasons(decide(world(nodes, [*taken, last, free, *own_reasons, *behind, first], {"team/small": 1})))
    assert found == {
        "a": "InsufficientGPUs",
        **{each.name: "BehindInQueue" for each in [*behind, last]},
        "c-absent": "PodsAbsent",
        "c-backs-off": "BackOff",
        "c-class": found["c-class"],
        "c-quota": "OverQuota",
        "c-large": "NeverFits",
        "d": "Placed",
    }
    assert found["c-class"] != "BehindInQueue"
