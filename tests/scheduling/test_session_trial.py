"""Trials of a session: whatever is tried, the session is the same afterwards, nested trials and failures included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import cluster as builder
from builders.changing_cluster import ChangingCluster
from muster.scheduling.decisions import Migrate, Place, Preempt, Reason, Requeue, Resume, Suspend, Wait
from muster.scheduling.gang import Gang
from muster.scheduling.planner import Planner
from muster.scheduling.session import Session
from muster.scheduling.settings import Policy, Settings
from muster.scheduling.snapshot import Snapshot

Step = str | list[Any]
"""The name of a change, or the steps of a nested trial."""


@cache
def busy_snapshot(seed: int) -> Snapshot:
    """A cluster in which gangs run, wait and take turns, with a stopping pod on each node that has a GPU for it."""
    cluster, planner = ChangingCluster(seed), Planner(Settings(Policy.GANDIVA))
    for _ in range(15):
        cluster.change()
        cluster.carry_out(planner.plan(cluster.snapshot(), cluster.now))
        cluster.now += 60.0
    snapshot = cluster.snapshot()
    nodes = {name: replace(node, free=node.free & ~1, leaving=node.free & 1) for name, node in snapshot.nodes.items()}
    return replace(snapshot, nodes=nodes)


def busy_session(seed: int) -> Session:
    return Session(busy_snapshot(seed), now=1000.0)


def state_of(session: Session) -> tuple[object, ...]:
    """All that a trial may change."""
    capacity, occupancy, quotas = session.capacity, session.occupancy, session.quotas
    by_state = {state: tuple(names) for state, names in capacity.states.items()}
    free = (dict(capacity.free), dict(capacity.parts), capacity.total, by_state)
    others = (dict(capacity._resources), dict(session._kept))
    on_node = {node: dict(gangs) for node, gangs in occupancy.on_node.items()}
    held = (dict(occupancy.gangs), on_node, dict(quotas._held), dict(quotas._reserved))
    return (free, others, held, list(session.decisions), dict(session.waits))


def decide(session: Session, gang: Gang, random: Random) -> None:
    """Apply a decision that is possible for a gang in its state."""
    if not gang.placement:
        placement = session.find(gang)
        if placement is None:
            session.apply(Wait(gang, Reason.INSUFFICIENT_GPUS, "so"))
        elif random.random() < 0.3:
            session.apply(Wait(gang, Reason.PODS_STOPPING, "so", keeps=placement))
        elif random.random() < 0.3:
            session.apply(Preempt(gang, (), Reason.PREEMPTING, "so", placement))
        else:
            session.apply(Place(gang, placement, Reason.PLACED, "so"))
    elif not gang.running:
        session.apply(Resume(gang, gang.placement, Reason.TIME_SLICED, "so"))
    elif random.random() < 0.3 and (placement := session.find(gang.as_placed())):
        session.apply(Migrate(gang, placement, Reason.BALANCED, "so"))
    else:
        session.apply(random.choice((Suspend, Requeue))(gang, Reason.TIME_SLICED, "so"))


def suppose(session: Session, gang: Gang, random: Random) -> None:
    """Take a gang as if it had no placement, or another priority."""
    session.suppose(replace(gang, placement=()) if random.random() < 0.5 else replace(gang, priority=99))


def take_capacity(session: Session, gang: Gang, random: Random) -> None:
    placement = session.find(gang)
    if placement and random.random() < 0.7:
        session.capacity.take(placement)
    else:
        session.capacity.give_back(gang.placement)


def vacate(session: Session, gang: Gang, random: Random) -> None:  # noqa: ARG001
    session.capacity.vacate_stopping()


def reserve_quota(session: Session, gang: Gang, random: Random) -> None:
    session.quotas.reserve(gang.queue, random.randint(1, 3))
    session.quotas.add(gang.queue, random.randint(-2, 2))


STEPS: dict[str, Callable[[Session, Gang, Random], None]] = {
    step.__name__: step for step in (decide, suppose, take_capacity, vacate, reserve_quota)
}


def perform(session: Session, steps: Sequence[Step], random: Random) -> None:
    for step in steps:
        if isinstance(step, list):
            before = state_of(session)
            with session.trial():
                perform(session, step, random)
            assert state_of(session) == before
        else:
            gang = session.gangs[random.choice(sorted(session.gangs))]
            STEPS[step](session, gang, random)


steps = st.recursive(
    st.lists(st.sampled_from(sorted(STEPS)), max_size=6),
    lambda inner: st.lists(st.one_of(st.sampled_from(sorted(STEPS)), inner), max_size=6),
    max_leaves=6,
)


@settings(max_examples=300)
@given(seed=st.integers(0, 20), steps=steps, chance=st.integers(0, 2**32))
def test_session_is_the_same_after_a_trial_and_nested_ones(seed: int, steps: list[Step], chance: int) -> None:
    session = busy_session(seed)
    perform(session, ["decide", steps, "decide", steps], Random(chance))


@pytest.mark.parametrize("seed", range(10))
def test_trial_that_fails_is_taken_back_as_well(seed: int) -> None:
    session, random = busy_session(seed), Random(seed)
    before = state_of(session)
    with pytest.raises(KeyError):
        fail_within_trials(session, random)
    assert state_of(session) == before


def fail_within_trials(session: Session, random: Random) -> None:
    before = state_of(session)
    with session.trial(), session.trial():
        perform(session, list(STEPS) * 2, random)
        assert state_of(session) != before
        session.occupancy.put(builder.gang("unknown"))
