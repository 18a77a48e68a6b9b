"""The arithmetic of scene (a): what counts as deadlocked, and from when."""

from __future__ import annotations

import pytest

from muster_dev.demo import deadlock
from muster_dev.demo.deadlock import Count, DeadlockWatch, Learner

JOBS = {"a": 3, "b": 2}


def learners(gang: str, *gpus: int | None) -> list[Learner]:
    """One learner each: None has no node, 0 has ended, more are the GPUs that it holds."""
    return [Learner(gang, held is not None, held or 0) for held in gpus]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (learners("a", 1, 1, 1), {}),
        (learners("a", 1, 1, None), {"a": Count(2, 2)}),
        (learners("a", 1, 1), {"a": Count(2, 2)}),  # the third pod was never created
        (learners("a", None, None, None), {}),  # waits, and holds nothing
        (learners("a", 0, 1, 1), {}),  # one has ended: the gang was whole
        (learners("a", 0, 1, None), {"a": Count(1, 1)}),
        (learners("a", 4, None, None) + learners("b", 2, None), {"a": Count(1, 4), "b": Count(1, 2)}),
    ],
)
def test_a_gang_is_partial_when_it_holds_gpus_and_is_not_whole(seen: list[Learner], expected: dict[str, Count]) -> None:
    assert deadlock.partial(JOBS, seen) == expected


def test_the_workload_exceeds_the_cluster_and_is_the_same_each_time() -> None:
    jobs = deadlock.workload()
    assert len(jobs) == 50
    assert {2, 3, 4} == set(jobs.values())
    assert sum(jobs.values()) > 1.5 * 60
    assert jobs == deadlock.workload()
    assert jobs != deadlock.workload(seed=deadlock.SEED + 1)


def test_arrivals_are_every_learner_once_and_mixed() -> None:
    jobs = deadlock.workload()
    order = deadlock.arrivals(jobs)
    assert sorted(order) == sorted((name, index) for name, size in jobs.items() for index in range(size))
    assert order != sorted(order)


def test_a_gang_that_becomes_whole_in_time_was_not_deadlocked() -> None:
    watch = DeadlockWatch(JOBS, patience=5.0)
    assert watch.sample(learners("a", 1, None, None), now=10.0) == Count()
    assert watch.sample(learners("a", 1, 1, None), now=14.0) == Count()
    assert watch.sample(learners("a", 1, 1, 1), now=16.0) == Count()
    assert (watch.worst, watch.longest, watch.samples) == (Count(), 4.0, 3)


def test_a_gang_that_stays_partial_is_deadlocked_and_remembered() -> None:
    watch = DeadlockWatch(JOBS, patience=5.0)
    watch.sample(learners("a", 1, 1, None), now=0.0)
    assert watch.sample(learners("a", 1, 1, None), now=5.1) == Count(2, 2)
    assert watch.sample(learners("a", 1, 1, 1), now=6.0) == Count()
    assert watch.worst == Count(2, 2)


def test_a_gang_that_was_whole_in_between_begins_anew() -> None:
    watch = DeadlockWatch(JOBS, patience=5.0)
    watch.sample(learners("b", 1, None), now=0.0)
    watch.sample(learners("b", None, None), now=4.0)
    assert watch.sample(learners("b", 1, None), now=8.0) == Count()
