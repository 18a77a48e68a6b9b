"""Whoever overtakes a waiting gang cannot delay it: by the nodes of one pass, and by playing on without the overtakers."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from builders.cluster import World
from builders.contended import contended
from builders.passes import CALM, carried_out, starts
from muster.scheduling.admission.queue_order import in_order
from muster.scheduling.decisions import Decision, Place, Preempt, Reason, Wait
from muster.scheduling.gang import Gang
from muster.scheduling.planner import plan

SEEDS = st.integers(0, 2**32)
FOR_GPUS = {Reason.INSUFFICIENT_GPUS, Reason.PODS_STOPPING, Reason.PREEMPTING}


def waits_for_gpus(decision: Decision) -> bool:
    if isinstance(decision, Wait) and decision.reason is Reason.BEHIND_IN_QUEUE:
        return "waits for GPUs" in decision.message
    return isinstance(decision, Wait | Preempt) and decision.reason in FOR_GPUS


def usable(gang: Gang, seen: World) -> set[str]:
    """The nodes that could hold a task of the gang if nobody else were there."""
    return {
        node.name
        for node in seen.nodes.values()
        for task in gang.tasks
        if task.where.admits(node.name, node.labels, node.taints) and node.healthy.bit_count() >= task.gpus
    }


def only(seen: World, keep: set[str]) -> World:
    """The snapshot with no gangs but those that run and those named."""
    return replace(seen, gangs=tuple(g for g in seen.gangs if g.placement or g.name in keep))


@settings(max_examples=1000)
@given(SEEDS)
def test_no_gang_gets_a_node_that_a_gang_ahead_waits_for(seed: int) -> None:
    seen = contended(random.Random(seed))
    kept: set[str] = set()
    for decision in plan(seen, 0.0):
        if isinstance(decision, Place) and not decision.gang.placement:
            assert not kept & {place.node for place in decision.placement}
        elif waits_for_gpus(decision):
            kept |= usable(decision.gang, seen)


@settings(max_examples=1000)
@given(SEEDS)
def test_waiting_gang_starts_no_later_because_of_gangs_behind_it(seed: int) -> None:
    """Gangs that wait for quota are left out: they keep a place, but which one may change with the cluster."""
    order = random.Random(seed)
    seen = contended(order)
    decisions = plan(seen, 0.0, CALM)
    waiting = [d.gang.name for d in decisions if waits_for_gpus(d)]
    quota = {d.gang.name for d in decisions if d.reason is Reason.QUOTA_EXHAUSTED or "quota" in d.message}
    ending = [g.name for g in seen.gangs if g.placement]
    order.shuffle(ending)
    turns = [g.name for g in in_order(seen.gangs) if not g.placement]
    for name in waiting:
        ahead = set(turns[: turns.index(name) + 1])
        if not ahead & quota:
            assert starts(seen, ending).get(name) == starts(only(seen, ahead), ending).get(name)


@settings(max_examples=1000)
@given(SEEDS)
def test_gang_held_by_its_quota_still_has_its_gpus_after_the_pass(seed: int) -> None:
    seen = contended(random.Random(seed))
    decisions = plan(seen, 0.0, CALM)
    held = next((d.gang for d in decisions if d.reason is Reason.QUOTA_EXHAUSTED), None)
    if held is None:
        return
    turns = [g.name for g in in_order(seen.gangs) if not g.placement]
    ahead = set(turns[: turns.index(held.name)])
    assert could_start(held, seen, ahead) == could_start(held, carried_out(seen, decisions), ahead)


def could_start(gang: Gang, seen: World, ahead: set[str]) -> bool:
    """Whether the gang would be placed by the next pass if no quota held it."""
    free = replace(gang, queue="without quota")
    others = tuple(g for g in only(seen, ahead).gangs)
    return free.name in {d.gang.name for d in plan(replace(seen, gangs=(*others, free)), 0.0, CALM) if isinstance(d, Place)}
