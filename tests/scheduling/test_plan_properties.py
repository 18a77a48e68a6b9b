"""Rules that every plan keeps, over random clusters, gangs and queues.

Drawing a cluster costs more than judging a plan, so one test draws, and every rule (`check_...`) judges the same plan.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from builders.random_clusters import worlds
from muster.scheduling.decisions import Decision, Move, Place, Preempt, Resize, Wait
from muster.scheduling.gang import Gang, Placement
from muster.scheduling.planner import plan
from muster.scheduling.resources import Resources
from muster.scheduling.snapshot import Snapshot


def given_gpus(decisions: Sequence[Decision]) -> list[Place | Move | Resize]:
    return [decision for decision in decisions if isinstance(decision, Place | Move | Resize)]


def check_every_gang_that_waits_or_wants_to_move_gets_one_decision(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    """But for a gang to be resized that is preempted in the same pass: it is decided about as a victim."""
    victims = {victim for decision in decisions if isinstance(decision, Preempt) for victim in decision.victims}
    asking = [g.name for g in snapshot.gangs if not g.placement or g.leave is not None or (g.resize and g not in victims)]
    assert Counter(d.gang.name for d in decisions) == Counter(asking)


def check_no_gpu_is_given_twice_nor_one_that_is_not_free(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    free = {name: node.free for name, node in snapshot.nodes.items()}
    for decision in given_gpus(decisions):
        own: Counter[str] = Counter()
        for place in decision.gang.placement:  # one that moves may end up on GPUs of its own
            own[place.node] |= place.gpus
        for place in decision.placement:
            assert place.gpus & ~(free[place.node] | own[place.node]) == 0
            assert place.gpus & ~snapshot.nodes[place.node].healthy == 0
            free[place.node] &= ~place.gpus
            own[place.node] &= ~place.gpus


def check_a_gang_is_placed_whole(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    for decision in given_gpus(decisions):
        wanted, found = decision.gang, decision.placement
        assert wanted in snapshot.gangs
        assert sorted(place.rank for place in found) == list(range(len(found)))
        assert all(place.gpus.bit_count() == place.task.gpus for place in found)
        assert sorted(p.task.name for p in found) == sorted(legal_part(wanted, found))
        assert not wanted.absent
        assert wanted.placement or wanted.not_before <= 0.0


def legal_part(wanted: Gang, found: Placement) -> list[str]:
    """The names of the tasks that may start together: all, or for an elastic gang the first workers and all other roles."""
    if wanted.fewest is None:
        return [task.name for task in wanted.tasks]
    workers = sum(place.task.role == "worker" for place in found)
    most = sum(task.role == "worker" for task in wanted.tasks)
    assert min(wanted.fewest, most) <= workers
    return [task.name for task in wanted.tasks if task.role != "worker" or task.index < workers]


def check_every_task_goes_where_it_may(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    for decision in given_gpus(decisions):
        for place in decision.placement:
            node = snapshot.nodes[place.node]
            assert place.task.where.admits(node.name, node.labels, node.taints)
        domains = {snapshot.nodes[place.node].domain(decision.gang.required) for place in decision.placement}
        assert len(domains) == 1


def check_cpu_memory_and_pods_suffice(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    left = {name: node.resources for name, node in snapshot.nodes.items()}
    for decision in given_gpus(decisions):
        for place in decision.placement:
            left[place.node] = left[place.node] - place.task.resources
        back = {name: Resources() for name in snapshot.nodes}
        for place in decision.gang.placement:
            back[place.node] = back[place.node] + place.task.resources
        assert all((left[name] + back[name]).covers(Resources()) for name in {p.node for p in decision.placement})


def check_quotas_are_kept(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    held: Counter[str] = Counter()
    for one in snapshot.gangs:
        held[one.queue] += sum(place.gpus.bit_count() for place in one.placement)
    for decision in given_gpus(decisions):
        queue = decision.gang.queue
        more = sum(p.task.gpus for p in decision.placement) - sum(p.gpus.bit_count() for p in decision.gang.placement)
        held[queue] += more
        limit = snapshot.queues[queue].quota
        assert more <= 0 or limit is None or held[queue] <= limit


def check_victims_have_lower_priority_and_agreed(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    gone: set[str] = set()
    for decision in decisions:
        if isinstance(decision, Preempt):
            assert decision.victims
            assert set(decision.victims) <= set(snapshot.gangs)
            assert all(v.preemptible and v.placement and v.priority < decision.gang.priority for v in decision.victims)
            names = {v.name for v in decision.victims}
            assert not names & gone
            gone |= names


def check_every_decision_says_why(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        assert decision.message
        assert decision.gang in snapshot.gangs
        assert not isinstance(decision, Wait) or (decision.until is None) != (decision.reason == "BackOff")


RULES = [rule for name, rule in sorted(globals().items()) if name.startswith("check_")]


@settings(max_examples=600)
@given(worlds())
def test_plan_keeps_every_rule(snapshot: Snapshot) -> None:
    before = repr(snapshot)
    decisions = plan(snapshot, 0.0)
    assert repr(snapshot) == before, "deciding changes nothing"
    for rule in RULES:
        rule(snapshot, decisions)


@settings(max_examples=250)
@given(worlds(), st.integers(0, 2**32))
def test_plan_does_not_depend_on_the_order_of_the_input(snapshot: Snapshot, seed: int) -> None:
    shuffled = random.Random(seed)
    gangs, names = list(snapshot.gangs), list(snapshot.nodes)
    shuffled.shuffle(gangs)
    shuffled.shuffle(names)
    other = replace(snapshot, gangs=tuple(gangs), nodes={name: snapshot.nodes[name] for name in names})
    assert plan(other, 0.0) == plan(snapshot, 0.0)
