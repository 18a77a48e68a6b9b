"""The one loop on its own: it waits for the first lists, and no fault of one job or one plan ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from builders.dljobs import NOW, roles
from builders.operator_harness import SPACE, OperatorHarness
from muster.kube import paths
from muster_operator import loop as module
from muster_operator.dljob.controller import DLJobs
from muster_operator.planning.planning import Planning
from muster_operator.work_queue import NEVER, Key


@pytest.fixture
async def running(harness: OperatorHarness) -> AsyncIterator[asyncio.Task[None]]:
    """The loop over the operator harness, by a clock that goes."""
    begun = time.monotonic()
    harness.clock = lambda: NOW + time.monotonic() - begun
    task = asyncio.create_task(harness.loop.run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "late",
    [
        *("nodes", "pods", "dljobs", "dlqueues", "services", "priorityclasses", "podtemplates", "resourcequotas"),
        *("persistentvolumeclaims", "persistentvolumes", "storageclasses"),
        *("limitranges", "runtimeclasses"),
    ],
)
async def test_nothing_is_decided_before_the_first_lists(
    harness: OperatorHarness, running: asyncio.Task[None], late: str
) -> None:
    harness.submit()
    harness.sync(but=late)
    for _ in range(100):
        await asyncio.sleep(0)
    assert (harness.server.asked, running.done()) == ([], False)
    assert not harness.stores.synced
    harness.sync()
    assert harness.stores.synced
    await harness.until(lambda: harness.server.asked)


async def test_job_gets_its_pods_and_ends(harness: OperatorHarness, running: asyncio.Task[None]) -> None:
    harness.submit()
    harness.sync()
    await harness.until(lambda: harness.pods() == ["vgg16-worker-0", "vgg16-worker-1"])
    harness.run_pods("Succeeded")
    harness.sync()
    await harness.until(lambda: harness.status()["phase"] == "Succeeded")
    await harness.until(lambda: not harness.server.of("services"))
    assert not running.done()


async def test_fault_in_one_job_leaves_the_others_alone(
    harness: OperatorHarness, running: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    well = DLJobs.reconcile

    def faulty(dljobs: DLJobs, name: str, now: float) -> None:
        if name.endswith("bad"):
            raise RuntimeError("a fault of ours")
        well(dljobs, name, now)

    monkeypatch.setattr(DLJobs, "reconcile", faulty)
    harness.submit("bad")
    harness.submit("good")
    harness.sync()
    await harness.until(lambda: harness.status("good").get("phase") == "Admitted")
    assert not running.done()
    assert harness.now < harness.later("bad") < NEVER


async def test_fault_in_a_plan_is_tried_again(
    harness: OperatorHarness, running: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    well, faults = Planning.run, [RuntimeError("a fault of ours")] * 2

    async def faulty(planning: Planning, now: float) -> None:
        if faults:
            raise faults.pop()
        await well(planning, now)

    monkeypatch.setattr(Planning, "run", faulty)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    harness.submit(roles=roles(workers=1))
    harness.sync()
    await harness.until(lambda: harness.status().get("phase") == "Admitted")
    assert (faults, running.done()) == ([], False)


async def test_stopping_cancels_work_in_flight(harness: OperatorHarness) -> None:
    task = asyncio.create_task(harness.loop.run())
    harness.sync()
    started = asyncio.Event()
    dropped = asyncio.Event()

    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            dropped.set()

    harness.work_queue.start(Key("DLJob", "vision/x"), endless())
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(dropped.wait(), 30)
    assert harness.server.of(paths.pods(SPACE)) == []
