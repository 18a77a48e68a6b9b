"""The jobs as last read: a faulty one harms no other, and one of the same name is not the same."""

from __future__ import annotations

import pytest

from builders.dljobs import roles, time
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.work_queue import NEVER, RETRY_SECONDS

W0 = "vgg16-worker-0"
KEY = "vision/vgg16"


async def test_a_job_of_the_same_name_is_a_new_one(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.server.drop(paths.dljobs(SPACE, "vgg16"))
    harness.submit(metadata={"uid": "another"}, roles=roles(workers=1, gpus=1))
    harness.sync()
    assert harness.work_queue.due(harness.now) == [KEY]
    job = harness.work_queue.jobs[KEY]
    assert (job.meta.uid, job.gpus, job.status.phase) == ("another", 1, None)
    assert harness.work_queue.pods_of(job) == []
    assert harness.server.writes("POST").count(f"POST {paths.pods(SPACE)}?dryRun") == 1


async def test_the_new_one_has_its_templates_checked(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(2)
    harness.server.drop(paths.dljobs(SPACE, "vgg16"))
    harness.submit(metadata={"uid": "another"})
    harness.server.refuse("POST", "?dryRun", 422, "no such thing")
    await harness.turn(2)
    assert (harness.status()["phase"], harness.status()["message"]) == ("Failed", "no such thing")


async def test_a_job_that_is_gone_is_forgotten(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(2)
    harness.server.drop(paths.dljobs(SPACE, "vgg16"))
    harness.sync()
    assert harness.work_queue.due(harness.now) == []
    assert (harness.work_queue.jobs, harness.work_queue.checked, harness.work_queue.requeue_at) == ({}, set(), {})


async def test_an_unreadable_job_leaves_the_others_alone(harness: OperatorHarness) -> None:
    bad = harness.submit("bad")
    bad["spec"]["colour"] = "red"
    harness.server.put(paths.dljobs(SPACE), bad)
    harness.submit()
    await harness.turn(3)
    assert (harness.status()["phase"], set(harness.work_queue.jobs)) == ("Admitted", {KEY})
    assert ("Warning", "bad", "Unreadable") in await harness.events()


async def test_a_job_that_becomes_unreadable_keeps_its_gpus_from_others(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.change(paths.dljobs(SPACE, "vgg16"), spec={"colour": "red"}, metadata={"generation": 2})
    harness.submit("other", roles=roles(workers=1, gpus=4))
    await harness.turn(3)
    assert "placement" not in harness.status("other") or not harness.status("other")["placement"]
    assert harness.pods() == ["vgg16-worker-0", "vgg16-worker-1"]


async def test_pods_of_a_job_are_those_it_owns(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.sync()
    job = harness.work_queue.jobs[KEY]
    harness.pod("stranger", 0, gated=False, metadata={"labels": {names.JOB: "vgg16"}})
    harness.sync()
    assert [pod.metadata.name for pod in harness.work_queue.pods_of(job)] == [W0, "vgg16-worker-1"]
    harness.server.drop(paths.pods(SPACE, W0))
    harness.sync()
    assert [pod.metadata.name for pod in harness.work_queue.pods_of(job)] == ["vgg16-worker-1"]


async def test_a_busy_job_is_read_but_comes_later(harness: OperatorHarness) -> None:
    harness.submit()
    harness.sync()
    harness.work_queue.in_flight.add(KEY)
    assert harness.work_queue.due(harness.now) == []
    assert KEY in harness.work_queue.jobs
    harness.work_queue.in_flight.clear()
    assert harness.work_queue.due(harness.now) == [KEY]
    assert harness.work_queue.due(harness.now) == []


async def test_a_job_wakes_when_its_time_has_come(harness: OperatorHarness) -> None:
    harness.submit()
    harness.sync()
    harness.work_queue.due(harness.now)
    harness.work_queue.requeue_at[KEY] = harness.now + 5
    assert harness.work_queue.due(harness.now + 4.9) == []
    assert harness.work_queue.due(harness.now + 5) == [KEY]
    assert harness.work_queue.requeue_at == {}


async def test_work_that_fails_is_tried_again_and_harms_nobody(harness: OperatorHarness) -> None:
    async def broken() -> None:
        raise RuntimeError("a fault of ours")

    harness.work_queue.start(KEY, broken())
    assert harness.work_queue.in_flight == {KEY}
    await harness.idle()
    assert harness.work_queue.requeue_at == {KEY: harness.now + RETRY_SECONDS}
    assert harness.work_queue.changed.is_set()


@pytest.mark.parametrize(
    ("change", "plans"),
    [
        ({"status": {"phase": "Pending", "reason": "x"}}, False),
        ({"status": {"phase": "Succeeded"}}, True),
        ({"status": {"phase": "Failed"}}, True),
        ({"metadata": {"deletionTimestamp": time(0)}}, True),
        ({"metadata": {"annotations": {"a": "b"}}}, False),
    ],
)
async def test_what_frees_gpus_is_planned(harness: OperatorHarness, change: dict[str, dict[str, str]], plans: bool) -> None:
    harness.pod("other", 2, gated=False, node="n1", spec={"schedulerName": "default-scheduler"})
    harness.sync()
    harness.work_queue.plan_at = NEVER
    harness.change(paths.pods(SPACE, "other"), **change)
    harness.sync()
    assert (harness.work_queue.plan_at == 0.0) is plans


async def test_a_pod_that_vanishes_frees_gpus(harness: OperatorHarness) -> None:
    for gpus in (0, 2):
        harness.pod("other", gpus, gated=False, node="n1", spec={"schedulerName": "default-scheduler"})
        harness.sync()
        harness.work_queue.plan_at = NEVER
        harness.server.drop(paths.pods(SPACE, "other"))
        harness.sync()
        assert (harness.work_queue.plan_at == 0.0) is (gpus > 0)


async def test_a_node_that_changes_has_its_jobs_looked_at(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=1, gpus=4))
    await harness.turn(3)
    node = harness.status()["placement"][0]["node"]
    harness.sync()
    harness.work_queue.due(harness.now)
    harness.work_queue.plan_at = NEVER
    harness.node(node, annotations={"heartbeat": "1"})
    harness.sync()
    assert (harness.work_queue.due(harness.now), harness.work_queue.plan_at) == ([], NEVER)
    harness.node(node, ready=False)
    harness.sync()
    assert (harness.work_queue.due(harness.now), harness.work_queue.plan_at) == ([KEY], 0.0)
    harness.node("n2" if node == "n1" else "n1", labels={names.RACK: "r1"})
    harness.work_queue.plan_at = NEVER
    harness.sync()
    assert (harness.work_queue.due(harness.now), harness.work_queue.plan_at) == ([], 0.0)
