"""The records of a run."""

from __future__ import annotations

import pytest

from builders.cluster import running
from muster.scheduling.gang import Placement
from muster.simulator.jobs import Job
from muster.simulator.records import Gauge, Records, Span


def on(*gpus: int) -> Placement:
    return running("any", ("n0", gpus)).placement


def records_with(*jobs: Job, timeline: bool = False) -> Records:
    """Records of a node with four GPUs after the arrival of these jobs."""
    records = Records(4, timeline=timeline)
    for job in jobs:
        records.arrived(job, job.arrival)
    return records


A, B = Job("a", 0.0, (2,), 1.0), Job("b", 10.0, (1,), 1.0)


def test_gauge_integrates_between_its_steps() -> None:
    gauge = Gauge()
    for change, now in ((2, 10.0), (1, 20.0), (0, 20.0), (-3, 30.0), (0, 40.0)):
        gauge.add(change, now)
    assert gauge.integral == 2 * 10 + 3 * 10
    assert gauge.steps == [(10.0, 2), (20.0, 3), (30.0, 0), (40.0, 0)]


@pytest.mark.parametrize(
    ("start", "end", "mean"), [(0, 40, 50 / 40), (10, 30, 2.5), (15, 25, 2.5), (0, 10, 0), (20, 21, 3), (35, 99, 0)]
)
def test_gauge_mean_between_two_times(start: float, end: float, mean: float) -> None:
    gauge = Gauge()
    for change, now in ((2, 10.0), (1, 20.0), (-3, 30.0)):
        gauge.add(change, now)
    assert gauge.between(start, end) == pytest.approx(mean)


def test_gpu_with_several_jobs_counts_as_held_once() -> None:
    records = records_with(A, B)
    records.moved(A, (), on(0, 1), 10.0, "Place", 0.0)
    records.moved(B, (), on(1), 20.0, "Pack", 0.0)
    assert records.held.value == 2
    records.moved(A, on(0, 1), (), 30.0, "Suspend", 0.0)
    assert records.held.value == 1
    records.moved(B, on(1), on(2, 3), 40.0, "Migrate", 8.0)
    assert records.held.value == 2
    assert records.held.integral == 10 * 2 + 10 * 2 + 10 * 1
    assert (records.rows["a"].suspensions, records.rows["b"].migrations, records.rows["b"].overhead) == (1, 1, 8.0)


def test_queue_counts_jobs_without_gpus() -> None:
    records = records_with(A, B)
    records.moved(A, (), on(0), 10.0, "Place", 0.0)
    records.moved(A, on(0), on(1), 15.0, "Migrate", 0.0)
    assert records.queue.value == 1
    records.moved(A, on(1), (), 20.0, "Suspend", 0.0)
    assert records.queue.value == 2
    records.moved(A, (), (), 25.0, "", 0.0)
    records.ended(A, 10.0, 25.0, finished=False)
    assert records.queue.value == 1


def test_active_gpus_follow_the_utilisation_of_a_running_job() -> None:
    records = records_with(A)
    records.moved(A, (), on(0, 1), 0.0, "Place", 0.0)
    records.busy(A, 0.5, 0.0)
    records.busy(A, 0.25, 10.0)
    records.moved(A, on(0, 1), (), 20.0, "Suspend", 0.0)
    records.close(50.0)
    assert records.active.integral == 2 * (0.5 * 10 + 0.25 * 10)


def test_row_measures_queueing_and_completion_from_arrival() -> None:
    records = records_with(A, B)
    records.moved(B, (), on(0), 15.0, "Place", 0.0)
    records.moved(B, on(0), on(1), 20.0, "Migrate", 0.0)
    records.ended(B, 7.0, 30.0, finished=True)
    records.ended(A, 0.0, 40.0, finished=False)
    assert (records.rows["b"].queued, records.rows["b"].jct, records.rows["b"].gpu_seconds) == (5.0, 20.0, 7.0)
    assert (records.rows["a"].queued, records.rows["a"].jct, records.rows["a"].ended) == (None, None, 40.0)


def test_spans_are_recorded_with_timeline() -> None:
    records = records_with(A, timeline=True)
    records.moved(A, (), on(0, 1), 0.0, "Place", 0.0)
    records.moved(A, on(0, 1), (), 10.0, "Suspend", 0.0)
    records.moved(A, (), on(2, 3), 20.0, "Resume", 0.0)
    records.close(25.0)
    assert records.spans == [Span("a", "n0", 0b0011, 0.0, 10.0), Span("a", "n0", 0b1100, 20.0, 25.0)]
