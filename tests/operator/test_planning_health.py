"""Planning that fails or stands still is said by /readyz and the metrics."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import Gauge

from builders.operator_harness import OperatorHarness
from muster_operator import loop, metrics
from muster_operator.planning.planning import Planning
from muster_operator.planning_health import FAILING_SECONDS, STILL_SECONDS, PlanningHealth
from muster_operator.work_queue import WorkQueue


def value(gauge: Gauge) -> float:
    """What a gauge shows."""
    return next(iter(gauge.collect())).samples[0].value


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.queue = WorkQueue(lambda *_: None, clock=lambda: self.now, pace=lambda: self.now)
        self.health = PlanningHealth(self.queue)

    def plan(self, error: Exception | None = None) -> None:
        self.queue.begin_plan()
        self.health.begin()
        self.health.end(error)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_operator_without_work_is_well_for_ever(clock: Clock) -> None:
    clock.plan()
    clock.now += 1e6
    assert (clock.health.trouble, clock.health.overdue) == ("", 0.0)
    assert value(metrics.LAST_PLAN) == 1000.0


def test_planning_that_fails_for_long_is_trouble_until_it_ends_well(clock: Clock) -> None:
    clock.plan(KeyError("chief"))
    assert (clock.health.trouble, value(metrics.PLANNING_FAILING)) == ("", 1.0)
    clock.now += FAILING_SECONDS + 1
    clock.plan(KeyError("chief"))
    assert clock.health.trouble == "planning has failed for 11 s: KeyError: 'chief'"
    clock.plan()
    assert (clock.health.trouble, value(metrics.PLANNING_FAILING)) == ("", 0.0)


def test_plan_that_is_due_and_not_made_is_trouble(clock: Clock) -> None:
    clock.plan()
    clock.queue.plan_in(5)
    clock.now += 5 + STILL_SECONDS
    assert clock.health.trouble == ""
    clock.now += 1
    assert clock.health.trouble == "planning stands still: a plan has been due for 31 s"
    assert value(metrics.PLAN_OVERDUE) == 31.0


def test_plan_that_does_not_end_is_trouble(clock: Clock) -> None:
    clock.queue.begin_plan()
    clock.health.begin()
    clock.now += STILL_SECONDS + 1
    assert "stands still" in clock.health.trouble


async def test_failing_plans_of_the_loop_are_trouble(harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async def faulty(planning: Planning, now: float) -> None:  # noqa: ARG001
        harness.now += FAILING_SECONDS + 1
        await asyncio.sleep(0)  # the loop waits for nothing else here
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Planning, "run", faulty)
    monkeypatch.setattr(loop, "RETRY_SECONDS", 0.0)
    harness.sync()
    task = asyncio.create_task(harness.loop.run())
    try:
        await harness.until(lambda: "a fault of ours" in harness.loop.health.trouble)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
