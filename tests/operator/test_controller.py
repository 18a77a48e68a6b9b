"""The one loop on its own: it waits for the first lists, and no fault of one job or one plan ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from builders.dljobs import NOW, roles
from builders.office import SPACE, Office
from muster.kube import paths
from muster.scheduling.settings import Settings
from muster_operator import controller as module
from muster_operator.controller import Controller
from muster_operator.planning import Planning
from muster_operator.steps import Steps


@pytest.fixture
async def running(office: Office) -> AsyncIterator[asyncio.Task[None]]:
    """The loop over the office, by a clock that goes."""
    begun = time.monotonic()
    office.desk.clock = lambda: NOW + time.monotonic() - begun
    task = asyncio.create_task(Controller(office.desk, Settings()).run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("late", ["nodes", "pods", "dljobs", "dlqueues", "services", "priorityclasses", "podtemplates"])
async def test_nothing_is_decided_before_the_first_lists(office: Office, running: asyncio.Task[None], late: str) -> None:
    office.submit()
    office.sync(but=late)
    for _ in range(100):
        await asyncio.sleep(0)
    assert (office.server.asked, office.desk.jobs, running.done()) == ([], {}, False)
    assert not office.stores.synced
    office.sync()
    assert office.stores.synced
    await office.until(lambda: office.server.asked)


async def test_a_job_comes_to_its_pods_and_its_end(office: Office, running: asyncio.Task[None]) -> None:
    office.submit()
    office.sync()
    await office.until(lambda: office.pods() == ["vgg16-worker-0", "vgg16-worker-1"])
    office.run_pods("Succeeded")
    office.sync()
    await office.until(lambda: office.status()["phase"] == "Succeeded")
    await office.until(lambda: not office.server.of("services"))
    assert not running.done()


async def test_a_fault_in_one_job_leaves_the_others_alone(
    office: Office, running: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    well = Steps.look_at

    def faulty(steps: Steps, key: str, now: float) -> None:
        if key.endswith("bad"):
            raise RuntimeError("a fault of ours")
        well(steps, key, now)

    monkeypatch.setattr(Steps, "look_at", faulty)
    office.submit("bad")
    office.submit("good")
    office.sync()
    await office.until(lambda: office.status("good").get("phase") == "Admitted")
    assert not running.done()
    assert office.desk.wakes["vision/bad"] > office.now


async def test_a_fault_in_a_plan_is_tried_again(
    office: Office, running: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    well, faults = Planning.run, [RuntimeError("a fault of ours")] * 2

    async def faulty(planning: Planning, now: float) -> None:
        if faults:
            raise faults.pop()
        await well(planning, now)

    monkeypatch.setattr(Planning, "run", faulty)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    office.submit(roles=roles(workers=1))
    office.sync()
    await office.until(lambda: office.status().get("phase") == "Admitted")
    assert (faults, running.done()) == ([], False)


async def test_stopping_drops_the_work_under_way(office: Office) -> None:
    loop = Controller(office.desk, Settings())
    task = asyncio.create_task(loop.run())
    office.sync()
    started = asyncio.Event()
    dropped = asyncio.Event()

    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            dropped.set()

    office.desk.start("vision/x", endless())
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(dropped.wait(), 30)
    assert office.server.of(paths.pods(SPACE)) == []
