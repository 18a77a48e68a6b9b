"""What a change marks: DLJobs as last read, their pods and nodes; a faulty job harms no other."""

from __future__ import annotations

import pytest

from builders.dljobs import roles, time
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.work_queue import NEVER

W0, W1 = "vgg16-worker-0", "vgg16-worker-1"
JOB = "vgg16"


async def test_job_of_the_same_name_is_a_new_one(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.server.drop(paths.dljobs(SPACE, "vgg16"))
    harness.submit(metadata={"uid": "another"}, roles=roles(workers=1, gpus=1))
    harness.sync()
    assert harness.due() == [JOB]
    job = harness.job()
    assert (job.meta.uid, job.gpus, job.status.phase) == ("another", 1, None)
    assert harness.dljobs.jobs.pods_of(job) == []
    assert harness.server.writes("POST").count(f"POST {paths.pods(SPACE)}?dryRun") == 1


async def test_new_job_of_the_same_name_has_its_templates_checked(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(2)
    harness.server.drop(paths.dljobs(SPACE, "vgg16"))
    harness.submit(metadata={"uid": "another"})
    harness.server.refuse("POST", "?dryRun", 422, "no such thing")
    await harness.turn(2)
    assert (harness.status()["phase"], harness.status()["message"]) == (
        "Failed",
        "roles.worker.template: no such thing",
    )


async def test_deleted_job_is_forgotten(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(2)
    harness.server.drop(paths.dljobs(SPACE, "vgg16"))
    harness.sync()
    await harness.look()
    assert (harness.jobs(), harness.work_queue.later, list(harness.dljobs.gangs())) == (set(), {}, [])


async def test_unreadable_job_leaves_the_others_alone(harness: OperatorHarness) -> None:
    bad = harness.submit("bad")
    bad["spec"]["colour"] = "red"
    harness.server.put(paths.dljobs(SPACE), bad)
    harness.submit()
    await harness.turn(3)
    assert (harness.status()["phase"], harness.jobs()) == ("Admitted", {JOB})
    assert ("Warning", "bad", "Unreadable") in await harness.events()


def writes_of(harness: OperatorHarness, name: str) -> int:
    return harness.server.writes("PATCH").count(f"PATCH {paths.dljobs(SPACE, name)}/status")


async def test_unreadable_job_says_so_in_its_status_once(harness: OperatorHarness) -> None:
    harness.submit("bad", colour="red")
    await harness.turn(3)
    told = (
        "DLJob vision/bad cannot be read (colour: Extra inputs are not permitted); is the CRD of this muster version installed?"
    )
    assert (harness.status("bad")["phase"], harness.status("bad")["message"]) == ("Queued", told)
    assert harness.admitted("bad") == ("Unreadable", told)
    harness.restart()
    await harness.turn(3)
    assert writes_of(harness, "bad") == 1


@pytest.mark.parametrize("code", [422, 409])
async def test_unreadable_job_whose_status_cannot_be_written_is_not_tried_for_ever(harness: OperatorHarness, code: int) -> None:
    harness.server.refuse("PATCH", "bad/status", code, "no such field", times=1 if code == 409 else 99)
    harness.submit("bad", colour="red")
    await harness.turn(6, seconds=10)
    assert writes_of(harness, "bad") == (2 if code == 409 else 1)


async def test_job_that_becomes_unreadable_keeps_what_its_status_says_of_what_it_holds(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.run_pods()
    await harness.turn(2)
    before = harness.status()
    harness.change(paths.dljobs(SPACE, JOB), spec={"colour": "red"}, metadata={"generation": 2})
    await harness.turn(3)
    now = harness.status()
    assert {key for key in now if now[key] != before[key]} == {"conditions", "message"}
    others = [[each for each in status["conditions"] if each["type"] != "Admitted"] for status in (before, now)]
    admitted = next(each for each in now["conditions"] if each["type"] == "Admitted")
    assert (others[0], admitted["status"], admitted["reason"]) == (others[1], "True", "Unreadable")


@pytest.mark.parametrize("held", [True, False])
async def test_job_that_can_be_read_again_is_brought_on(harness: OperatorHarness, held: bool) -> None:
    fields = {} if held else {"colour": "red"}
    bad = harness.submit("bad", **fields)
    await harness.turn(3)
    if held:
        harness.change(paths.dljobs(SPACE, "bad"), spec={"colour": "red"}, metadata={"generation": 2})
        await harness.turn(3)
        assert harness.admitted("bad")[0] == "Unreadable"
    found = harness.server.objects[paths.dljobs(SPACE, "bad")]
    spec = {key: value for key, value in bad["spec"].items() if key != "colour"}
    harness.server.put(paths.dljobs(SPACE), {**found, "spec": spec})
    await harness.turn(4)
    assert (harness.status("bad")["phase"], harness.status("bad")["attempt"]) == ("Admitted", 1)
    assert harness.admitted("bad")[0] == ("Readable" if held else "Placed")
    assert len(harness.pods()) == 2


async def test_job_that_becomes_unreadable_keeps_its_gpus_from_others(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.change(paths.dljobs(SPACE, "vgg16"), spec={"colour": "red"}, metadata={"generation": 2})
    harness.submit("other", roles=roles(workers=1, gpus=4))
    await harness.turn(3)
    assert "placement" not in harness.status("other") or not harness.status("other")["placement"]
    assert harness.pods() == ["vgg16-worker-0", W1]


async def test_pods_of_a_job_are_those_that_it_owns(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.sync()
    job = harness.job()
    harness.pod("stranger", 0, gated=False, metadata={"labels": {names.JOB: "vgg16"}})
    harness.sync()
    assert [pod.metadata.name for pod in harness.dljobs.jobs.pods_of(job)] == [W0, W1]
    harness.server.drop(paths.pods(SPACE, W0))
    harness.sync()
    assert [pod.metadata.name for pod in harness.dljobs.jobs.pods_of(job)] == [W1]


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
async def test_pod_change_that_frees_gpus_leads_to_a_plan(
    harness: OperatorHarness, change: dict[str, dict[str, str]], plans: bool
) -> None:
    harness.pod("other", 2, gated=False, node="n1", spec={"schedulerName": "default-scheduler"})
    harness.sync()
    harness.work_queue.begin_plan()
    harness.change(paths.pods(SPACE, "other"), **change)
    harness.sync()
    assert (harness.work_queue.plan_at == 0.0) is plans


async def test_deletion_of_a_gpu_pod_leads_to_a_plan(harness: OperatorHarness) -> None:
    for gpus in (0, 2):
        harness.pod("other", gpus, gated=False, node="n1", spec={"schedulerName": "default-scheduler"})
        harness.sync()
        harness.work_queue.begin_plan()
        harness.server.drop(paths.pods(SPACE, "other"))
        harness.sync()
        assert (harness.work_queue.plan_at == 0.0) is (gpus > 0)


async def test_change_of_a_node_marks_its_jobs(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=1, gpus=4))
    await harness.turn(3)
    node = harness.status()["placement"][0]["node"]
    harness.sync()
    harness.due()
    harness.work_queue.begin_plan()
    harness.node(node, annotations={"heartbeat": "1"})
    harness.sync()
    assert (harness.due(), harness.work_queue.plan_at) == ([], NEVER)
    harness.node(node, ready=False)
    harness.sync()
    assert (harness.due(), harness.work_queue.plan_at) == ([JOB], 0.0)
    harness.node("n2" if node == "n1" else "n1", labels={names.RACK: "r1"})
    harness.work_queue.begin_plan()
    harness.sync()
    assert (harness.due(), harness.work_queue.plan_at) == ([], 0.0)
