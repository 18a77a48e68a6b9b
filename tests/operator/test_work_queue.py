"""The work queue: marks, work in flight, and when to plan."""

from __future__ import annotations

import asyncio

import pytest

from builders.dljobs import NOW
from muster.kube.errors import Conflict
from muster_operator.work_queue import (
    AT_ONCE,
    NEVER,
    NEWS_SECONDS,
    PLAN_SECONDS,
    PLAN_SHARE,
    RETRY_SECONDS,
    Key,
    WorkQueue,
    all_of,
)

KEY = Key("DLJob", "vision/vgg16")


class Clock:
    """A clock that stands, how wrong the one that dates is, and the failures that the queue reported."""

    def __init__(self) -> None:
        self.now, self.wrong = NOW, 0.0
        self.failures: list[str] = []

    def queue(self) -> WorkQueue:
        return WorkQueue(
            lambda what, error: self.failures.append(f"{what}: {error}"),
            clock=lambda: self.now + self.wrong,
            pace=lambda: self.now,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return clock.queue()


async def settled(queue: WorkQueue) -> None:
    """Wait until no work is in flight."""
    async with asyncio.timeout(30):
        while queue.in_flight:  # noqa: ASYNC110 (the queue tells nobody)
            await asyncio.sleep(0)


def test_marked_object_is_due_once(queue: WorkQueue) -> None:
    queue.mark(KEY)
    queue.mark(KEY)
    assert queue.due() == [KEY]
    assert queue.due() == []


async def test_object_with_work_in_flight_is_due_after_it(queue: WorkQueue) -> None:
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    queue.start(KEY, work())
    queue.mark(KEY)
    assert (queue.due(), queue.is_busy(KEY)) == ([], True)
    done.set()
    await settled(queue)
    assert (queue.due(), queue.is_busy(KEY)) == ([KEY], False)


def test_object_is_due_at_the_earliest_time_it_was_marked_for(queue: WorkQueue, clock: Clock) -> None:
    queue.mark_at(KEY, NOW + 9)
    queue.mark_at(KEY, NOW + 5)
    queue.mark_at(KEY, NOW + 7)
    clock.now = NOW + 4.9
    assert queue.due() == []
    clock.now = NOW + 5
    assert queue.due() == [KEY]
    assert queue.later == {}


def test_mark_makes_a_later_one_of_the_same_object_void(queue: WorkQueue, clock: Clock) -> None:
    queue.mark_at(KEY, NOW + 5)
    queue.mark(KEY)
    assert queue.due() == [KEY]
    clock.now = NOW + 5
    assert queue.due() == []


async def test_work_that_fails_is_reported_and_tried_again(queue: WorkQueue, clock: Clock) -> None:
    async def broken() -> None:
        raise RuntimeError("a fault of ours")

    queue.start(KEY, broken())
    await settled(queue)
    assert clock.failures == ["vision/vgg16: a fault of ours"]
    assert queue.later == {KEY: NOW + RETRY_SECONDS}


async def test_work_that_came_too_late_is_no_failure_and_waits_for_news_alone(queue: WorkQueue, clock: Clock) -> None:
    async def late() -> None:
        raise Conflict(409, "Conflict", "the object has been modified")

    queue.begin_plan()
    queue.start(KEY, late())
    await settled(queue)
    assert clock.failures == []
    assert (queue.later, queue.plan_at) == ({KEY: NOW + NEWS_SECONDS}, NOW + NEWS_SECONDS)
    queue.mark(KEY)
    assert queue.due() == [KEY]


async def test_work_in_flight_can_be_stopped(queue: WorkQueue) -> None:
    async def endless() -> None:
        await asyncio.Event().wait()

    queue.start(KEY, endless())
    await asyncio.sleep(0)
    queue.stop()
    await settled(queue)


def test_first_plan_is_due_at_once_and_the_next_when_asked_for(queue: WorkQueue, clock: Clock) -> None:
    assert queue.plan_is_due()
    queue.begin_plan()
    clock.now = NOW + 1e6
    assert (queue.plan_at, queue.plan_is_due()) == (NEVER, False)
    clock.now = NOW
    queue.plan_by(NOW + 5)
    queue.plan_by(NOW + 9)
    clock.now = NOW + 4
    assert not queue.plan_is_due()
    clock.now = NOW + 5
    assert queue.plan_is_due()


@pytest.mark.parametrize("step", [-120.0, 120.0, -1e9, 1e9])
def test_step_of_the_clock_that_dates_neither_halts_nor_hastens_anything(queue: WorkQueue, clock: Clock, step: float) -> None:
    queue.begin_plan()
    queue.plan_in(5)
    queue.mark_in(KEY, 5)
    clock.wrong = step
    assert (queue.plan_is_due(), queue.due()) == (False, [])
    clock.now = NOW + 5
    assert (queue.plan_is_due(), queue.due()) == (True, [KEY])


@pytest.mark.parametrize("step", [-120.0, 120.0])
def test_date_is_reached_after_as_long_as_it_was_away(queue: WorkQueue, clock: Clock, step: float) -> None:
    clock.wrong = step
    queue.begin_plan()
    queue.plan_by(NOW + step + 5)
    clock.wrong = 0.0
    clock.now = NOW + 4.9
    assert not queue.plan_is_due()
    clock.now = NOW + 5
    assert queue.plan_is_due()


def test_two_plans_are_apart(queue: WorkQueue, clock: Clock) -> None:
    queue.begin_plan()
    queue.plan_now()
    assert not queue.plan_is_due()
    clock.now = NOW + PLAN_SECONDS
    assert queue.plan_is_due()


def test_plan_for_arrivals_is_the_later_the_longer_a_plan_takes(queue: WorkQueue, clock: Clock) -> None:
    queue.begin_plan()
    clock.now = NOW + 0.5
    queue.decided()
    queue.plan_soon()
    assert queue.plan_due_at == NOW + 0.5 / PLAN_SHARE
    queue.plan_now()
    assert queue.plan_is_due()


def test_plan_for_arrivals_is_due_like_any_other_where_a_plan_takes_no_time(queue: WorkQueue) -> None:
    queue.begin_plan()
    queue.decided()
    queue.plan_soon()
    assert queue.plan_due_at == NOW + PLAN_SECONDS


async def test_object_left_out_of_a_plan_is_planned_after_its_work(queue: WorkQueue) -> None:
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    queue.start(KEY, work())
    queue.begin_plan()
    queue.plan_after(KEY)
    assert queue.plan_at == NEVER
    done.set()
    await settled(queue)
    assert queue.plan_at == 0.0


async def test_object_without_work_in_flight_needs_no_plan_after_it(queue: WorkQueue) -> None:
    queue.begin_plan()
    queue.plan_after(KEY)

    async def work() -> None:
        return None

    queue.start(KEY, work())
    await settled(queue)
    assert queue.plan_at == NEVER


async def test_waiting_ends_with_a_mark(queue: WorkQueue) -> None:
    queue.begin_plan()
    waiting = asyncio.create_task(queue.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.mark(KEY)
    await asyncio.wait_for(waiting, 30)


async def test_waiting_ends_when_something_is_due(queue: WorkQueue, clock: Clock) -> None:
    queue.begin_plan()
    queue.mark_at(KEY, NOW + 5)
    clock.now = NOW + 5
    await asyncio.wait_for(queue.wait(), 30)


async def test_parts_of_a_piece_of_work_run_so_many_at_once() -> None:
    """Each may hold an object: of a gang of thousands they must not all do so at once."""
    running, most, ended = 0, 0, []

    async def part(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        ended.append(number)
        if number == 1:
            raise ValueError("the first of two")
        if number == 2:
            raise KeyError("the second")

    with pytest.raises(ValueError, match="the first of two"):
        await all_of(part(number) for number in range(5 * AT_ONCE))
    assert (most, sorted(ended)) == (AT_ONCE, list(range(5 * AT_ONCE)))
