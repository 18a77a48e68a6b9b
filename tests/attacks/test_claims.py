"""Forged claims where the API server has no policy that refuses them: they gain nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from builders.live import Json, Live
from muster.api import names, write_policies
from muster.kube.errors import Forbidden
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
KINDS = {
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}
PARTS = ("muster-operator", "muster-extender")
OWN = "example.com/own"
"""A scheduling gate of the attacker's."""


@pytest.fixture(scope="module", autouse=True)
def unvouched(cluster: LocalCluster) -> Iterator[None]:
    """The API server has no policy about pods, and operator and extender know it."""
    removed = [cluster.api.get(f"{ADMISSION}/{plural}/{write_policies.PODS}") for plural in KINDS.values()]
    cluster.create_namespace("watched")
    with known(cluster, "annotations of pods count for nothing"):
        for item in removed:
            cluster.api.delete(f"{ADMISSION}/{KINDS[item['kind']]}/{write_policies.PODS}")
    cluster.wait(lambda: not refused(cluster), "the API server does not refuse it any more")
    yield
    with known(cluster, "annotations of pods count: the admission policy"):
        for item in removed:
            body = {"metadata": {"name": item["metadata"]["name"]}, "spec": item["spec"]}
            head = {"apiVersion": item["apiVersion"], "kind": item["kind"]}
            cluster.api.create(f"{ADMISSION}/{KINDS[item['kind']]}", head | body)
    cluster.wait(lambda: refused(cluster), "the API server refuses it again")


@contextmanager
def known(cluster: LocalCluster, words: str) -> Iterator[None]:
    """Make a change, and wait until operator and extender have said these words once more."""

    def said(part: str) -> int:
        return (cluster.directory / "logs" / f"{part}.log").read_text().count(words)

    before = {part: said(part) for part in PARTS}
    yield
    cluster.wait(lambda: all(said(part) > before[part] for part in PARTS), "operator and extender know it")


def refused(cluster: LocalCluster) -> bool:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try", "annotations": {names.GPUS: "0"}}}
    spec = {"containers": [{"name": "c", "image": "c"}]}
    try:
        cluster.api.create("/api/v1/namespaces/watched/pods", body | {"spec": spec}, dry_run=True)
    except Forbidden:
        return True
    return False


def pinned(node: str) -> Json:
    pin = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [pin]}}}


def claim(user: Live, name: str, node: str) -> None:
    """Create a pod that claims every GPU of a node and that no kube-scheduler sees, for its gate of its own."""
    claims = {names.GPUS: "0,1,2,3,4,5,6,7", names.RANK: "0"}
    gates = [{"name": OWN}]
    user.pod(name, 8, annotations=claims, affinity=pinned(node), schedulingGates=gates)


def test_forged_claims_hold_no_gpu(user: Live) -> None:
    """The attacker removes muster's gate, keeps a gate of its own, and names every GPU of the node."""
    (node,) = user.add_nodes(1)
    claim(user, "forged", node)
    user.patch("pods", "forged", {"spec": {"schedulingGates": [{"name": OWN}]}})
    user.job("honest", 2, 4, pool=user.namespace)
    user.wait_running("honest", 2)


def test_forged_arrival_jumps_no_queue(user: Live) -> None:
    (node,) = user.add_nodes(1)
    user.job("runs", 1, 8, pool=user.namespace)
    user.wait_running("runs", 1)
    user.pod("a-honest", 8, pool=user.namespace)
    user.wait(lambda: names.WAITING in user.get("pods", "a-honest")["metadata"].get("annotations", {}), "it is queued")
    user.pod("b-forged", 8, pool=user.namespace, annotations={names.QUEUED_AT: "2001-01-01T00:00:00Z"})
    user.wait(lambda: names.WAITING in user.get("pods", "b-forged")["metadata"]["annotations"], "it is queued too")
    user.delete("dljobs", "runs")
    user.wait(lambda: user.get("pods", "a-honest")["spec"].get("nodeName") == node, "the first in the queue runs")
    assert "nodeName" not in user.get("pods", "b-forged")["spec"]


def test_forged_reservation_lets_no_pod_past_its_queue(user: Live) -> None:
    (node,) = user.add_nodes(1)
    user.job("runs", 1, 8, pool=user.namespace)
    user.wait_running("runs", 1)
    text = json.dumps({"g1": {"node": node, "gpus": [0, 1, 2, 3], "rank": 0}})
    for name in ("g0", "g1"):
        user.member(name, 4, "forged", 2, annotations={names.RESERVATION: text}, pool=user.namespace)
    user.patch("pods", "g0", {"spec": {"schedulingGates": []}})
    user.job("later", 1, 1)
    user.wait_running("later", 1)
    assert user.get("pods", "g1")["spec"]["schedulingGates"] == [{"name": names.GATE}]


def test_end_that_a_user_puts_off_comes_at_once(user: Live) -> None:
    user.job("stays", 1, 1)
    user.wait_running("stays", 1)
    user.annotate("pods", "stays-worker-0", stop_at="2099-01-01T00:00:00Z")
    user.annotate("dljobs", "stays", suspend="true")
    user.wait_phase("stays", "Suspended")
    user.wait_no_pods("stays")


def test_pod_whose_owner_merely_says_dljob_stops_no_preemption(user: Live) -> None:
    """The pod runs on the GPUs that a job of higher priority needs; the job of lower priority makes way beside it."""
    first, second = user.add_nodes(2)
    user.job("low", 1, 8, nodeSelector={"kubernetes.io/hostname": first})
    user.wait_running("low", 1)
    uid = user.get("dljobs", "low")["metadata"]["uid"]
    owners = [{"apiVersion": names.API_VERSION, "kind": "DLJob", "name": "low", "uid": uid, "controller": True}]
    named = {names.GPUS: "0,1,2,3,4,5,6,7"}
    user.pod("forged", 8, owners=owners, annotations=named, scheduler="default-scheduler", nodeName=second)
    user.wait(lambda: user.get("pods", "forged")["status"]["phase"] == "Running", "the forged pod runs")
    user.job("high", 1, 8, pool=user.namespace, priority=1)
    user.wait_running("high", 1)
    assert user.nodes_of("high") == {first}
    assert user.get("pods", "forged")["status"]["phase"] == "Running"
