"""A running gang in another size: refused without harm, and with the pods that need not move."""

from __future__ import annotations

import pytest

from builders.live import Live
from muster.api import names

pytestmark = pytest.mark.cluster


def uids(live: Live, job: str) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in live.pods(job)}


def scale(live: Live, job: str, replicas: int) -> None:
    live.cluster.kubectl("scale", f"dljob/{job}", "-n", live.namespace, f"--replicas={replicas}")


def test_gang_scaled_beyond_its_resource_quota_runs_on(live: Live) -> None:
    """One more pod of three would be within the quota, the three together are not."""
    live.create("resourcequotas", {"metadata": {"name": "gpus"}, "spec": {"hard": {f"requests.{names.GPU}": "6"}}})
    live.wait(lambda: live.get("resourcequotas", "gpus").get("status", {}).get("hard"), "the quota is in force")
    live.job("bounded", 2, 2)
    live.wait_running("bounded", 2)
    before = uids(live, "bounded")
    scale(live, "bounded", 5)
    refusal = f"stays as it is: needs 6 requests.{names.GPU}; ResourceQuota {live.namespace}/gpus has 2 of 6 left"
    live.wait(lambda: live.status("bounded")["message"] == refusal, "it says so")
    status = live.status("bounded")
    assert (status["phase"], status["attempt"], uids(live, "bounded")) == ("Running", 1, before)
    scale(live, "bounded", 3)
    live.wait(lambda: live.status("bounded")["attempt"] == 2, "a size within the quota is accepted")
    live.wait_running("bounded", 3)


def test_pods_without_a_rendezvous_go_on_while_their_gang_changes(live: Live) -> None:
    live.add_nodes(2, racks=2)
    live.job("free", 4, 2, rendezvous="None", pool=live.namespace)
    live.wait_running("free", 4)
    before, placed = uids(live, "free"), live.status("free")["placement"]
    for count in (1, 4):
        scale(live, "free", count)
        live.wait(lambda count=count: live.status("free").get("replicas") == count, "it has another size")  # type: ignore[misc]
        status = live.wait_running("free", count)
        assert uids(live, "free")["free-worker-0"] == before["free-worker-0"]
        assert status["placement"][0] == placed[0]
