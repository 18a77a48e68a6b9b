"""The local cluster from a user's view: nodes get Ready, pods run and end, rights apply."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from muster.api import names
from muster_dev.local.cluster import Component, LocalCluster, Options
from muster_dev.local.errors import LocalError
from muster_dev.local.nodes import is_ready, manifests

pytestmark = pytest.mark.cluster


def pod(name: str, annotations: dict[str, str] | None = None, gpus: int = 1, **spec: Any) -> dict[str, Any]:
    container = {"name": "train", "image": "train", "resources": {"limits": {names.GPU: str(gpus)}}}
    metadata = {"name": name, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


class Pods:
    """The pods of one namespace."""

    def __init__(self, cluster: LocalCluster, namespace: str) -> None:
        self.cluster, self.path = cluster, f"/api/v1/namespaces/{namespace}/pods"

    def create(self, manifest: dict[str, Any]) -> None:
        self.cluster.api.create(self.path, manifest)

    def get(self, name: str) -> Any:
        return self.cluster.api.get(f"{self.path}/{name}")

    def wait_phase(self, name: str, phase: str) -> Any:
        self.cluster.wait(lambda: self.get(name)["status"]["phase"] == phase, f"pod {name} is {phase}")
        return self.get(name)


@pytest.fixture
def pods(cluster: LocalCluster, namespace: str) -> Pods:
    return Pods(cluster, namespace)


def test_nodes_are_ready_with_their_gpus_racks_and_blocks(cluster: LocalCluster) -> None:
    nodes = cluster.api.get(f"/api/v1/nodes?labelSelector={names.MACHINE}=dgx-a100")["items"]
    assert len(nodes) == 4
    assert all(is_ready(node) for node in nodes)
    assert {node["status"]["allocatable"][names.GPU] for node in nodes} == {"8"}
    assert {node["metadata"]["labels"][names.RACK] for node in nodes} == {"rack-0"}
    assert {node["metadata"]["labels"][names.BLOCK] for node in nodes} == {"block-0"}


def test_silenced_node_becomes_unknown_and_revived_node_ready() -> None:
    with LocalCluster(nodes="p100:2", options=Options(node_grace_seconds=4)) as cluster:
        cluster.silence_node("p100-0")
        cluster.wait(lambda: cluster.ready_nodes() == {"p100-1"}, "the silent node is not Ready, the other one is")
        cluster.revive_node("p100-0")
        cluster.wait(lambda: cluster.ready_nodes() == {"p100-0", "p100-1"}, "both nodes are Ready")


def test_pod_on_a_node_without_kwok_is_bound_and_stays_pending() -> None:
    options = Options(
        node_grace_seconds=86_400,
        feature_gates={"GenericWorkload": True, "GangScheduling": True},
        runtime_config={"scheduling.k8s.io/v1alpha2": True},
    )
    with LocalCluster(options=options) as cluster:
        assert cluster.exists("/apis/scheduling.k8s.io/v1alpha2")
        cluster.add_nodes(manifests("p100:1", kwok=False))
        pods = Pods(cluster, "default")
        pods.create(pod("bound"))
        cluster.wait(lambda: "nodeName" in pods.get("bound")["spec"], "the pod is bound")
        assert pods.get("bound")["status"]["phase"] == "Pending"


def test_api_server_reports_its_version(cluster: LocalCluster) -> None:
    assert cluster.api.get("/version")["gitVersion"].startswith("v1.")


def test_pod_succeeds_after_the_seconds_of_its_annotation(pods: Pods) -> None:
    pods.create(pod("short", {names.RUN_SECONDS: "1"}))
    done = pods.wait_phase("short", "Succeeded")
    ended = done["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 0
    assert done["status"]["podIP"]


@pytest.mark.parametrize("annotations", [{}, {names.RUN_SECONDS: "soon"}], ids=["none", "no number"])
def test_pod_without_a_number_of_seconds_keeps_running(pods: Pods, annotations: dict[str, str]) -> None:
    pods.create(pod("long", annotations))
    pods.wait_phase("long", "Running")
    # A pod that starts later succeeds first: by then kwok would have ended the other one.
    pods.create(pod("short", {names.RUN_SECONDS: "1"}))
    pods.wait_phase("short", "Succeeded")
    assert pods.get("long")["status"]["phase"] == "Running"


def test_patched_pod_still_ends_in_time(pods: Pods, cluster: LocalCluster) -> None:
    pods.create(pod("patched", {names.RUN_SECONDS: "3"}))
    pods.wait_phase("patched", "Running")

    def patch_and_look(count: list[int]) -> bool:
        count[0] += 1
        patched = cluster.api.patch(f"{pods.path}/patched", {"metadata": {"annotations": {"note": str(count[0])}}})
        return bool(patched["status"]["phase"] == "Succeeded")

    count = [0]
    cluster.wait(lambda: patch_and_look(count), "a pod that is patched all the time succeeds")
    assert count[0] > 1


def test_missing_object_is_waited_for(pods: Pods, cluster: LocalCluster) -> None:
    creation = threading.Timer(0.3, lambda: pods.create(pod("late")))
    creation.start()
    cluster.wait(lambda: cluster.api.get(f"{pods.path}/late"), "the pod is there")
    creation.join()


def test_deleted_pod_ends_before_it_is_removed(pods: Pods, cluster: LocalCluster) -> None:
    pods.create(pod("gone") | {"metadata": {"name": "gone", "finalizers": ["muster.dev/test"]}})
    pods.wait_phase("gone", "Running")
    cluster.api.delete(f"{pods.path}/gone")
    ended = pods.wait_phase("gone", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 128 + 15
    cluster.api.patch(f"{pods.path}/gone", {"metadata": {"finalizers": None}})
    cluster.wait(lambda: not cluster.exists(f"{pods.path}/gone"), "the pod is gone")


def test_batch_job_completes(cluster: LocalCluster, namespace: str) -> None:
    template = pod("", {names.RUN_SECONDS: "1"}, restartPolicy="Never")
    template["metadata"].pop("name")
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    spec = {"completions": 2, "parallelism": 2, "template": template}
    cluster.api.create(path, {"metadata": {"name": "two"}, "spec": spec})
    cluster.wait(lambda: cluster.api.get(f"{path}/two")["status"].get("succeeded") == 2, "both pods succeed")


def test_pod_that_asks_for_too_many_gpus_stays_pending_with_a_reason(pods: Pods, cluster: LocalCluster) -> None:
    pods.create(pod("big", gpus=9))

    def message() -> str:
        conditions = pods.get("big")["status"].get("conditions", [])
        return "".join(condition.get("message", "") for condition in conditions)

    cluster.wait(lambda: names.GPU in message(), "the scheduler says why")
    assert pods.get("big")["status"]["phase"] == "Pending"


def test_user_has_the_rights_that_rbac_grants_alone(cluster: LocalCluster, namespace: str) -> None:
    config = cluster.kubeconfig_for(f"system:serviceaccount:{namespace}:nobody")
    with pytest.raises(LocalError, match="forbidden"):
        cluster.kubectl(f"--kubeconfig={config}", "get", "pods", "-n", namespace)
    cluster.kubectl(
        "create", "rolebinding", "view", "--clusterrole=view", f"--serviceaccount={namespace}:nobody", "-n", namespace
    )
    cluster.wait(lambda: _may_list(cluster, namespace, config), "the binding takes effect")


def _may_list(cluster: LocalCluster, namespace: str, config: Any) -> bool:
    try:
        cluster.kubectl(f"--kubeconfig={config}", "get", "pods", "-n", namespace)
    except LocalError:
        return False
    return True


def test_component_that_ends_at_once_is_reported_with_the_end_of_its_log(cluster: LocalCluster) -> None:
    words = ["sh", "-c", "echo the reason why; exit 3"]
    with pytest.raises(LocalError, match=r"(?s)broken ended with exit code 3.*the reason why"):
        cluster.run(Component("broken", words, ready_url="http://127.0.0.1:9/"))
