"""Telling why gangs wait: another reason soon, newer numbers at leisure, and nothing of it before or instead of a decision."""

from __future__ import annotations

from collections import Counter

import pytest

from builders.dljobs import Json, roles
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.dljob import templates
from muster_operator.planning.telling import (
    LOOK_SECONDS,
    MOST_AT_ONCE,
    MOST_LOOKED_AT,
    MOST_NUMBERS,
    SAME_REASON_SECONDS,
)
from muster_operator.work_queue import NEVER, RETRY_SECONDS

WHOLE = roles(workers=1, gpus=4)
"""A job that fills a node."""
CROWD = 3 * MOST_AT_ONCE


async def full(harness: OperatorHarness, waiting: int, **fields: Json) -> list[str]:
    """Two jobs that hold all, `waiting` others behind them, of which nobody has been told anything; return their names."""
    for name in ("a", "b"):
        harness.submit(name, roles=WHOLE)
        await harness.turn(3)
    waiting_jobs = [f"job{number:03}" for number in range(waiting)]
    for name in waiting_jobs:
        harness.submit(name, roles=WHOLE, **fields)
    harness.sync()
    await harness.look()
    harness.server.asked.clear()
    return waiting_jobs


async def look(harness: OperatorHarness, seconds: float = LOOK_SECONDS) -> Counter[str]:
    """Let time pass without a plan, and people be told what is due; return how often each job's status was written."""
    before = len(harness.server.asked)
    harness.now += seconds
    await harness.look()
    return written(harness, before)


async def tell_all(harness: OperatorHarness) -> None:
    """Go on until nobody is told anything for a whole round."""
    quiet = 0
    while quiet < 3:
        quiet = 0 if await look(harness) else quiet + 1


def written(harness: OperatorHarness, since: int = 0) -> Counter[str]:
    """How often the status of each job, or the annotations of each pod, were written."""
    paths_of = (path for _, path, _ in harness.server.asked[since:] if path.endswith("/status") or "/pods/" in path)
    return Counter(path.removesuffix("/status").split("/")[-1] for path in paths_of)


def told(harness: OperatorHarness, jobs: list[str]) -> list[str]:
    return [name for name in jobs if harness.status(name).get("conditions")]


async def end(harness: OperatorHarness, job: str) -> None:
    """Let a job go, which frees its GPUs."""
    harness.server.drop(paths.dljobs(SPACE, job))
    for pod in [pod for pod in harness.pods() if pod.startswith(f"{job}-worker")]:
        harness.server.drop(paths.pods(SPACE, pod))
    harness.sync()
    harness.reconcile()


# Reasons and numbers


async def test_newer_numbers_are_told_after_a_while(harness: OperatorHarness) -> None:
    await full(harness, 1)
    await harness.turn()
    before = harness.admitted("job000")
    harness.node("n3")
    harness.pod("other", 3, gated=False, node="n3", spec={"schedulerName": "default-scheduler"})
    await harness.turn(2, seconds=1)
    assert harness.admitted("job000") == before
    assert harness.work_queue.plan_at == NEVER, "to tell newer numbers takes no plan"
    assert await look(harness, SAME_REASON_SECONDS) == {"job000": 1}
    assert harness.admitted("job000")[0] == before[0]
    assert harness.admitted("job000") != before


async def test_another_reason_is_told_while_numbers_would_rest(harness: OperatorHarness) -> None:
    await full(harness, 1)
    await harness.turn()
    harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"gpus": 8}})
    await harness.turn(2, seconds=LOOK_SECONDS)
    assert harness.admitted("job000")[0] == "QuotaExhausted"


async def test_restarted_operator_writes_nothing_that_says_the_same(harness: OperatorHarness) -> None:
    await full(harness, CROWD)
    harness.pod("p", 64)
    await harness.turn()
    await tell_all(harness)
    harness.restart()
    harness.server.asked.clear()
    for _ in range(5):
        await harness.turn(seconds=SAME_REASON_SECONDS)
    assert harness.server.writes("PATCH") == []


# The rate


async def test_reasons_are_written_so_many_at_a_time(harness: OperatorHarness) -> None:
    jobs = await full(harness, CROWD)
    await harness.turn()
    assert len(told(harness, jobs)) == MOST_AT_ONCE
    for looks in (2, 3):
        assert sum((await look(harness)).values()) == MOST_AT_ONCE
        assert len(told(harness, jobs)) == looks * MOST_AT_ONCE
    await tell_all(harness)
    assert written(harness) == dict.fromkeys(jobs, 1)


async def test_plans_do_not_raise_the_rate(harness: OperatorHarness) -> None:
    jobs = await full(harness, CROWD)
    for _ in range(5):
        await harness.turn(seconds=LOOK_SECONDS / 10)
    assert len(told(harness, jobs)) == MOST_AT_ONCE


async def test_newer_numbers_of_many_jobs_are_written_few_at_a_time_and_each_in_turn(harness: OperatorHarness) -> None:
    jobs = await full(harness, CROWD)
    await harness.turn()
    await tell_all(harness)
    harness.now += SAME_REASON_SECONDS
    await end(harness, "a")
    await harness.turn()
    behind = jobs[2:]
    assert all("comes after" in harness.admitted(name)[1] for name in behind)
    harness.server.asked.clear()
    for _ in range(len(behind) // MOST_NUMBERS + 5):
        assert sum((await look(harness)).values()) <= MOST_NUMBERS
    assert all(f"comes after {SPACE}/{jobs[1]}" in harness.admitted(name)[1] for name in behind)
    assert max(written(harness).values()) == 1


async def test_reasons_beyond_one_look_are_found(harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CROWD < MOST_LOOKED_AT
    monkeypatch.setattr("muster_operator.planning.telling.MOST_LOOKED_AT", 5)
    jobs = await full(harness, CROWD)
    await harness.turn()
    await tell_all(harness)
    assert told(harness, jobs) == jobs


async def test_nothing_is_looked_at_once_everybody_is_told(harness: OperatorHarness) -> None:
    await full(harness, 3)
    await harness.turn()
    await tell_all(harness)
    assert not any(key.kind == harness.planning.telling.kind for key in harness.work_queue.later)


async def test_reason_that_cannot_be_written_delays_no_other(harness: OperatorHarness) -> None:
    jobs = await full(harness, CROWD)
    harness.server.refuse("PATCH", f"{jobs[0]}/status", 403, "not today", times=2)
    await harness.turn()
    for _ in range(5):
        await look(harness)
    assert told(harness, jobs) == jobs[1:]
    assert await look(harness, RETRY_SECONDS) == {jobs[0]: 1}
    assert await look(harness, RETRY_SECONDS) == {jobs[0]: 1}
    assert told(harness, jobs) == jobs


# Deciding goes first


async def test_placement_is_written_while_reasons_hang(harness: OperatorHarness) -> None:
    jobs = await full(harness, CROWD)
    stuck = harness.server.hold("job0")
    harness.submit("urgent", roles=WHOLE, priority=9)
    await busy_turn(harness)
    await harness.until(lambda: harness.status("urgent"))
    await busy_turn(harness)
    assert harness.work_queue.telling == MOST_AT_ONCE - 1
    await end(harness, "a")
    await busy_turn(harness)
    assert harness.status("urgent")["phase"] == "Admitted"
    assert told(harness, jobs) == []
    stuck.set()
    await harness.idle()
    assert len(told(harness, jobs)) == MOST_AT_ONCE - 1


async def busy_turn(harness: OperatorHarness) -> None:
    """A turn that does not wait until people have been told, as the loop does not."""
    harness.sync()
    harness.reconcile()
    checked = {key for key in harness.work_queue.in_flight if harness.work_queue.is_changing(key)}
    await harness.until(lambda: not checked & harness.work_queue.in_flight)
    await harness.plan()


async def test_placements_of_a_plan_are_written_before_its_reasons(harness: OperatorHarness) -> None:
    jobs = await full(harness, CROWD)
    await harness.turn()
    await tell_all(harness)
    harness.server.asked.clear()
    await end(harness, "a")
    await harness.turn()
    statuses = [(path.split("/")[-2], body["status"]) for _, path, body in harness.server.asked if path.endswith("/status")]
    assert statuses[0][0] == jobs[0]
    assert [bool(status.get("placement")) for _, status in statuses] == [True] + [False] * (len(statuses) - 1)
    assert len(statuses) > 1


async def test_job_that_is_being_told_keeps_its_turn(harness: OperatorHarness) -> None:
    jobs = await full(harness, 2)
    stuck = harness.server.hold(f"{jobs[0]}/status")
    await busy_turn(harness)
    await end(harness, "a")
    await busy_turn(harness)
    assert harness.status(jobs[1]).get("placement") is None, "the GPUs are not given to the one behind it"
    stuck.set()
    await harness.idle()
    assert harness.work_queue.plan_at == 0.0
    await harness.turn()
    assert harness.status(jobs[0])["phase"] == "Admitted"


async def test_told_job_needs_no_plan(harness: OperatorHarness) -> None:
    await full(harness, 3)
    harness.pod("p", 64)
    await harness.turn()
    await harness.turn()
    await tell_all(harness)
    harness.sync()
    harness.reconcile()
    assert harness.work_queue.plan_at == NEVER


async def test_job_that_was_admitted_meanwhile_is_told_no_reason(harness: OperatorHarness) -> None:
    jobs = await full(harness, CROWD)
    await harness.turn()
    late = jobs[-1]
    harness.change(paths.dljobs(SPACE, late), metadata={"annotations": {}}, spec={"priority": 9})
    harness.server.objects[paths.dljobs(SPACE, late)]["metadata"]["generation"] = 2
    await end(harness, "a")
    await harness.turn()
    assert harness.status(late)["phase"] == "Admitted"
    await tell_all(harness)
    assert written(harness)[late] == 1
    assert "InsufficientGPUs" not in str(harness.status(late))


async def test_suspended_job_is_told_no_reason(harness: OperatorHarness) -> None:
    jobs = await full(harness, CROWD)
    await harness.turn()
    harness.change(paths.dljobs(SPACE, jobs[-1]), metadata={"annotations": {names.SUSPEND: "true"}})
    harness.sync()
    await tell_all(harness)
    assert harness.status(jobs[-1])["phase"] == "Suspended"
    assert written(harness)[jobs[-1]] == 1


# External pods


async def test_reasons_of_pods_are_written_so_many_at_a_time(harness: OperatorHarness) -> None:
    for number in range(CROWD):
        harness.pod(f"p{number}", 64)
    await harness.turn()
    notes = [pod["metadata"]["annotations"].get(names.WAITING) for pod in harness.server.of("pods")]
    assert len([note for note in notes if note]) == MOST_AT_ONCE
    await tell_all(harness)
    assert all(names.WAITING in pod["metadata"]["annotations"] for pod in harness.server.of("pods"))
    assert len(harness.server.writes("PATCH")) == CROWD


async def test_note_that_cannot_be_written_delays_no_plan(harness: OperatorHarness) -> None:
    stuck = harness.server.hold("pods/p0")
    harness.pod("p0", 64)
    await busy_turn(harness)
    harness.submit(roles=WHOLE)
    await busy_turn(harness)
    assert harness.status()["phase"] == "Admitted"
    stuck.set()
    await harness.idle()


# Checking templates, which is no decision either


async def test_placement_is_written_while_templates_are_checked(harness: OperatorHarness) -> None:
    harness.submit("first", roles=WHOLE)
    await harness.turn()
    stuck = harness.server.hold("dryRun")
    for number in range(40):
        harness.submit(f"job{number:03}", roles=WHOLE)
    harness.sync()
    harness.reconcile()
    await harness.until(lambda: len(harness.server.writes("POST")) > templates.JOBS_AT_ONCE)
    await harness.plan()
    assert harness.status("first")["phase"] == "Admitted"
    stuck.set()
    await harness.idle()
