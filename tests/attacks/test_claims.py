"""Forged claims on being a DLJob's pod, by a user with the role edit."""

from __future__ import annotations

import pytest

from builders.live import Live
from muster.api import names

pytestmark = pytest.mark.cluster


def test_pod_whose_owner_merely_says_dljob_stops_no_preemption(user: Live) -> None:
    """The pod runs on the GPUs that a job of higher priority needs; the job of lower priority makes way beside it."""
    first, second = user.add_nodes(2)
    user.job("low", 1, 8, nodeSelector={"kubernetes.io/hostname": first})
    user.wait_running("low", 1)
    uid = user.get("dljobs", "low")["metadata"]["uid"]
    owners = [{"apiVersion": names.API_VERSION, "kind": "DLJob", "name": "low", "uid": uid, "controller": True}]
    user.pod("forged", 8, owners=owners, scheduler="default-scheduler", nodeName=second)
    user.wait(lambda: user.get("pods", "forged")["status"]["phase"] == "Running", "the forged pod runs")
    user.job("high", 1, 8, pool=user.namespace, priority=1)
    user.wait_running("high", 1)
    assert user.nodes_of("high") == {first}
    assert user.get("pods", "forged")["status"]["phase"] == "Running"
