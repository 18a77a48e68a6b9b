"""Gandiva's quick figures against the published ranges of the page."""

from __future__ import annotations

import pytest
from benchmarks.figures import ffdl, sharing
from benchmarks.figures.progress import SCENARIOS

from muster.simulator.physics.gandiva_figures import RESNET_ON_P100
from muster.simulator.scenario import load


def test_six_jobs_on_four_gpus_get_four_sixths_of_a_gpu_each() -> None:
    run = sharing.sliced()
    start, end = sharing.SLICED
    alone = RESNET_ON_P100 * (end - start)
    shares = [run.between(f"long-{index:03}", start, end) / alone for index in range(4)]
    assert shares == pytest.approx([4 / 6] * 4, rel=0.02)
    together = sum(run.between(name, start, end) for name in run.marks)
    assert together >= 0.99 * 4 * alone


def test_elastic_job_grows_into_idle_gpus_and_shrinks_for_new_jobs() -> None:
    run = sharing.grown()
    for _, start, end, published in sharing.GPUS_GROWN:
        assert run.between("elastic", start, end) / (end - start) * sharing.WINDOW == pytest.approx(published, rel=0.05)
    assert [run.records.rows[name].queued for name in ("two", "one")] == [0.0, 0.0]


def test_muster_keeps_only_packings_that_gain() -> None:
    assert {packing.model for packing in sharing.packings("muster") if packing.kept} == {
        "VAE",
        "SuperResolution",
        "RHN",
        "SCRNN",
        "MI-LSTM",
    }


@pytest.mark.parametrize("name", sorted(path.name for path in SCENARIOS.glob("[fst]*.yaml")))
def test_scenarios_can_be_read(name: str) -> None:
    assert load(SCENARIOS / name).cluster.nodes()


def test_gang_scheduling_leaves_no_learner_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffdl, "GANG_SEEDS", range(5))
    ffdl.deadlocked.cache_clear()
    assert all(deadlock.learners == 0 for deadlock in ffdl.deadlocked("muster"))
    assert min(deadlock.learners for deadlock in ffdl.deadlocked("kube-scheduler, pods in any order")) > 30
    ffdl.deadlocked.cache_clear()
