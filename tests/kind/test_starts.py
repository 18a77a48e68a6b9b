"""Gangs that do not start on real kubelets: each is given up, says why, and costs nobody anything.

The jobs run side by side in one namespace, since each waits for kubelets and back-offs most of the time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from kind.jobs import Jobs, Object, allreduce, namespace, nodes_of
from muster.api import names
from muster_dev.kind.cluster import Cluster

pytestmark = pytest.mark.kind
STEPS = ("--steps=20",)
LONG = ("--steps=100000", "--seconds=0.05")
PREFERRED, OTHER = "muster-worker2", "muster-worker"
STATIC_PODS = "/etc/kubernetes/manifests"
"""The kubelet of a node runs the pods of this directory, whether the API server accepts them or not."""


@pytest.fixture(scope="module")
def jobs(kind: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """The jobs of this module, started together."""
    folder, urgent = tmp_path_factory.mktemp("starts"), f"urgent-{os.getpid()}"
    with namespace(kind, f"starts-{os.getpid()}") as jobs:
        jobs.apply(holder("low", LONG), folder=folder)
        jobs.until_phase("low", "Running")
        jobs.apply(priority_class(urgent), imageless("high", urgent), folder=folder)
        jobs.apply(unconfigured(), unmounted(), crashing(), forbidden(), folder=folder)
        try:
            yield jobs
        finally:
            kind.kubectl("delete", "priorityclass", urgent)


def parts(job: Object) -> tuple[Object, Object]:
    """Return the spec of a job's workers and their container."""
    spec: Object = job["spec"]["roles"]["worker"]["template"]["spec"]
    return spec, spec["containers"][0]


def holder(name: str, arguments: tuple[str, ...], **spec: object) -> Object:
    """A job after which no second one of its size fits on its node."""
    job = allreduce(name, workers=1, gpus=6, arguments=arguments, **spec)
    parts(job)[0]["nodeSelector"] = {"kubernetes.io/hostname": OTHER}
    return job


def imageless(name: str, priority_class: str) -> Object:
    job = holder(name, STEPS, priorityClassName=priority_class)
    parts(job)[1]["image"] = "nowhere.invalid/nothing:1"
    return job


def priority_class(name: str) -> Object:
    return {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 100}


def unconfigured() -> Object:
    job = allreduce("unconfigured", workers=2, gpus=1, arguments=STEPS, startRetries=1)
    parts(job)[1]["envFrom"] = [{"configMapRef": {"name": "unconfigured"}}]
    return job


def unmounted() -> Object:
    job = allreduce("unmounted", workers=1, gpus=1, arguments=STEPS, startDeadlineSeconds=5, startRetries=0)
    spec, container = parts(job)
    spec["volumes"] = [{"name": "settings", "configMap": {"name": "unmounted"}}]
    container["volumeMounts"] = [{"name": "settings", "mountPath": "/settings"}]
    return job


def crashing() -> Object:
    job = allreduce("crashing", workers=1, gpus=1, backoffLimit=1)
    spec, container = parts(job)
    spec["restartPolicy"], container["command"] = "OnFailure", ["python3", "-c", "raise SystemExit(1)"]
    return job


def forbidden() -> Object:
    job = allreduce("forbidden", workers=1, gpus=1, backoffLimit=0)
    spec, _ = parts(job)
    spec["securityContext"]["sysctls"] = [{"name": "kernel.msgmax", "value": "65536"}]
    spec["nodeSelector"] = {"kubernetes.io/hostname": PREFERRED}
    return job


def picky(cpu: int) -> Object:
    """A job of one pod with so many thousandths of a CPU, that prefers one node."""
    job = allreduce("picky", workers=1, gpus=1, arguments=STEPS, backoffLimit=0)
    spec, container = parts(job)
    container["resources"]["requests"] = {"cpu": f"{cpu}m"}
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [PREFERRED]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
    spec["affinity"] = {"nodeAffinity": preferred}
    return job


def condition(jobs: Jobs, job: str, kind: str) -> Object:
    conditions = jobs.get("dljob", job).get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})


def timeline(jobs: Jobs, job: str) -> list[Object]:
    events: list[Object] = jobs.get("dljob", job)["status"]["timeline"]
    return events


def refusals(jobs: Jobs, job: str) -> list[Object]:
    return jobs.get("dljob", job)["status"].get("refusals") or []


@pytest.mark.parametrize(
    ("job", "starts", "cause"),
    [
        ("unconfigured", "2 starts", 'container train: CreateContainerConfigError configmap "unconfigured" not found'),
        (
            "unmounted",
            "1 start",
            "has not started within 5 s: container train: ContainerCreating; FailedMount MountVolume.SetUp failed for volume"
            ' "settings" : configmap "unmounted" not found',
        ),
    ],
)
def test_job_without_its_configmap_is_set_aside_and_runs_once_it_is_there(
    jobs: Jobs, job: str, starts: str, cause: str
) -> None:
    jobs.until_phase(job, "Suspended")
    suspended = condition(jobs, job, "Suspended")
    assert suspended["reason"] == "StartRetriesExceeded"
    assert suspended["message"].startswith(f"set aside after {starts} that failed; the last: pod {job}-worker-")
    assert "on node muster-worker" in suspended["message"]
    assert cause in suspended["message"]
    jobs.kubectl("create", "configmap", job, "--from-literal=key=value")
    jobs.kubectl("annotate", "dljob", job, "--overwrite", f"{names.SUSPEND}=false")
    jobs.until_phase(job, "Succeeded")


def test_program_that_its_kubelet_starts_again_and_again_fails_its_job(jobs: Jobs) -> None:
    jobs.until_phase("crashing", "Failed")
    failed = condition(jobs, "crashing", "Failed")
    assert failed["reason"] == "BackoffLimitExceeded"
    assert "pod crashing-worker-0 failed on node muster-worker" in failed["message"]
    assert "container train exited with 1 Error" in failed["message"]


def test_gang_that_every_kubelet_rejects_waits_and_says_why(jobs: Jobs) -> None:
    jobs.until(lambda: any("until" in each for each in refusals(jobs, "forbidden")), "its node is left out")
    assert 'forbidden sysctl: "kernel.msgmax"' in condition(jobs, "forbidden", "Admitted")["message"]
    assert not jobs.get("dljob", "forbidden")["status"].get("restarts")


def test_gang_whose_image_cannot_be_pulled_preempts_once(jobs: Jobs) -> None:
    jobs.until(lambda: "PodStartFailed" in {event["reason"] for event in timeline(jobs, "high")}, "the start has failed")
    jobs.until_phase("low", "Running")
    jobs.until(lambda: condition(jobs, "high", "Admitted")["reason"] != "PodStartFailed", "it is planned again")
    assert jobs.phase("high") == "Queued"
    assert [event["event"] for event in timeline(jobs, "low")].count("Preempted") == 1
    assert jobs.phase("low") == "Running"


def test_gang_that_a_kubelet_rejects_runs_on_another_node(jobs: Jobs, tmp_path: Path) -> None:
    jobs.kubectl("delete", "dljob", "high", "--ignore-not-found")  # it reserves the other node while it waits
    cpus = 1000 * int(jobs.get("node", PREFERRED)["status"]["allocatable"]["cpu"])
    with static_pod(jobs, PREFERRED, cpus * 6 // 10, tmp_path):
        jobs.apply(picky(cpus // 2), folder=tmp_path)
        jobs.until_phase("picky", "Succeeded")
    (rejected,) = [event["message"] for event in timeline(jobs, "picky") if event["event"] == "Requeued"]
    assert rejected.startswith(f"pod picky-worker-0 on node {PREFERRED} was rejected by its kubelet: ")
    assert "cpu" in rejected
    assert nodes_of(jobs.gang("picky")) == [OTHER]


@contextmanager
def static_pod(jobs: Jobs, node: str, cpu: int, folder: Path) -> Iterator[None]:
    """Have a kubelet run a pod of which the API server never hears, since its namespace is not there."""
    container = {"name": "main", "image": "muster-runtime:0.1.0", "command": ["sleep", "600"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container | {"resources": {"requests": {"cpu": f"{cpu}m"}}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "unheard-of", "namespace": "nowhere"}, "spec": spec}
    source, target = folder / "static.yaml", f"{STATIC_PODS}/unheard-of.yaml"
    source.write_text(yaml.safe_dump(pod))

    def known() -> set[str]:
        pods = json.loads(jobs.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/pods"))["items"]
        return {pod["metadata"]["name"] for pod in pods}

    engine, name = jobs.cluster.engine, f"unheard-of-{node}"
    engine.run("docker", "exec", "--interactive", node, "sh", "-c", f"cat > {target}", stdin=source)
    try:
        jobs.until(lambda: name in known(), "the kubelet has the static pod")
        yield
    finally:
        engine.run("docker", "exec", node, "rm", target)
        jobs.until(lambda: name not in known(), "the static pod is gone")
