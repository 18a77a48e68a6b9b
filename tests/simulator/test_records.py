"""What is counted of a run."""

from __future__ import annotations

import pytest

from builders.cluster import running
from muster.scheduling.gang import Placement
from muster.simulator.jobs import Job
from muster.simulator.records import Level, Records, Stay


def on(*gpus: int) -> Placement:
    return running("any", ("n0", gpus)).placement


def counted(*jobs: Job, timeline: bool = False) -> Records:
    """Records of a node of four GPUs at which these jobs have arrived."""
    found = Records(4, timeline=timeline)
    for job in jobs:
        found.arrived(job, job.arrival)
    return found


A, B = Job("a", 0.0, (2,), 1.0), Job("b", 10.0, (1,), 1.0)


def test_a_level_is_integrated_between_its_steps() -> None:
    level = Level()
    for change, now in ((2, 10.0), (1, 20.0), (0, 20.0), (-3, 30.0), (0, 40.0)):
        level.add(change, now)
    assert level.integral == 2 * 10 + 3 * 10
    assert level.steps == [(10.0, 2), (20.0, 3), (30.0, 0), (40.0, 0)]


@pytest.mark.parametrize(
    ("start", "end", "mean"), [(0, 40, 50 / 40), (10, 30, 2.5), (15, 25, 2.5), (0, 10, 0), (20, 21, 3), (35, 99, 0)]
)
def test_the_mean_of_any_time(start: float, end: float, mean: float) -> None:
    level = Level()
    for change, now in ((2, 10.0), (1, 20.0), (-3, 30.0)):
        level.add(change, now)
    assert level.between(start, end) == pytest.approx(mean)


def test_a_gpu_is_held_once_however_many_run_on_it() -> None:
    found = counted(A, B)
    found.moved(A, (), on(0, 1), 10.0, "Place", 0.0)
    found.moved(B, (), on(1), 20.0, "Pack", 0.0)
    assert found.held.value == 2
    found.moved(A, on(0, 1), (), 30.0, "Suspend", 0.0)
    assert found.held.value == 1
    found.moved(B, on(1), on(2, 3), 40.0, "Migrate", 8.0)
    assert found.held.value == 2
    assert found.held.integral == 10 * 2 + 10 * 2 + 10 * 1
    assert (found.rows["a"].suspensions, found.rows["b"].migrations, found.rows["b"].overhead) == (1, 1, 8.0)


def test_the_queue_is_who_has_no_gpus() -> None:
    found = counted(A, B)
    found.moved(A, (), on(0), 10.0, "Place", 0.0)
    found.moved(A, on(0), on(1), 15.0, "Migrate", 0.0)
    assert found.queue.value == 1
    found.moved(A, on(1), (), 20.0, "Suspend", 0.0)
    assert found.queue.value == 2
    found.moved(A, (), (), 25.0, "", 0.0)
    found.ended(A, 10.0, 25.0, finished=False)
    assert found.queue.value == 1


def test_a_job_keeps_its_gpus_busy_for_its_share_while_it_runs() -> None:
    found = counted(A)
    found.moved(A, (), on(0, 1), 0.0, "Place", 0.0)
    found.busy(A, 0.5, 0.0)
    found.busy(A, 0.25, 10.0)
    found.moved(A, on(0, 1), (), 20.0, "Suspend", 0.0)
    found.close(50.0)
    assert found.active.integral == 2 * (0.5 * 10 + 0.25 * 10)


def test_a_row_tells_waiting_and_completion_from_arrival() -> None:
    found = counted(A, B)
    found.moved(B, (), on(0), 15.0, "Place", 0.0)
    found.moved(B, on(0), on(1), 20.0, "Migrate", 0.0)
    found.ended(B, 7.0, 30.0, finished=True)
    found.ended(A, 0.0, 40.0, finished=False)
    assert (found.rows["b"].queued, found.rows["b"].jct, found.rows["b"].gpu_seconds) == (5.0, 20.0, 7.0)
    assert (found.rows["a"].queued, found.rows["a"].jct, found.rows["a"].ended) == (None, None, 40.0)


def test_stays_are_the_bars_of_the_timeline() -> None:
    found = counted(A, timeline=True)
    found.moved(A, (), on(0, 1), 0.0, "Place", 0.0)
    found.moved(A, on(0, 1), (), 10.0, "Suspend", 0.0)
    found.moved(A, (), on(2, 3), 20.0, "Resume", 0.0)
    found.close(25.0)
    assert found.stays == [Stay("a", "n0", 0b0011, 0.0, 10.0), Stay("a", "n0", 0b1100, 20.0, 25.0)]
