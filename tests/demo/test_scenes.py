"""The scenes on a small real control plane; the last line of the demo shows their results."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from rich.console import Console

from muster.api import names
from muster_dev.demo import deadlock, gang_race, gangs, lecture, locality, objects, script, suspension, unplaceable
from muster_dev.demo.show import Show
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster
FEW = dict(list(deadlock.workload().items())[:12])
ON_TWO_NODES = "a100-4:2"


@dataclass
class Stage:
    """A cluster after the lecture's experiment, with muster installed."""

    cluster: LocalCluster
    show: Show
    lecture: lecture.Outcome

    def shown(self) -> str:
        """Return the output so far, in one line."""
        assert isinstance(self.show.console.file, io.StringIO)
        return " ".join(self.show.console.file.getvalue().split())


def quiet() -> Show:
    return Show(Console(file=io.StringIO(), width=120, highlight=False))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    show = quiet()
    with LocalCluster(nodes=ON_TWO_NODES) as cluster:
        yield Stage(cluster, show, lecture.play(cluster, show, FEW))


def test_independent_learners_deadlock_and_gangs_of_muster_do_not(stage: Stage) -> None:
    outcome = stage.lecture
    assert outcome.independent.deadlocked_learners > 0
    assert outcome.independent.deadlocked_learners == outcome.independent.idle_gpus  # 1 GPU each
    assert outcome.muster == deadlock.Count(0, 0)
    assert f"{len(FEW)} of {len(FEW)} jobs succeeded" in stage.shown()


def test_sensitive_job_gets_an_unbroken_pair_and_insensitive_job_the_broken_one(stage: Stage) -> None:
    chosen = locality.play(stage.cluster, stage.show)
    pairs = [[0, 1], [2, 3], [4, 5], [6, 7]]  # of a100-pcie, by its bridges
    assert chosen.sensitive in pairs
    broken = next(pair for pair in pairs if chosen.insensitive[0] in pair)
    assert broken != chosen.sensitive
    assert "joined by NV12, 240 GB/s" in stage.shown()


def test_annotations_suspend_and_resume_the_job(stage: Stage) -> None:
    assert suspension.play(stage.cluster, stage.show) is True
    assert "vgg16 is Suspended and holds 0 GPUs" in stage.shown()
    assert "vgg16 runs again: 8 GPUs" in stage.shown()


def test_job_that_cannot_fit_reports_needed_and_free_gpus(stage: Stage) -> None:
    sentence = unplaceable.play(stage.cluster, stage.show)
    assert "needs 160 GPUs (40 pods of up to 4)" in sentence
    assert " free on " in sentence
    assert "(0 pods exist" in stage.shown()


def test_scenes_leave_no_object_behind(stage: Stage) -> None:
    stage.cluster.wait(lambda: not stage.cluster.api.get("/api/v1/pods")["items"], "no pod is left")
    assert stage.cluster.api.get(f"/apis/{names.API_VERSION}/dljobs")["items"] == []


def test_race_binds_every_pod_of_both_contestants(stage: Stage) -> None:
    show = quiet()
    races = gangs.play(show, nodes="dgx-a100:5", gangs=4, size=5)
    assert (races.native.pods, races.muster.pods) == (20, 20)
    assert races.native.pods_per_second > 0
    assert races.muster.pods_per_second > 0
    assert races.native.cpu_seconds.keys() < races.muster.cpu_seconds.keys()  # muster runs only in its own turn
    report = script.report(stage.lecture, locality.Outcome([2, 3], [1]), True, "why", races)
    assert json.loads(json.dumps(report)) == {
        "default": {
            "deadlocked_learners": stage.lecture.independent.deadlocked_learners,
            "idle_gpus": stage.lecture.independent.idle_gpus,
        },
        "muster": {"deadlocked_learners": 0, "idle_gpus": 0},
        "sensitive_gpus": [2, 3],
        "insensitive_gpus": [1],
        "resumed": True,
        "pending_reason": "why",
        "gangs": {
            "muster_pods_per_s": round(races.muster.pods_per_second, 1),
            "native_pods_per_s": round(races.native.pods_per_second, 1),
        },
    }


def test_race_that_times_out_reports_the_bound_pods(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang_race, "TIMEOUT_SECONDS", 5.0)
    with pytest.raises(gang_race.TooSlow, match="0 of 1000 pods"):
        gang_race.race_muster(stage.cluster, gangs=1, size=1000)
    assert objects.pods(stage.cluster, "race-muster") == []
