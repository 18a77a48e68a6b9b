"""Many jobs that arrive at once: plans for their sake leave the loop time for others, and freed GPUs are given out at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from builders.dljobs import roles
from builders.operator_harness import SPACE, OperatorHarness
from muster.kube import paths
from muster.scheduling.decisions import Decision
from muster.scheduling.planner import Planner
from muster.scheduling.snapshot import Snapshot
from muster_operator.dljob.templates import JOBS_AT_ONCE
from muster_operator.work_queue import PLAN_SECONDS, PLAN_SHARE

WHOLE = roles(workers=1, gpus=4)
"""A job that fills a node."""
SECONDS = 3
"""For how long jobs arrive, one after each turn of the loop."""
PASS_SECONDS = 0.1
"""What a pass of the planner takes by the clock of these tests."""


@pytest.fixture
async def full(harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch) -> OperatorHarness:
    """A cluster that two running jobs fill, and a planner that takes its time."""
    for name in ("a", "b"):
        harness.submit(name, roles=WHOLE)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn(2)
    well = Planner.plan

    def slow(planner: Planner, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        harness.now += PASS_SECONDS
        return well(planner, snapshot, now)

    monkeypatch.setattr(Planner, "plan", slow)
    harness.submit("first", roles=WHOLE)
    await harness.turn(2, seconds=60)
    return harness


async def step(harness: OperatorHarness) -> bool:
    """What the loop does in one turn; return whether it planned."""
    harness.sync()
    await harness.look()
    is_due = harness.work_queue.plan_is_due()
    if is_due:
        await harness.plan()
    await harness.idle()
    return is_due


async def test_plans_for_arrivals_take_a_share_of_the_time(full: OperatorHarness) -> None:
    began, plans, number = full.now, 0, 0
    while full.now < began + SECONDS:
        full.now += PLAN_SECONDS
        full.submit(f"job{number:03}", roles=WHOLE)
        full.pod(f"pod{number:03}")
        plans += await step(full)
        number += 1
    assert 0 < plans <= SECONDS * PLAN_SHARE / PASS_SECONDS + 1
    assert full.admitted("job000")[0] == "BehindInQueue"


async def test_job_that_arrives_alone_is_planned_at_once(full: OperatorHarness) -> None:
    full.now += 60
    full.submit("lone", roles=WHOLE)
    assert await step(full)
    await full.look()
    assert full.admitted("lone")[0] == "BehindInQueue"


async def test_freed_gpus_are_given_out_before_arrivals_may_be_planned(full: OperatorHarness) -> None:
    full.now += 60
    full.submit("job", roles=WHOLE)
    assert await step(full)
    full.submit("later", roles=WHOLE)
    full.now += PLAN_SECONDS
    assert not await step(full)
    full.change(paths.pods(SPACE, "a-worker-0"), status={"phase": "Succeeded"})
    while not await step(full):
        assert full.now < full.work_queue.plan_due_at <= full.now + PLAN_SECONDS
        full.now += PLAN_SECONDS
    await step(full)
    assert full.status("first")["phase"] == "Admitted"


async def test_plan_looks_at_no_job_whose_templates_are_being_checked(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = harness.server.hold("/pods")
    crowd = [f"job{number:03}" for number in range(30)]
    for name in crowd:
        harness.submit(name, roles=WHOLE)
    harness.sync()
    harness.reconcile()
    await harness.plan()
    looked_at = _looked_at(harness, monkeypatch)
    await harness.plan()
    assert looked_at == []
    held.set()
    await harness.idle()
    await harness.turn()
    assert [name for name in crowd if harness.status(name).get("placement")] == crowd[:2]


@pytest.mark.parametrize(("waiting", "checked"), [(0, JOBS_AT_ONCE), (2, 1)])
async def test_jobs_behind_others_are_checked_one_at_a_time(full: OperatorHarness, waiting: int, checked: int) -> None:
    for number in range(waiting):
        full.submit(f"waits{number}", roles=WHOLE)
    await full.turn(2, seconds=60)
    held = full.server.hold("/pods")
    crowd = [f"z{number:03}" for number in range(2 * JOBS_AT_ONCE)]
    for name in crowd:
        full.submit(name, roles=WHOLE)
    full.sync()
    full.reconcile()
    asked = len(full.server.asked)
    await full.until(lambda: len(_dry_runs(full, asked)) >= checked)
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert len(_dry_runs(full, asked)) == checked
    held.set()
    await full.idle()
    await full.turn()
    await full.idle()
    assert all(full.dljobs.check.has_passed(full.job(name)) for name in crowd)


def _dry_runs(harness: OperatorHarness, since: int) -> list[str]:
    """The pods that the API server has been asked about."""
    return [
        body["metadata"]["name"] for method, path, body in harness.server.asked[since:] if method == "POST" and "/pods" in path
    ]


def _looked_at(harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that are looked up from here on."""
    found: list[str] = []
    well = harness.dljobs.jobs.get

    def get(name: str) -> Any:
        found.append(name)
        return well(name)

    monkeypatch.setattr(harness.dljobs.jobs, "get", get)
    return found
