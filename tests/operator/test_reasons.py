"""Reasons count every node of the cluster, those that take no pods too; jobs and pods of other controllers read the same."""

from __future__ import annotations

import pytest

from builders.dljobs import roles
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths

TOLD = (
    "needs 8 GPUs; 0 of 5 nodes can take a pod: 2 have too few GPUs (largest: 4 of 8 asked), 1 is cordoned,"
    " 1 is not ready, 1 has an amount in status.allocatable that cannot be read"
)


@pytest.fixture
def cluster(harness: OperatorHarness) -> OperatorHarness:
    """Two nodes of four GPUs, and three that take no pods."""
    for name in ("n3", "n4", "n5"):
        harness.node(name, ready=name != "n4")
    harness.change(paths.nodes("n3"), spec={"unschedulable": True})
    harness.server.objects[paths.nodes("n5")]["status"]["allocatable"]["memory"] = "much"
    harness.change(paths.nodes("n5"))
    return harness


async def test_job_hears_which_nodes_take_no_pods_and_why(cluster: OperatorHarness) -> None:
    cluster.submit(roles=roles(workers=1, gpus=8))
    await cluster.turn(4)
    assert cluster.admitted() == ("NeverFits", TOLD)


async def test_pod_hears_which_nodes_take_no_pods_and_why(cluster: OperatorHarness) -> None:
    cluster.pod("p", 8)
    await cluster.turn(4)
    assert cluster.server.objects[paths.pods(SPACE, "p")]["metadata"]["annotations"][names.WAITING] == TOLD


async def test_job_that_requires_a_rack_hears_that_nodes_have_no_rack(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=2, gpus=4), placement={"required": "Rack"})
    await harness.turn(4)
    assert harness.admitted() == (
        "NeverFits",
        "needs 8 GPUs (2 pods of up to 4) in one rack; 2 of 2 nodes that it may use have no rack label",
    )
