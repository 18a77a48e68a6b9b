"""Gandiva's figures that run in a moment, held to the ranges that the page shows."""

from __future__ import annotations

import pytest
from benchmarks.figures import ffdl, sharing
from benchmarks.figures.progress import SCENARIOS

from muster.simulator.physics.gandiva_figures import RESNET_ON_P100
from muster.simulator.scenario import load


def test_six_jobs_on_four_gpus_get_four_sixths_each() -> None:
    run = sharing.sliced()
    start, end = sharing.SLICED
    alone = RESNET_ON_P100 * (end - start)
    shares = [run.between(f"long-{index:03}", start, end) / alone for index in range(4)]
    assert shares == pytest.approx([4 / 6] * 4, rel=0.02)
    together = sum(run.between(name, start, end) for name in run.marks)
    assert together >= 0.99 * 4 * alone


def test_an_elastic_job_grows_as_its_neighbours_leave_and_gives_way_when_others_come() -> None:
    run = sharing.grown()
    for _, start, end, published in sharing.GPUS_GROWN:
        assert run.between("elastic", start, end) / (end - start) * sharing.WINDOW == pytest.approx(published, rel=0.05)
    assert [run.records.rows[name].queued for name in ("two", "one")] == [0.0, 0.0]


def test_muster_packs_what_gains_and_nothing_else() -> None:
    assert {one.model for one in sharing.packings("muster") if one.kept} == {
        "VAE",
        "SuperResolution",
        "RHN",
        "SCRNN",
        "MI-LSTM",
    }


@pytest.mark.parametrize("name", sorted(path.name for path in SCENARIOS.glob("[fst]*.yaml")))
def test_scenarios_can_be_read(name: str) -> None:
    assert load(SCENARIOS / name).cluster.nodes()


def test_gangs_leave_no_learner_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffdl, "GANG_SEEDS", range(5))
    ffdl.deadlocked.cache_clear()
    assert all(one.learners == 0 for one in ffdl.deadlocked("muster"))
    assert min(one.learners for one in ffdl.deadlocked("kube-scheduler, pods in any order")) > 30
    ffdl.deadlocked.cache_clear()
