"""Definitions that are missing, old, or taken away: the operator says so, waits, and carries on when they are there."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from builders.live import Live
from builders.live_processes import Operator
from muster.api import crd
from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAMES = [definition["metadata"]["name"] for definition in crd.manifests()]


@pytest.fixture
def waiting(live: Live, operator: Operator) -> Iterator[Operator]:
    """An operator in place of the cluster's own, not started yet, while definitions may be taken away; they are back after."""
    operator.kill()
    found = Operator(live.cluster, "operator-without-definitions")
    yield found
    stack.define_resources(live.cluster)
    found.stop()
    operator.start()


def take_away(cluster: LocalCluster) -> None:
    for name in NAMES:
        cluster.api.delete(f"{PATH}/{name}")
    cluster.wait(lambda: not any(cluster.exists(f"{PATH}/{name}") for name in NAMES), "the definitions are gone")


def test_operator_waits_for_its_definitions(live: Live, waiting: Operator) -> None:
    take_away(live.cluster)
    waiting.start(wait=False)
    live.cluster.wait(
        lambda: "the definition dljobs.muster.dev is not there" in waiting.page("/readyz"), "it says what is missing"
    )
    older = copy.deepcopy(crd.manifests())
    del older[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["refusals"]
    live.cluster.apply(older)
    words = "older than this operator, it lacks .status.refusals"
    live.cluster.wait(lambda: words in waiting.page("/readyz"), "it says what is old")
    stack.define_resources(live.cluster)
    live.wait(lambda: waiting.page("/readyz") == "ok", "it is ready")
    live.job("first", 2, 1)
    live.wait_running("first", 2)


def test_operator_survives_the_deletion_of_its_definitions(live: Live, waiting: Operator) -> None:
    """kopf may hear of it by its watch of definitions, or by a watch of queues that fails, on which it gives up."""
    waiting.start()
    live.job("before", 2, 1)
    live.wait_running("before", 2)
    take_away(live.cluster)
    live.cluster.wait(lambda: told(waiting), "it is told that nothing is seen")
    stack.define_resources(live.cluster)
    live.cluster.wait(lambda: waiting.page("/readyz") == "ok" and not told(waiting), "it sees again")
    live.job("after", 2, 1)
    live.wait_running("after", 2)


def told(operator: Operator) -> bool:
    blind = operator.metric('muster_operator_watch_failed{resource="dljobs"}') == 1.0
    return operator.running and (blind or "is not there" in operator.page("/readyz"))
