"""What a namespace user, or a broken agent, can put into the API server: the job beside it starts all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from builders.live import Json, Live
from muster.api import names
from muster.kube.errors import ApiError
from muster_dev.local import nodes, stack
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

NODES = "/api/v1/nodes"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def container(**fields: Any) -> Json:
    return {"containers": [{"name": "train", "image": "train", "resources": {"limits": {names.GPU: 1}}, **fields}]}


TEMPLATES: dict[str, Json] = {
    "an amount that is none": container(resources={"limits": {names.GPU: 1, "cpu": "lots"}}),
    "an endless amount": container(resources={"limits": {names.GPU: 1, "memory": "9" * 400}}),
    "an endless exponent": container(resources={"limits": {names.GPU: 1, "memory": "1e999999999"}}),
    "an affinity that is a number": container() | {"affinity": 5},
    "variables that are numbers": container(env=[5]),
    "a field that no pod has": container() | {"nodeSelectr": {"a": "b"}},
    "1,100 levels": container() | {"volumes": [{"name": "v", "emptyDir": nested(1_100)}]},
    "9,000 levels": container() | {"volumes": [{"name": "v", "emptyDir": nested(9_000)}]},
    "300 kB": container(env=[{"name": "TEXT", "value": "x" * 300_000}]),
}


@pytest.mark.parametrize("spec", TEMPLATES.values(), ids=TEMPLATES)
def test_job_beside_a_bad_template_starts(user: Live, spec: Json) -> None:
    """Seen: a traceback every two seconds, and the job without any phase."""
    try:
        user.create("dljobs", {"metadata": {"name": "bad"}, "spec": {"roles": {"worker": {"template": {"spec": spec}}}}})
    except ApiError:
        refused = True  # the API server's own door
    else:
        refused = False
    user.job("good", 1, 2)
    user.wait_running("good", 1)
    if not refused:
        assert user.wait_phase("bad", "Failed", "Queued")["message"]


ANNOTATIONS: dict[str, Json] = {
    "a size of other digits": {names.GANG_SIZE: "٣"},
    "an endless size": {names.GANG_SIZE: "9" * 5000},
    "a wish that is none": {names.SUSPEND: "yes", names.MIGRATE: "x" * 5000},
}


@pytest.mark.parametrize("annotations", ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_job_beside_a_pod_with_odd_annotations_starts(user: Live, annotations: Json) -> None:
    user.pod("odd", 1, labels={names.GANG: "odd"}, annotations=annotations)
    user.job("good", 1, 2, meta={"annotations": {key: text for key, text in annotations.items() if key != names.GANG_SIZE}})
    user.wait_running("good", 1)


@pytest.fixture
def broken(cluster: LocalCluster) -> Iterator[Json]:
    """A node, as its kubelet or its agent may describe it; deleted after the test, once the user's pods have gone.

    A test asks for it before its user: pods on a node that is gone stay for 40 seconds.
    """
    machine, _ = nodes.parse("pcie-8:1")[0]
    yield nodes.node(machine, "broken", "rack-9", "block-9", kwok=True)
    cluster.api.delete(f"{NODES}/broken")


def test_job_beside_a_node_of_5000_gpus_starts(cluster: LocalCluster, broken: Json, user: Live) -> None:
    """Seen: a matrix of 5,000 x 5,000 links in operator and extender, whose loops hung."""
    for field in ("capacity", "allocatable"):
        broken["status"][field] = broken["status"][field] | {names.GPU: "5000"}
    cluster.api.create(NODES, broken)
    cluster.wait(lambda: nodes.is_ready(cluster.api.get(f"{NODES}/broken")), "the node is ready")
    user.job("good", 3, 8)
    user.wait_running("good", 3)


@pytest.mark.parametrize("link", ["NV" + "9" * 400, "NV-1", "NV٣", "", "X" * 10_000])
def test_job_beside_a_node_with_odd_links_starts(cluster: LocalCluster, broken: Json, user: Live, link: str) -> None:
    """Seen: an OverflowError ended every plan."""
    gpus = [{"uuid": f"GPU-{index}", "healthy": True} for index in range(2)]
    text = json.dumps({"gpus": gpus, "links": [["X", link], [link, "X"]]})
    cluster.api.create(NODES, broken)
    agent = cluster.api_for(stack.ACCOUNTS.agent, "system:masters")
    agent.patch(f"{NODES}/broken", {"metadata": {"annotations": {names.TOPOLOGY: text}}})
    cluster.wait(lambda: nodes.is_ready(cluster.api.get(f"{NODES}/broken")), "the node is ready")
    user.job("good", 1, 2)
    user.wait_running("good", 1)
