"""The extender with a real kube-scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from builders.guarded import bound, gpu_pod
from builders.guarded import guarded as start_guarded
from muster.api import names
from muster.kube.client import Client
from muster.kube.errors import Invalid
from muster.kube.objects import Meta
from muster_dev.local.cluster import LocalCluster
from muster_extender.waking import patcher

pytestmark = pytest.mark.cluster

SCHEDULER = "guarded"


@pytest.fixture(scope="module")
def guarded(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster with an extender and a kube-scheduler named "guarded" that asks it."""
    with start_guarded(cluster, SCHEDULER):
        yield cluster


def job(name: str) -> dict[str, Any]:
    container = {"name": "train", "image": "train", "resources": {"limits": {names.GPU: 6}}}
    worker = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    return {"apiVersion": names.API_VERSION, "kind": "DLJob", "metadata": {"name": name}, "spec": {"roles": {"worker": worker}}}


def pod(name: str, gpus: int, node: str, **meta: Any) -> dict[str, Any]:
    return gpu_pod(name, gpus, SCHEDULER, node=node, **meta)


def place(node: str) -> dict[str, Any]:
    """Six of the node's eight GPUs for the only pod of the gang."""
    return {"pod": "gang-worker-0", "role": "worker", "index": 0, "rank": 0, "node": node, "gpus": [0, 1, 2, 3, 4, 5]}


def reserve(cluster: LocalCluster, path: str, placement: list[dict[str, Any]]) -> None:
    cluster.api.patch(f"{path}/status", {"status": {"attempt": 1, "placement": placement}})


def test_reservation_keeps_others_off_and_its_end_lets_them_in(guarded: LocalCluster, namespace: str) -> None:
    jobs, pods = f"/apis/{names.API_VERSION}/namespaces/{namespace}/dljobs", f"/api/v1/namespaces/{namespace}/pods"
    node = "pcie-8-0"
    owner = guarded.api.create(jobs, job("gang"))
    reserve(guarded, f"{jobs}/gang", [place(node)])

    guarded.api.create(pods, pod("external", 4, node))
    why = f"needs 4 GPUs: 2 of 8 free, 6 reserved for {namespace}/gang"

    def explained() -> bool:
        events = guarded.api.get(f"/api/v1/namespaces/{namespace}/events")["items"]
        return any(why in event.get("message", "") for event in events if event["involvedObject"]["name"] == "external")

    guarded.wait(explained, "the reason is in the pod's events")

    reference = {"apiVersion": names.API_VERSION, "kind": "DLJob", "name": "gang", "uid": owner["metadata"]["uid"]}
    meta = {
        "labels": {names.JOB: "gang"},
        "annotations": {names.ATTEMPT: "1"},
        "ownerReferences": [{**reference, "controller": True}],
    }
    guarded.api.create(pods, pod("gang-worker-0", 6, node, **meta))
    guarded.wait(lambda: bound(guarded, f"{pods}/gang-worker-0"), "the owner is bound")
    assert not bound(guarded, f"{pods}/external")


def test_release_that_only_the_extender_sees_wakes_the_pod(guarded: LocalCluster, namespace: str) -> None:
    """Any other event of the cluster lets a pod in as well, which then needs no waking: one of ten is woken."""
    assert any(woken_by_a_release(guarded, namespace, f"pod-{number}") for number in range(10))


def woken_by_a_release(cluster: LocalCluster, namespace: str, name: str) -> bool:
    """Have a pod refused for a gang's reservation, take that away, and say whether the pod was woken before it was bound."""
    jobs, pods = f"/apis/{names.API_VERSION}/namespaces/{namespace}/dljobs", f"/api/v1/namespaces/{namespace}/pods"
    node = "pcie-8-1"
    cluster.api.create(jobs, job(name))
    reserve(cluster, f"{jobs}/{name}", [{**place(node), "pod": f"{name}-worker-0"}])
    cluster.api.create(pods, pod(name, 4, node))

    def refused() -> bool:
        conditions = cluster.api.get(f"{pods}/{name}")["status"].get("conditions", [])
        return any("reserved for" in condition.get("message", "") for condition in conditions)

    cluster.wait(refused, "the pod is refused")
    reserve(cluster, f"{jobs}/{name}", [])
    cluster.wait(lambda: bound(cluster, f"{pods}/{name}"), "the pod is bound")
    woken = names.WAKE in cluster.api.get(f"{pods}/{name}")["metadata"].get("annotations", {})
    cluster.api.delete(f"{pods}/{name}")
    cluster.wait(lambda: not cluster.exists(f"{pods}/{name}"), "the pod is gone")
    return woken


async def test_wake_of_an_earlier_pod_of_the_name_is_refused(cluster: LocalCluster, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    created = cluster.api.create(pods, gpu_pod("again", 1, "nobody"))
    async with await Client.connect(str(cluster.kubeconfig)) as client:
        wake = patcher(client)
        await wake(Meta("again", created["metadata"]["uid"], namespace), "1")
        with pytest.raises(Invalid, match="field is immutable"):
            await wake(Meta("again", "00000000-0000-0000-0000-000000000000", namespace), "2")
    assert cluster.api.get(f"{pods}/again")["metadata"]["annotations"][names.WAKE] == "1"
