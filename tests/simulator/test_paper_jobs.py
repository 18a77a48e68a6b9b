"""The jobs of Gandiva's and FfDL's experiments."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from muster.scheduling.profile import NO_NEIGHBOURS, Shape
from muster.simulator.physics.gandiva import Gandiva
from muster.simulator.traces import ffdl, gandiva

DAY = 86_400.0


def test_mix_has_the_papers_classes_and_gpu_time() -> None:
    jobs = gandiva.mix(seed=1, count=4000)
    count = Counter(job.kind for job in jobs)
    light = (count["VAE"] + count["SuperResolution"]) / len(jobs)
    heavy = (count["LSTM"] + count["ResNet-50"] + count["ResNext-50"]) / len(jobs)
    assert light == pytest.approx(0.30, abs=0.03)
    assert heavy == pytest.approx(0.45, abs=0.03)
    assert {job.gpus for job in jobs if job.kind == "ResNet-50"} == {2, 4}
    assert {job.gpus for job in jobs if job.kind not in gandiva.ON_SEVERAL_GPUS} == {1}
    assert 0 <= jobs[0].arrival <= jobs[-1].arrival <= 7200.0
    for job in jobs[:50]:
        rate = Gandiva().rate(job, 0.0, Shape("P40", (job.gpus,), 12.0), NO_NEIGHBOURS)
        assert 1800.0 <= job.work / rate * job.gpus <= 2700.0


def test_replay_has_the_papers_runtimes_and_ends_within_its_days() -> None:
    jobs = gandiva.replay(seed=1, count=4000, days=9.0)
    minutes = []
    for job in jobs:
        runtime = job.work / Gandiva().rate(job, 0.0, gandiva.AS_RECORDED[job.gpus], NO_NEIGHBOURS) / 60.0
        minutes.append(runtime)
        assert job.arrival == 0.0 or job.arrival / 60.0 + runtime <= 9 * 1440.0 + 1e-6
    for bound, published in ((5, 0.20), (50, 0.56), (500, 0.80), (1000, 0.92)):
        assert sum(m <= bound for m in minutes) / len(minutes) == pytest.approx(published, abs=0.03)
    assert sum(job.gpus == 1 for job in jobs) / len(jobs) == pytest.approx(0.93, abs=0.02)


@pytest.mark.parametrize("make", [lambda s: gandiva.mix(s), lambda s: gandiva.replay(s, 100), lambda s: ffdl.learners(s)])
def test_same_seed_gives_the_same_jobs(make: object) -> None:
    assert callable(make)
    assert make(3) == make(3)
    assert make(3) != make(4)


def test_learners_arrive_together_in_gangs_of_the_requested_sizes() -> None:
    jobs = ffdl.learners(seed=0, count=200, fewest=2, most=4, gpus=[1, 2])
    assert {len(job.tasks) for job in jobs} == {2, 3, 4}
    assert {gpus for job in jobs for gpus in job.tasks} == {1, 2}
    assert all(len(set(job.tasks)) == 1 and job.arrival == 0.0 for job in jobs)


def trace(folder: Path) -> Path:
    """A trace of 80 days with one job of 8 GPUs and one hour in every hour."""
    rows = ["timestamp,duration,num_gpus,gpu_time,cluster"]
    start = datetime(2017, 9, 1)
    rows += [f"{start + timedelta(hours=hour)},3600.0,8,28800.0,a" for hour in range(80 * 24)]
    path = folder / "jobs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("load", [0.1, 0.5, 1.5])
def test_days_have_the_requested_load(tmp_path: Path, load: float) -> None:
    jobs = ffdl.days(seed=0, path=trace(tmp_path), length=20.0, gpus=8, load=load)
    asked = sum(job.gpus * job.work for job in jobs) / (8 * 20 * DAY)
    assert asked == pytest.approx(load, rel=0.12)
    assert all(0 <= job.arrival < 20 * DAY and job.tasks == (4, 4) for job in jobs)
    assert len({job.name for job in jobs}) == len(jobs)
