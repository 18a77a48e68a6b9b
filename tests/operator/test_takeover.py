"""An operator that starts, or takes over, finds the cluster as the one before left it, and takes nobody's GPUs for that."""

from __future__ import annotations

import random

import pytest

from builders.dljobs import NOW, Json, roles
from builders.dljobs import time as moment
from builders.operator_harness import SPACE, OperatorHarness
from muster.kube import paths

ORDERS = 40
"""Orders of the first lists that are tried; the same ones each time."""
STRANGER = {"schedulerName": "default-scheduler"}
TWO = roles(workers=1, gpus=2)


def limit(harness: OperatorHarness, collection: str, name: str, **spec: object) -> None:
    """Put an object of the namespace that limits what it may hold."""
    path = paths.resource(paths.MUSTER if collection == "dlqueues" else paths.CORE, collection, SPACE)
    harness.server.put(path, {"metadata": {"name": name, "namespace": SPACE}, "spec": spec})


@pytest.fixture(params=[{}, {"deletionTimestamp": moment(NOW)}], ids=["to-be-deleted", "terminating"])
async def full(harness: OperatorHarness, request: pytest.FixtureRequest) -> OperatorHarness:
    """A full cluster in which a job of high priority waits for the pod of a job that is deleted, and so preempts nobody.

    Were any object unknown, or taken for another, it would preempt the job that runs: that pod, which Kubernetes' garbage
    collector is about to delete, or which is in its grace period; the pods beside it; the queue, which has just enough.
    """
    leaving: Json = request.param
    harness.server.put(paths.priorityclasses(), {"metadata": {"name": "urgent"}, "value": 7})
    limit(harness, "dlqueues", "default", gpus=8)
    limit(harness, "resourcequotas", "quota", hard={"requests.nvidia.com/gpu": "10"})
    for name in ("low", "gone"):
        harness.submit(name, roles=TWO)
        await harness.turn(3)
    harness.run_pods()
    harness.pod("other", 2, gated=False, node="n2", spec=STRANGER, phase="Running")
    harness.pod("bare", 2)
    await harness.turn(3)
    harness.change(paths.pods(SPACE, "bare"), spec={"nodeName": "n2"}, status={"phase": "Running"})
    harness.server.drop(paths.dljobs(SPACE, "gone"))
    harness.change(paths.pods(SPACE, "gone-worker-0"), metadata=leaving)
    await harness.turn(3)
    harness.submit("high", roles=TWO, priorityClassName="urgent")
    await harness.turn(4)
    assert (harness.admitted("high")[0], harness.status("low")["phase"]) == ("PodsStopping", "Running")
    return harness


async def test_first_lists_in_whatever_order_cost_no_gang_its_gpus(full: OperatorHarness) -> None:
    """Nothing of the cluster has changed, so the operator has nothing to write."""
    dice, plurals = random.Random(20180626), [resource.plural for resource in full.stores.watched]
    for _ in range(ORDERS):
        order = dice.sample(plurals, len(plurals))
        full.restart()
        full.server.asked.clear()
        for plural in order:
            full.sync(plural)
        for _ in range(3):
            await full.look()
            await full.plan()
            await full.idle()
        assert full.server.writes() == [], f"first lists in the order {order}"
