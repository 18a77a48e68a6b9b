"""The arithmetic of scene (a): which learners are deadlocked, and since when."""

from __future__ import annotations

import pytest

from muster_dev.demo import deadlock
from muster_dev.demo.deadlock import Count, DeadlockWatch, Learner

JOBS = {"a": 3, "b": 2}


def learners(gang: str, *gpus: int | None) -> list[Learner]:
    """Return a learner per entry: None has no node, 0 has ended, any other number is its GPUs."""
    return [Learner(gang, held is not None, held or 0) for held in gpus]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (learners("a", 1, 1, 1), {}),
        (learners("a", 1, 1, None), {"a": Count(2, 2)}),
        (learners("a", 1, 1), {"a": Count(2, 2)}),  # the third pod was never created
        (learners("a", None, None, None), {}),  # it waits and holds nothing
        (learners("a", 0, 1, 1), {}),  # one has ended: the gang was complete
        (learners("a", 0, 1, None), {"a": Count(1, 1)}),
        (learners("a", 4, None, None) + learners("b", 2, None), {"a": Count(1, 4), "b": Count(1, 2)}),
    ],
)
def test_gang_is_partial_when_it_holds_gpus_and_is_incomplete(seen: list[Learner], expected: dict[str, Count]) -> None:
    assert deadlock.partial(JOBS, seen) == expected


def test_workload_exceeds_the_cluster_and_follows_its_seed() -> None:
    jobs = deadlock.workload()
    assert len(jobs) == 50
    assert {2, 3, 4} == set(jobs.values())
    assert sum(jobs.values()) > 1.5 * 60
    assert jobs == deadlock.workload()
    assert jobs != deadlock.workload(seed=deadlock.SEED + 1)


def test_arrivals_are_all_learners_once_and_shuffled() -> None:
    jobs = deadlock.workload()
    order = deadlock.arrivals(jobs)
    assert sorted(order) == sorted((name, index) for name, size in jobs.items() for index in range(size))
    assert order != sorted(order)


def test_gang_that_is_complete_in_time_is_not_deadlocked() -> None:
    watch = DeadlockWatch(JOBS, patience=5.0)
    assert watch.sample(learners("a", 1, None, None), now=10.0) == Count()
    assert watch.sample(learners("a", 1, 1, None), now=14.0) == Count()
    assert watch.sample(learners("a", 1, 1, 1), now=16.0) == Count()
    assert (watch.worst, watch.longest, watch.samples) == (Count(), 4.0, 3)


def test_gang_that_stays_partial_is_deadlocked_and_counted() -> None:
    watch = DeadlockWatch(JOBS, patience=5.0)
    watch.sample(learners("a", 1, 1, None), now=0.0)
    assert watch.sample(learners("a", 1, 1, None), now=5.1) == Count(2, 2)
    assert watch.sample(learners("a", 1, 1, 1), now=6.0) == Count()
    assert watch.worst == Count(2, 2)


def test_patience_restarts_for_a_gang_that_was_not_partial_in_between() -> None:
    watch = DeadlockWatch(JOBS, patience=5.0)
    watch.sample(learners("b", 1, None), now=0.0)
    watch.sample(learners("b", None, None), now=4.0)
    assert watch.sample(learners("b", 1, None), now=8.0) == Count()
