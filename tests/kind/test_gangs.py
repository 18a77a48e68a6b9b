"""Gangs on real kubelets: their processes find each other, and users control them by kubectl."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from kind.jobs import Jobs, allreduce, nodes_of, pod_spec
from muster.api import names

pytestmark = pytest.mark.kind
LONG = ("--steps=100000", "--seconds=0.05")


def test_gang_of_four_on_two_nodes_sums_its_vectors(jobs: Jobs, tmp_path: Path) -> None:
    jobs.apply(allreduce("sums", gpus=4, arguments=["--steps=50"]), folder=tmp_path)
    jobs.until_phase("sums", "Succeeded")
    pods = jobs.gang("sums")
    logs = [jobs.kubectl("logs", pod["metadata"]["name"]) for pod in pods]
    assert all(f"rank {rank}: 50 steps, every sum right" in log for rank, log in enumerate(logs))
    first, second, third, fourth = nodes_of(pods)
    assert first == second != third == fourth  # neighbouring ranks share a node
    given = [log.split("GPUs ")[1].split("\n")[0].split(",") for log in logs]
    assert len({gpu for gpus in given for gpu in gpus}) == 16


def test_gang_with_a_pod_annotated_to_suspend_is_suspended_and_resumes(jobs: Jobs, tmp_path: Path) -> None:
    free = jobs.free_gpus()
    jobs.apply(allreduce("pausing", arguments=LONG), folder=tmp_path)
    jobs.until_phase("pausing", "Running")
    with ExitStack() as stack:
        logs = [stack.enter_context(jobs.follow(f"pausing-worker-{rank}")) for rank in range(4)]
        assert all(log.readline().startswith(f"rank {rank} of 4") for rank, log in enumerate(logs))
        jobs.kubectl("annotate", "pod", "pausing-worker-2", f"{names.SUSPEND}=true")
        jobs.until_phase("pausing", "Suspended")
        # The first process to end was told to stop; its neighbours may fail to reach it before they are told.
        assert any("told to stop" in log.read() for log in logs)
    jobs.until(lambda: jobs.gang("pausing") == [], "its ended pods are removed")
    assert jobs.free_gpus() == free
    jobs.kubectl("annotate", "dljob", "pausing", "--overwrite", f"{names.SUSPEND}=false")
    jobs.until_phase("pausing", "Running")
    assert len(jobs.gang("pausing")) == 4


def test_gang_with_a_pod_annotated_to_migrate_moves(jobs: Jobs, tmp_path: Path) -> None:
    jobs.apply(allreduce("moving", arguments=LONG), folder=tmp_path)
    jobs.until_phase("moving", "Running")
    (left,) = set(nodes_of(jobs.gang("moving")))
    jobs.kubectl("annotate", "pod", "moving-worker-0", f"{names.MIGRATE}=")

    def moved() -> bool:
        pods = jobs.gang("moving")
        return len(pods) == 4 and all(p["status"]["phase"] == "Running" and p["spec"]["nodeName"] != left for p in pods)

    jobs.until(moved, f"the gang runs on other nodes than {left}")


def test_gang_with_a_killed_node_runs_on_other_nodes(jobs: Jobs, tmp_path: Path) -> None:
    jobs.apply(allreduce("surviving", arguments=LONG), folder=tmp_path)
    jobs.until_phase("surviving", "Running")
    (killed,) = set(nodes_of(jobs.gang("surviving")))
    engine = jobs.cluster.engine
    engine.run("docker", "kill", killed)
    try:

        def elsewhere() -> bool:
            placement = jobs.get("dljob", "surviving")["status"].get("placement", [])
            return jobs.phase("surviving") == "Running" and killed not in {place["node"] for place in placement}

        jobs.until(elsewhere, f"the gang runs on other nodes than {killed}")
    finally:
        engine.run("docker", "start", killed)
        jobs.cluster.kubectl("wait", "--for=condition=Ready", f"node/{killed}", "--timeout=180s")
    jobs.until(lambda: jobs.free_gpus() == 8, f"{killed} has its GPUs again")


def test_failing_job_is_retried_as_a_gang_and_then_fails(jobs: Jobs, tmp_path: Path) -> None:
    jobs.apply(allreduce("failing", arguments=["--fail-rank=1"], backoffLimit=1), folder=tmp_path)
    jobs.until_phase("failing", "Failed")
    status = jobs.get("dljob", "failing")["status"]
    assert status["restarts"] == 1
    assert {pod["metadata"]["annotations"][names.ATTEMPT] for pod in jobs.gang("failing")} == {str(status["attempt"])}
    messages = [event["message"] for event in status["timeline"] if event["reason"] == "PodFailed"]
    assert messages  # any pod may be named first: the others end when they cannot reach their neighbour
    assert all("pod failing-worker-" in message and "exited with 1" in message for message in messages)


def test_image_that_cannot_be_pulled_is_reported_with_its_node(jobs: Jobs, tmp_path: Path) -> None:
    job = allreduce("imageless", workers=1)
    job["spec"]["roles"]["worker"]["template"]["spec"]["containers"][0]["image"] = "nowhere.invalid/nothing:1"
    jobs.apply(job, folder=tmp_path)

    def reported() -> bool:
        timeline = jobs.get("dljob", "imageless").get("status", {}).get("timeline", [])
        return any("PodStartFailed" in event["reason"] and "on node muster-worker" in event["message"] for event in timeline)

    jobs.until(reported, "the timeline names the node and the reason")


def test_batch_job_is_gated_and_planned(jobs: Jobs, tmp_path: Path) -> None:
    template = {"spec": pod_spec(2, "python3", "-c", "print('ran')")}
    spec = {"parallelism": 3, "completions": 3, "backoffLimit": 0, "template": template}
    jobs.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "plain"}, "spec": spec}, folder=tmp_path)
    jobs.kubectl("wait", "--for=condition=Complete", "job/plain", "--timeout=180s")
    pods = jobs.pods("batch.kubernetes.io/job-name=plain")
    assert all(names.GPUS in pod["metadata"]["annotations"] for pod in pods)  # planned, not merely ungated
    assert len(set(nodes_of(pods))) == 1


def test_labelled_gang_starts_only_when_complete(jobs: Jobs, tmp_path: Path) -> None:
    def member(name: str) -> dict[str, object]:
        about = {"name": name, "labels": {names.GANG: "pair"}, "annotations": {names.GANG_SIZE: "2"}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": pod_spec(6, "python3", "-c", "print('ran')")}

    jobs.apply(member("first"), folder=tmp_path)
    jobs.until(
        lambda: names.WAITING in jobs.get("pod", "first")["metadata"]["annotations"], "the first pod is annotated as waiting"
    )
    assert jobs.get("pod", "first")["spec"]["schedulingGates"] == [{"name": names.GATE}]
    jobs.apply(member("second"), folder=tmp_path)
    for name in ("first", "second"):
        jobs.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=180s")
