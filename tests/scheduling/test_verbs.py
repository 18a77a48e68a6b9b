"""Verbs: whatever its caller can execute, the planner decides nothing else, and gives no GPU twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.changing_cluster import ChangingCluster
from muster.scheduling.decisions import (
    VERBS,
    Assignment,
    Decision,
    Grow,
    Join,
    Migrate,
    Move,
    Pack,
    Place,
    Preempt,
    Requeue,
    Resize,
    Resume,
    Shrink,
    Suspend,
    Unpack,
    Verb,
    Wait,
)
from muster.scheduling.gang import Gang, gpus_by_node
from muster.scheduling.placing import demand
from muster.scheduling.planner import Planner
from muster.scheduling.settings import Policy, Settings
from muster.scheduling.snapshot import Snapshot

STEPS = 30
FEW = st.sets(st.sampled_from(sorted(VERBS, key=lambda verb: verb.__name__)), max_size=7).map(frozenset)
SUBSETS = st.one_of(FEW, FEW.map(lambda few: VERBS - few))
BY_RESTARTS: frozenset[Verb] = frozenset({Place, Move, Resize, Requeue, Preempt, Wait})
"""The verbs of a caller that can start gangs and take them off their GPUs, and nothing in between, as the operator."""


@pytest.fixture(autouse=True)
def _few_tasks_tell_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "ENOUGH", 4)


def passes(seed: int, policy: Policy, verbs: frozenset[Verb]) -> Iterator[tuple[Snapshot, Sequence[Decision]]]:
    """Reactive and introspective passes over a changing cluster, each with its snapshot."""
    cluster, planner = ChangingCluster(seed), Planner(Settings(policy, verbs))
    for _ in range(STEPS):
        cluster.change()
        snapshot = cluster.snapshot()
        act = planner.introspect if cluster.random.random() < 0.5 else planner.plan
        decisions = act(snapshot, cluster.now)
        yield snapshot, decisions
        cluster.carry_out(decisions)
        cluster.now += cluster.random.choice((0.0, 1.0, 60.0))


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), verbs=SUBSETS)
@pytest.mark.parametrize("policy", list(Policy))
def test_planner_decides_only_verbs_of_its_caller(policy: Policy, seed: int, verbs: frozenset[Verb]) -> None:
    for _, decisions in passes(seed, policy, verbs):
        assert {type(decision) for decision in decisions} <= verbs


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), verbs=SUBSETS)
@pytest.mark.parametrize("policy", list(Policy))
def test_no_gpu_is_given_to_two_gangs_whatever_the_verbs(policy: Policy, seed: int, verbs: frozenset[Verb]) -> None:
    for snapshot, decisions in passes(seed, policy, verbs | {Place}):
        check_no_gpu_is_given_twice(snapshot, decisions)


def check_no_gpu_is_given_twice(snapshot: Snapshot, decisions: Sequence[Decision]) -> None:
    """Carry decisions out in order; the GPUs that a Move, Resize or Preempt leaves stay taken until the pass has ended."""
    gangs = {gang.name: gang for gang in snapshot.gangs}
    leaving: list[Gang] = []
    for decision in decisions:
        before = gangs[decision.gang.name]
        if isinstance(decision, Requeue):
            gangs[before.name] = replace(before, placement=())
        elif isinstance(decision, Suspend):
            gangs[before.name] = replace(before, running=False)
        elif isinstance(decision, Assignment):
            if isinstance(decision, Move | Resize):
                leaving.append(replace(before, name=f"{before.name} before"))
            packed = decision.onto if isinstance(decision, Pack) else before.packed if isinstance(decision, Resume) else ""
            runs = bool(decision.placement) and not isinstance(decision, Join)
            after = gangs[before.name] = replace(before, placement=decision.placement, running=runs, packed=packed)
            check_gpus_are_its_own(after, [gang for gang in (*gangs.values(), *leaving) if gang.name != after.name], before)
            if not isinstance(decision, Resume | Shrink | Unpack):
                check_new_gpus_are_healthy(after, before, snapshot)


def check_gpus_are_its_own(gang: Gang, others: Sequence[Gang], before: Gang) -> None:
    """No other gang runs on GPUs of a running gang, but for those of its bundle, and itself before a move."""
    gpus = gpus_by_node(gang.placement) if gang.running else {}
    for other in others:
        together = (other.packed or other.name) == (gang.packed or gang.name) or other.name == f"{before.name} before"
        if other.placement and other.running and not together:
            theirs = gpus_by_node(other.placement)
            assert not any(held & theirs.get(node, 0) for node, held in gpus.items()), f"{gang.name} and {other.name}"


def check_new_gpus_are_healthy(gang: Gang, before: Gang, snapshot: Snapshot) -> None:
    own = gpus_by_node(before.placement)
    for node, gpus in gpus_by_node(gang.placement).items():
        assert not gpus & ~own.get(node, 0) & ~snapshot.nodes[node].healthy, gang.name


@pytest.mark.parametrize("policy", list(Policy))
def test_caller_that_only_restarts_gangs_gets_requeue_and_place_for_every_change(policy: Policy) -> None:
    decided: Counter[Verb] = Counter()
    for seed in range(60):
        for _, decisions in passes(seed, policy, BY_RESTARTS):
            decided.update(type(decision) for decision in decisions)
    assert not decided.keys() & {Migrate, Pack, Unpack, Grow, Shrink, Suspend, Resume, Join}
    expected = BY_RESTARTS if policy is Policy.MUSTER else BY_RESTARTS - {Requeue}
    assert decided.keys() == expected
