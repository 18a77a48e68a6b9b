from __future__ import annotations

import pytest

from agent.conftest import Nodes
from muster.api.topology import Gpu, NodeTopology, encode
from muster.kube.client import Client
from muster.kube.errors import Forbidden, NotFound
from muster_agent.publish import Publisher

ONE = NodeTopology([Gpu("GPU-a")], [["X"]])
UNHEALTHY = NodeTopology([Gpu("GPU-a", healthy=False)], [["X"]])


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_publish_patches_only_on_change(nodes: Nodes, client: Client) -> None:
    nodes.add("n1", other="kept")
    publisher = Publisher(client)
    assert await publisher.publish("n1", ONE)
    assert nodes.patches == [("n1", {"metadata": {"annotations": {"muster.dev/topology": encode(ONE)}}})]
    assert nodes.objects["n1"]["metadata"]["annotations"]["other"] == "kept"
    assert not await publisher.publish("n1", ONE)
    assert not await publisher.publish("n1", ONE)
    assert await publisher.publish("n1", UNHEALTHY)
    assert not await publisher.publish("n1", UNHEALTHY)
    assert await publisher.publish("n1", ONE)
    assert len(nodes.patches) == 3
    assert nodes.gets == ["n1"]


async def test_restarted_agent_patches_no_current_annotation(nodes: Nodes, client: Client) -> None:
    nodes.add("n1", **{"muster.dev/topology": encode(ONE)})
    assert not await Publisher(client).publish("n1", ONE)
    assert nodes.patches == []


async def test_recreated_node_is_published_after_the_recheck(nodes: Nodes, client: Client) -> None:
    nodes.add("n1")
    clock = Clock()
    publisher = Publisher(client, recheck=300, clock=clock)
    await publisher.publish("n1", ONE)
    nodes.add("n1")  # re-created
    clock.now += 299
    assert not await publisher.publish("n1", ONE)
    clock.now += 1
    assert await publisher.publish("n1", ONE)
    assert nodes.annotation("n1") == encode(ONE)


async def test_observed_annotations_replace_a_read(nodes: Nodes, client: Client) -> None:
    nodes.add("n1")
    publisher = Publisher(client)
    publisher.observe("n1", {"muster.dev/topology": encode(ONE)})
    assert not await publisher.publish("n1", ONE)
    publisher.observe("n1", {})
    assert await publisher.publish("n1", ONE)
    assert nodes.gets == []


async def test_each_node_is_published_separately(nodes: Nodes, client: Client) -> None:
    nodes.add("n1")
    nodes.add("n2")
    publisher = Publisher(client)
    assert await publisher.publish("n1", ONE)
    assert await publisher.publish("n2", ONE)
    assert [name for name, _ in nodes.patches] == ["n1", "n2"]


async def test_rejected_patch_can_be_retried(nodes: Nodes, client: Client) -> None:
    nodes.add("n1")
    publisher = Publisher(client)
    publisher.observe("n1", {})
    nodes.refuse = 1
    with pytest.raises(Forbidden):
        await publisher.publish("n1", ONE)
    assert await publisher.publish("n1", ONE)


async def test_missing_node_raises_not_found(nodes: Nodes, client: Client) -> None:
    assert nodes.objects == {}
    with pytest.raises(NotFound):
        await Publisher(client).publish("n1", ONE)
