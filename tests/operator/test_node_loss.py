"""Nodes that fall silent: what runs there runs on for a while, and then starts elsewhere."""

from __future__ import annotations

import json

import msgspec
import pytest

from builders.dljobs import Json, container, job, placed, roles, time
from builders.operator_harness import NODE_LOSS_GRACE, SPACE, OperatorHarness
from muster.kube import paths
from muster.kube.objects import Node
from muster.kube.store import Store
from muster_operator.dljob.rendezvous import environment
from muster_operator.node_loss import OUT_OF_SERVICE, NodeLoss

GRACE = 60.0


class Nodes:
    """A store of nodes, and a clock that paces."""

    def __init__(self) -> None:
        self.store: Store[Node] = Store()
        self.now, self.version = 1000.0, 0
        self.loss = NodeLoss(self.store, lambda: self.now, GRACE)

    def put(self, name: str, status: str, **spec: Json | list[Json]) -> None:
        self.version += 1
        meta = {"name": name, "uid": name, "resourceVersion": str(self.version)}
        node = {"metadata": meta, "spec": spec, "status": {"conditions": [{"type": "Ready", "status": status}]}}
        self.store.put(msgspec.json.decode(json.dumps(node), type=Node))


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_node_that_is_not_ready_is_lost_after_the_grace(status: str) -> None:
    nodes = Nodes()
    nodes.put("n1", "True")
    nodes.put("n1", status)
    assert (nodes.loss.is_alive("n1"), nodes.loss.check_in(["n1", "n2"])) == (True, GRACE)
    nodes.now += GRACE - 1
    nodes.put("n1", "Unknown")  # another word for the same
    assert (nodes.loss.is_alive("n1"), nodes.loss.check_in(["n1"])) == (True, 1)
    nodes.now += 1
    assert (nodes.loss.is_alive("n1"), nodes.loss.check_in(["n1"])) == (False, None)
    nodes.put("n1", "True")
    assert nodes.loss.is_alive("n1")


def test_grace_begins_anew_with_each_time_that_a_node_is_ready() -> None:
    nodes = Nodes()
    for _ in range(3):
        nodes.put("n1", "False")
        nodes.now += GRACE - 1
        nodes.put("n1", "True")
        assert (nodes.loss.is_alive("n1"), nodes.loss.check_in(["n1"])) == (True, None)


def test_node_that_is_gone_or_out_of_service_is_lost_at_once() -> None:
    nodes = Nodes()
    taint: Json = {"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
    nodes.put("n1", "True", taints=[taint])
    assert nodes.loss.is_alive("n1")
    nodes.put("n1", "Unknown", taints=[taint])
    assert [nodes.loss.is_alive(name) for name in ("n1", "never there")] == [False, False]


def test_node_that_was_not_ready_before_the_operator_started_has_a_grace() -> None:
    nodes = Nodes()
    nodes.put("n1", "False")
    nodes.now += GRACE
    after = NodeLoss(nodes.store, lambda: nodes.now, GRACE)
    assert (nodes.loss.is_alive("n1"), after.is_alive("n1")) == (False, True)


async def test_gang_runs_on_while_its_node_is_not_ready_for_a_moment(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    before, written = harness.status(), len(harness.server.writes("DELETE", "PATCH"))
    for ready in (False, True):
        harness.node("n2", ready=ready)
        await harness.turn(2, seconds=1)
    await harness.turn(2, seconds=2 * NODE_LOSS_GRACE)
    assert (harness.status(), len(harness.server.writes("DELETE", "PATCH"))) == (before, written)


async def test_program_that_fails_while_a_node_of_its_gang_is_not_ready_is_not_to_blame(harness: OperatorHarness) -> None:
    """Its peer is gone long before the node is lost; the gang is broken, so the grace is not waited for."""
    harness.submit(roles=roles(workers=2, gpus=4), backoffLimit=0)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.node("n2", ready=False)
    await harness.turn(seconds=1)
    ended = container(terminated={"exitCode": 1, "reason": "Error", "finishedAt": time(harness.now)})
    harness.change(paths.pods(SPACE, "vgg16-worker-0"), status={"phase": "Failed", "containerStatuses": [ended]})
    await harness.turn()
    assert (harness.status()["phase"], harness.status()["timeline"][-1]["reason"]) == ("Queued", "NodeLost")
    assert harness.status().get("restarts", 0) == 0


async def silenced(harness: OperatorHarness) -> str:
    """Have a gang of one run, and its node fall silent; return the node's name."""
    harness.submit(roles=roles(workers=1, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    (node,) = [place["node"] for place in harness.status()["placement"]]
    harness.node(node, ready=False)
    return str(node)


async def test_gang_of_a_lost_node_is_looked_at_by_itself_when_the_grace_is_over(harness: OperatorHarness) -> None:
    node = await silenced(harness)
    await harness.turn()
    assert harness.later() == harness.now + NODE_LOSS_GRACE
    await harness.turn(3, seconds=NODE_LOSS_GRACE)
    assert harness.status()["placement"][0]["node"] != node
    assert harness.status()["attempt"] == 2


async def test_evicted_gang_starts_elsewhere_only_when_its_silent_node_is_lost(harness: OperatorHarness) -> None:
    """Its pod there cannot be confirmed to have ended: a second copy would run beside it."""
    await silenced(harness)
    harness.change(paths.pods(SPACE, "vgg16-worker-0"), metadata={"deletionTimestamp": "2027-01-15T08:00:00Z"})
    await harness.turn(6, seconds=1)
    assert (harness.status()["phase"], harness.pods()) == ("Queued", ["vgg16-worker-0"])
    await harness.turn(4, seconds=NODE_LOSS_GRACE)
    assert (harness.status()["phase"], harness.status()["attempt"]) == ("Admitted", 2)


def test_each_attempt_has_its_number_in_the_environment() -> None:
    first = placed(job())
    second = placed(first)
    told = [environment(one, one.status.placement[0], one.status.placement)["MUSTER_ATTEMPT"] for one in (first, second)]
    assert told == ["1", "2"]
