"""Gavel: measured rates, the distribution of generated jobs, and fair rounds."""

from __future__ import annotations

from math import log10
from statistics import fmean

import pytest

from muster.scheduling.profile import Shape, Via
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.engine import Simulation
from muster.simulator.jobs import Job
from muster.simulator.physics.gavel import MODELS, Gavel, UnknownKind, full_profiles, kinds, rate
from muster.simulator.policies.rounds import FairRounds
from muster.simulator.traces import gavel

ONE = unknown_machine(1)


def nodes(each: int) -> list[Node]:
    return [Node(f"{model.lower()}-{index}", ONE, 1, 1, model) for model in MODELS for index in range(each)]


def test_rates_equal_the_measurements() -> None:
    assert rate("ResNet-18/16", "V100") == 32.3534
    assert rate("CycleGAN", "K80") / rate("CycleGAN", "V100") == pytest.approx(0.114, abs=0.001)
    assert rate("Recommendation/1024", "K80") > rate("Recommendation/1024", "V100")


def test_pair_rates_equal_the_measurements_and_are_zero_beyond_gpu_memory() -> None:
    alone = rate("ResNet-18/16", "V100")
    assert rate("ResNet-18/16", "V100", ((Via.GPU, "ResNet-18/64"),)) == alone
    assert rate("ResNet-18/16", "V100", ((Via.GPU, "ResNet-18/256"),)) == 24.4546
    assert rate("ResNet-18/16", "V100", ((Via.SWITCH, "ResNet-50/16"),)) == alone
    full = [(a, b) for a in kinds() for b in kinds() if rate(a, "V100", ((Via.GPU, b),)) == 0]
    assert len(full) == 40
    assert all((b, a) in full for a, b in full)


def test_unmeasured_kind_or_gpu_is_rejected() -> None:
    with pytest.raises(UnknownKind, match="'VGG16'"):
        rate("VGG16", "V100")
    with pytest.raises(UnknownKind, match="'A100'"):
        rate("A3C", "A100")
    with pytest.raises(UnknownKind, match="2 GPUs"):
        Gavel().profile(Job("j", 0, (2,), 1, "A3C"))


def test_full_profiles_contain_every_rate() -> None:
    profiles = full_profiles()
    assert len(profiles) == 26
    assert all(len(profile.rates) == 3 * 27 for profile in profiles.values())
    key = (Shape("P100", (1,), float("inf")), ((Via.GPU, "A3C"),))
    assert profiles["CycleGAN"].rates[key] == rate("CycleGAN", "P100", ((Via.GPU, "A3C"),))


def test_jobs_have_the_published_distribution() -> None:
    jobs = gavel.jobs(seed=0, count=5000, per_hour=4.8)
    minutes = [job.work / rate(job.kind, "V100") / 60 for job in jobs]
    assert jobs[-1].arrival / 3600 * 4.8 == pytest.approx(5000, rel=0.03)
    assert sum(m < 1000 for m in minutes) / 5000 == pytest.approx(0.8, abs=0.02)
    assert fmean(log10(m) for m in minutes if m < 1000) == pytest.approx(2.25, abs=0.03)
    assert fmean(log10(m) for m in minutes if m >= 1000) == pytest.approx(3.5, abs=0.03)
    assert min(minutes) >= 10**1.5
    assert max(minutes) <= 10**4
    assert all(5000 / 26 * 0.7 < sum(job.kind == kind for job in jobs) < 5000 / 26 * 1.3 for kind in kinds())


def test_seed_gives_the_same_jobs_at_any_arrival_rate() -> None:
    slow, fast = gavel.jobs(seed=1, count=50, per_hour=2.0), gavel.jobs(seed=1, count=50, per_hour=4.0)
    assert [(job.kind, job.work) for job in slow] == [(job.kind, job.work) for job in fast]
    assert slow[-1].arrival == pytest.approx(2 * fast[-1].arrival)
    assert gavel.jobs(seed=2, count=50, per_hour=2.0) != slow


def test_fair_rounds_give_each_job_equal_time_on_each_gpu_model() -> None:
    jobs = [Job(f"j{index}", 0, (1,), 1e9, "CycleGAN") for index in range(6)]
    simulation = Simulation(nodes(each=1), jobs, Gavel(), FairRounds(seed=0), until=80 * 3600.0)
    simulation.run()
    mean_rate = fmean(rate("CycleGAN", model) for model in MODELS)
    for job in jobs:  # three GPUs for six: half of the time each, on GPUs of which one is nine times as fast as another
        assert simulation.cluster.gangs[job.name].attained_at(simulation.now) == pytest.approx(40 * 3600, rel=0.05)
        assert job.work - simulation.remaining(job.name) == pytest.approx(40 * 3600 * mean_rate, rel=0.05)


def test_fair_rounds_start_jobs_only_at_round_boundaries() -> None:
    jobs = [Job(f"j{index}", 10.0 * index, (1,), 100 * rate("A3C", "V100"), "A3C") for index in range(3)]
    records = Simulation(nodes(each=1), jobs, Gavel(), FairRounds(seed=0)).run()
    assert {row.started for row in records.rows.values()} == {360.0}
