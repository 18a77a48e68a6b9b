"""What the cluster takes away: nodes that are deleted or fall silent, GPUs that an external pod occupies."""

from __future__ import annotations

import logging
from datetime import datetime

import pytest

from builders.live import Live
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster
log = logging.getLogger(__name__)


def lose(cluster: LocalCluster, how: str, node: str) -> None:
    """Delete a node; or let it fall silent, and write what the node controller writes when the grace period is over."""
    if how == "deleted":
        cluster.api.delete(f"/api/v1/nodes/{node}")
        return
    cluster.silence_node(node)
    set_ready(cluster, node, "Unknown")


def set_ready(cluster: LocalCluster, node: str, status: str) -> None:
    """Write whether a node is ready, as its kubelet or the node controller does."""
    conditions = cluster.api.get(f"/api/v1/nodes/{node}")["status"]["conditions"]
    for condition in conditions:
        if condition["type"] == "Ready":
            condition |= {"status": status, "reason": "NodeStatusUnknown" if status == "Unknown" else "KubeletReady"}
    cluster.api.patch(f"/api/v1/nodes/{node}/status", {"status": {"conditions": conditions}})


def test_gang_runs_on_while_its_node_is_not_ready_for_a_moment(live: Live) -> None:
    nodes = live.add_nodes(2)
    live.job("steady", 2, 8, pool=live.namespace)
    before = live.wait_running("steady", 2)
    pods = {pod["metadata"]["uid"] for pod in live.pods("steady")}
    live.cluster.silence_node(nodes[0])
    for status in ("False", "Unknown", "True"):
        set_ready(live.cluster, nodes[0], status)
    live.cluster.revive_node(nodes[0])
    live.job("after", 1, 8, pool=live.namespace, hold=True)  # what is told of it was planned with all that was written before
    live.wait_reason("after", "InsufficientGPUs")
    after = live.status("steady")
    assert (after["phase"], after["placement"]) == ("Running", before["placement"])
    assert {pod["metadata"]["uid"] for pod in live.pods("steady")} == pods


@pytest.mark.parametrize("how", ["deleted", "silent"])
@pytest.mark.parametrize("held", [True, False], ids=["during-admission", "while-running"])
def test_gang_whose_node_is_lost_runs_elsewhere(live: Live, how: str, held: bool) -> None:
    live.add_nodes(3)
    live.job("lost", 2, 8, pool=live.namespace, hold=held)
    if held:
        live.wait_pods(2, "Pending", "lost")
    else:
        live.wait_running("lost", 2)
    before = live.status("lost")
    node = before["placement"][1]["node"]
    lose(live.cluster, how, node)

    live.wait(lambda: live.status("lost").get("requeues") == 1, "the gang is requeued")
    event = next(event for event in live.status("lost")["timeline"] if event["event"] == "Requeued")
    assert event["reason"] == "NodeLost"
    assert node in event["message"]
    live.wait(lambda: live.status("lost").get("attempt") == 2 and len(live.pods("lost")) == 2, "it is placed again")
    live.let_run("lost")
    status = live.wait_running("lost", 2)
    assert node not in live.nodes_of("lost")
    assert status.get("restarts", 0) == 0
    assert status["queuedAt"] == before["queuedAt"]


def test_lost_gang_without_another_place_waits_and_says_so(live: Live) -> None:
    nodes = live.add_nodes(2)
    live.job("lost", 2, 8, pool=live.namespace)
    live.wait_running("lost", 2)
    lose(live.cluster, "deleted", nodes[0])
    message = live.wait_reason("lost", "NeverFits")
    assert "needs 16 GPUs" in message
    assert "8 free on 1" in message
    live.wait_nothing_held("lost")
    live.add_nodes(1)
    live.wait_running("lost", 2)


@pytest.mark.parametrize("spare", [1, 0], ids=["elsewhere", "nowhere"])
def test_gang_whose_gpus_an_external_pod_took_is_requeued(live: Live, spare: int) -> None:
    live.add_nodes(2 + spare)
    live.job("robbed", 2, 8, pool=live.namespace, hold=True)
    live.wait_pods(2, "Pending", "robbed")
    node = live.status("robbed")["placement"][0]["node"]
    live.pod("robber", 8, scheduler="default-scheduler", nodeName=node)
    live.wait(lambda: live.get("pods", "robber")["status"]["phase"] == "Running", "the external pod runs")
    live.let_run("robbed")

    live.wait(lambda: live.status("robbed").get("requeues", 0) >= 1, "the gang is requeued")
    event = next(event for event in live.status("robbed")["timeline"] if event["event"] == "Requeued")
    assert event["reason"] == "PodUnschedulable"
    assert node in event["message"]
    refused = datetime.fromisoformat(live.get("pods", "robber")["metadata"]["creationTimestamp"])
    log.info("taken back %s after the external pod came", datetime.fromisoformat(event["time"]) - refused)
    if spare:
        live.wait(lambda: live.status("robbed").get("attempt", 0) >= 2 and len(live.pods("robbed")) == 2, "it is placed again")
        live.let_run("robbed")
        live.wait_running("robbed", 2)
        assert node not in live.nodes_of("robbed")
        return
    message = live.wait_reason("robbed", "InsufficientGPUs")
    assert "needs 16 GPUs" in message
    assert "8 free on 1" in message
    live.wait_nothing_held("robbed")
    assert len(live.pods("robbed")) == 0
    live.delete("pods", "robber")
    live.wait_phase("robbed", "Admitted")
    live.wait_pods(2, "Pending", "robbed")
    live.let_run("robbed")
    live.wait_running("robbed", 2)


def test_gang_with_a_pod_deleted_by_hand_is_requeued(live: Live) -> None:
    live.job("plucked", 2, 1)
    live.wait_running("plucked", 2)
    live.delete("pods", "plucked-worker-1")
    live.wait(lambda: live.status("plucked").get("requeues") == 1, "the gang is requeued")
    live.wait(lambda: live.status("plucked").get("attempt") == 2, "it is placed again")
    assert live.wait_running("plucked", 2).get("restarts", 0) == 0
