"""GPU pods of the cluster's own kube-scheduler, which asks muster's extender by kind-config.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kind.jobs import Jobs, Object, allreduce, nodes_of, pod_spec
from muster.api import names
from muster_dev.kind import default_scheduler
from muster_dev.kind.cluster import NAMESPACE

pytestmark = pytest.mark.kind
HOLD = "example.com/hold"
STAY = ("python3", "-c", "import time; time.sleep(3600)")


def pod(name: str, gpus: int, *command: str) -> Object:
    """Return a pod that names no scheduler."""
    spec = pod_spec(gpus, *command)
    del spec["schedulerName"]
    if not gpus:
        del spec["containers"][0]["resources"]  # 0 of something is asking for it
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"test": "pod"}}, "spec": spec}


def refusals(jobs: Jobs, name: str) -> list[str]:
    """Return kube-scheduler's messages about a pod that it could not place."""
    chosen = f"involvedObject.name={name},reason=FailedScheduling"
    events = json.loads(jobs.kubectl("get", "events", "--field-selector", chosen, "--output", "json"))["items"]
    return [event["message"] for event in events]


def extender_says(figure: str, jobs: Jobs) -> float:
    """Return a metric of the extender."""
    path = f"/api/v1/namespaces/{NAMESPACE}/services/muster-scheduler:8082/proxy/metrics"
    lines = jobs.cluster.kubectl("get", "--raw", path).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"muster_extender_{figure} "))


def test_pod_keeps_off_gpus_that_a_gang_has_reserved_or_holds(jobs: Jobs, tmp_path: Path) -> None:
    gang = allreduce("gang", workers=2, gpus=8)
    template = gang["spec"]["roles"]["worker"]["template"]["spec"]
    template |= {"schedulingGates": [{"name": HOLD}], "terminationGracePeriodSeconds": 1}
    template["containers"][0]["command"] = list(STAY)
    jobs.apply(gang, folder=tmp_path)

    def ungate(member: str) -> None:
        jobs.kubectl("patch", "pod", member, "--type=json", '--patch=[{"op": "remove", "path": "/spec/schedulingGates"}]')

    jobs.until(lambda: len(jobs.gang("gang")) == 2, "the gang's pods exist")
    ungate("gang-worker-0")
    # Once this pod is bound, the extender knows both reservations; the other pod's node is reserved and empty.
    jobs.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/gang-worker-0", "--timeout=180s")
    jobs.apply(pod("late", 1, "python3", "-c", "print('ran')"), folder=tmp_path)
    reason = f"1 needs 1 GPU: 0 of 8 free, 8 reserved for {jobs.namespace}/gang"
    jobs.until(lambda: any(reason in said for said in refusals(jobs, "late")), "the pod reports the owner of the reservation")
    assert jobs.get("pod", "late")["spec"]["schedulerName"] == "default-scheduler"
    ungate("gang-worker-1")
    jobs.until_phase("gang", "Running")
    assert "nodeName" not in jobs.get("pod", "late")["spec"]
    jobs.kubectl("delete", "dljob", "gang")
    jobs.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/late", "--timeout=180s")


def test_pods_are_packed_on_the_node_without_links(jobs: Jobs, tmp_path: Path) -> None:
    jobs.until(lambda: extender_says("gpus_free", jobs) == 16, "the extender sees all GPUs free")
    jobs.apply(*[pod(f"single-{number}", 1, *STAY) for number in range(4)], folder=tmp_path)
    jobs.kubectl("wait", "--for=condition=PodScheduled", "pod", "--selector", "test=pod", "--timeout=180s")
    (node,) = set(nodes_of(jobs.pods("test=pod")))  # by CPU and memory alone, kube-scheduler would spread them
    assert jobs.get("node", node)["metadata"]["labels"][names.MACHINE] == "pcie-8"


@pytest.fixture
def no_extender(jobs: Jobs) -> Iterator[None]:
    """Remove the pod of muster's scheduler and the extender for the test, and bring it back afterwards."""
    scale(jobs, 0)
    parts = ("--namespace", NAMESPACE, "--selector", "app.kubernetes.io/component=scheduler", "--output", "name")
    jobs.until(lambda: not jobs.cluster.kubectl("get", "pods", *parts), "the extender has ended")
    yield
    scale(jobs, 1)


def scale(jobs: Jobs, replicas: int) -> None:
    deployment = ("deployment/muster-scheduler", "--namespace", NAMESPACE)
    jobs.cluster.kubectl("scale", *deployment, f"--replicas={replicas}")
    jobs.cluster.kubectl("rollout", "status", *deployment, "--timeout=180s")


@pytest.mark.usefixtures("no_extender")
def test_pod_with_gpus_waits_for_the_extender_and_others_do_not(jobs: Jobs, tmp_path: Path) -> None:
    ending = ("python3", "-c", "print('ran')")
    jobs.apply(pod("asking", 1, *ending), pod("plain", 0, *ending), folder=tmp_path)
    jobs.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/plain", "--timeout=180s")
    address = default_scheduler.EXTENDER_ADDRESS
    jobs.until(
        lambda: any(address in said for said in refusals(jobs, "asking")), "the pod reports the address that does not answer"
    )
    assert "nodeName" not in jobs.get("pod", "asking")["spec"]
    scale(jobs, 1)
    jobs.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asking", "--timeout=180s")
