"""What-if analysis of a cluster dump: decisions, and runs that start from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.dljobs import BORN, NOW, Json, after, dljob, job, placed, pod_json, started, template, time
from builders.external_pods import external_json
from muster.api import names
from muster.api.status import DLJobStatus
from muster.cli import main
from muster.scheduling.decisions import Place, Wait
from muster.simulator import dump, whatif
from muster.simulator.yaml_errors import BadInput
from muster_operator.dljob.job import Job


def node(name: str, gpus: int = 4) -> Json:
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": name},
        "status": {"allocatable": {names.GPU: str(gpus), "cpu": "64"}, "conditions": conditions},
    }


def as_json(job: Job) -> Json:
    status: DLJobStatus = job.status
    return dljob(job.meta.name, status=status.model_dump(mode="json", by_alias=True, exclude_none=True))


def written(folder: Path, **parts: object) -> Path:
    path = folder / "cluster.json"
    body = {"kind": dump.KIND, "takenAt": NOW, "nodes": [node("n1"), node("n2")], "pods": [], "dljobs": [], "dlqueues": []}
    path.write_text(json.dumps({**body, "priorityClasses": [], **parts}))
    return path


def test_running_job_stays_and_waiting_jobs_are_placed_or_get_a_reason(tmp_path: Path) -> None:
    running = started(job("runs"), ("n1",))
    pods = [pod_json(running, place) for place in running.status.placement]
    waits = [
        dljob("big", metadata={"creationTimestamp": time(BORN + 1)}),
        dljob("small", roles={"worker": {"replicas": 9, "template": template(1)}}),
    ]
    live = whatif.load(written(tmp_path, dljobs=[as_json(running), *waits], pods=pods))
    assert {name: node.free for name, node in live.snapshot.nodes.items()} == {"n1": 0, "n2": 0b1111}
    decisions = {decision.gang.name: decision for decision in whatif.decide(live)}
    assert set(decisions) == {"vision/big", "vision/small"}
    assert isinstance(decisions["vision/big"], Place)
    assert [place["node"] for place in whatif.told(decisions["vision/big"])["placement"]] == ["n2", "n2"]
    assert isinstance(decisions["vision/small"], Wait)
    assert whatif.told(decisions["vision/small"])["reason"] == "NeverFits"


def test_jobs_that_the_operator_does_not_plan_are_left_out(tmp_path: Path) -> None:
    lists = [
        dljob("suspended", suspend=True),
        dljob("going", metadata={"deletionTimestamp": time(NOW)}),
        as_json(after(job("over"), lambda record: record.finish(True, "Done", "done"))),
        dljob("restarts"),
    ]
    left = pod_json(placed(job("restarts"), ("n1",)), placed(job("restarts"), ("n1",)).status.placement[0])
    live = whatif.load(written(tmp_path, dljobs=lists, pods=[left]))
    assert live.snapshot.gangs == (), "a pod of restarts still runs"


def test_external_pods_are_planned_and_hold_gpus(tmp_path: Path) -> None:
    gated = external_json("gated", 4)
    other = {"metadata": {"name": "other", "namespace": "x"}, "spec": {"nodeName": "n1", **template(3)["spec"]}}
    queue = {"metadata": {"name": "default", "namespace": "vision"}, "spec": {"gpus": 2}}
    (decision,) = whatif.decide(whatif.load(written(tmp_path, pods=[gated, other], dlqueues=[queue])))
    assert (decision.gang.name, decision.reason) == ("vision/pod:gated", "OverQuota")
    (decision,) = whatif.decide(whatif.load(written(tmp_path, pods=[gated, other])))
    assert isinstance(decision, Place)
    assert {assigned.node for assigned in decision.placement} == {"n2"}


def test_run_continues_for_the_assumed_duration(tmp_path: Path) -> None:
    running = started(job("runs"), ("n1", "n2"), at=NOW - 100)
    other = {"metadata": {"name": "other", "namespace": "x"}, "spec": {"nodeName": "n2", **template(2)["spec"]}}
    pods = [other, *(pod_json(running, place) for place in running.status.placement)]
    live = whatif.load(
        written(
            tmp_path,
            dljobs=[as_json(running), dljob("next", roles={"worker": {"replicas": 3, "template": template(2)}})],
            pods=pods,
        )
    )
    simulation = whatif.run_on(live, 1000.0)
    rows = simulation.run().rows
    assert (rows["vision/runs"].started, rows["vision/runs"].finished) == (0.0, 900.0)
    assert (rows["vision/next"].started, rows["vision/next"].finished) == (900.0, 1900.0)
    assert rows["vision/next"].arrival == BORN - NOW
    assert simulation.cluster.gpus == 6, "GPUs of external pods are excluded"


def test_cpu_of_an_ended_job_is_available_to_the_next(tmp_path: Path) -> None:
    resources = {"requests": {"cpu": "40"}, "limits": {names.GPU: "1"}}
    one = template(containers=[{"name": "train", "image": "i", "resources": resources}])
    roles = {"worker": {"replicas": 2, "template": one}}
    running = started(job("runs", roles=roles), at=NOW - 100)
    pods = [pod_json(running, place, made_of=one) for place in running.status.placement]
    jobs = [dljob("runs", roles=roles, status=as_json(running)["status"]), dljob("next", roles=roles)]
    rows = whatif.run_on(whatif.load(written(tmp_path, dljobs=jobs, pods=pods)), 1000.0).run().rows
    assert rows["vision/next"].started == rows["vision/runs"].finished == 900.0


def test_command_prints_decisions_and_the_simulated_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = dljob("large", roles={"worker": {"replicas": 3, "template": template(4)}})
    file = str(written(tmp_path, dljobs=[large, dljob("starts")]))
    assert main(["simulate", "--snapshot", file]) == 0
    alone = capsys.readouterr().out
    lines = {line.split()[0]: line for line in alone.splitlines()}
    assert lines["vision/starts"].split()[1:3] == ["Place", "Placed"]
    assert "needs 12 GPUs" in lines["vision/large"]
    assert main(["simulate", "--snapshot", file, "--assume-duration", "600", "--timeline", str(tmp_path / "a.svg")]) == 0
    simulated = capsys.readouterr().out
    assert simulated.startswith(alone)
    assert "1 of 2 jobs finished" in simulated
    assert "starts" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "x"}, "found kind 'x'; expected 'muster-snapshot/1'"),
        ({"nodes": [{}]}, "missing required field `metadata`"),
        ({"pods": {}}, "Expected `array`, got `object`"),
        ({"takenAt": "now"}, "Expected `float`, got `str`"),
    ],
)
def test_invalid_dump_is_reported(tmp_path: Path, change: Json, words: str) -> None:
    path = written(tmp_path, **change)
    with pytest.raises(BadInput, match=f"cluster.json: is not a snapshot: .*{words}"):
        whatif.load(path)
    path.write_text("{")
    with pytest.raises(BadInput, match="is not a snapshot"):
        whatif.load(path)


def test_unreadable_job_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"dljobs: DLJob vision/vgg16 cannot be read"):
        whatif.load(written(tmp_path, dljobs=[dljob(roles={})]))
