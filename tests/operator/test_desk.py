"""The jobs as last read: a faulty one harms no other, and one of the same name is not the same."""

from __future__ import annotations

import pytest

from builders.dljobs import roles, time
from builders.office import SPACE, Office
from muster.api import names
from muster.kube import paths
from muster_operator.desk import NEVER, RETRY_SECONDS

W0 = "vgg16-worker-0"
KEY = "vision/vgg16"


async def test_a_job_of_the_same_name_is_a_new_one(office: Office) -> None:
    office.submit()
    await office.turn(3)
    office.run_pods()
    await office.turn()
    office.server.drop(paths.dljobs(SPACE, "vgg16"))
    office.submit(metadata={"uid": "another"}, roles=roles(workers=1, gpus=1))
    office.sync()
    assert office.desk.due(office.now) == [KEY]
    job = office.desk.jobs[KEY]
    assert (job.meta.uid, job.gpus, job.status.phase) == ("another", 1, None)
    assert office.desk.pods_of(job) == []
    assert office.server.writes("POST").count(f"POST {paths.pods(SPACE)}?dryRun") == 1


async def test_the_new_one_has_its_templates_checked(office: Office) -> None:
    office.submit()
    await office.turn(2)
    office.server.drop(paths.dljobs(SPACE, "vgg16"))
    office.submit(metadata={"uid": "another"})
    office.server.refuse("POST", "?dryRun", 422, "no such thing")
    await office.turn(2)
    assert (office.status()["phase"], office.status()["message"]) == ("Failed", "no such thing")


async def test_a_job_that_is_gone_is_forgotten(office: Office) -> None:
    office.submit()
    await office.turn(2)
    office.server.drop(paths.dljobs(SPACE, "vgg16"))
    office.sync()
    assert office.desk.due(office.now) == []
    assert (office.desk.jobs, office.desk.checked, office.desk.wakes) == ({}, set(), {})


async def test_an_unreadable_job_leaves_the_others_alone(office: Office) -> None:
    bad = office.submit("bad")
    bad["spec"]["colour"] = "red"
    office.server.put(paths.dljobs(SPACE), bad)
    office.submit()
    await office.turn(3)
    assert (office.status()["phase"], set(office.desk.jobs)) == ("Admitted", {KEY})
    assert ("Warning", "bad", "Unreadable") in await office.events()


async def test_a_job_that_becomes_unreadable_keeps_its_gpus_from_others(office: Office) -> None:
    office.submit(roles=roles(workers=2, gpus=4))
    await office.turn(3)
    office.change(paths.dljobs(SPACE, "vgg16"), spec={"colour": "red"}, metadata={"generation": 2})
    office.submit("other", roles=roles(workers=1, gpus=4))
    await office.turn(3)
    assert "placement" not in office.status("other") or not office.status("other")["placement"]
    assert office.pods() == ["vgg16-worker-0", "vgg16-worker-1"]


async def test_pods_of_a_job_are_those_it_owns(office: Office) -> None:
    office.submit()
    await office.turn(3)
    office.sync()
    job = office.desk.jobs[KEY]
    office.pod("stranger", 0, gated=False, metadata={"labels": {names.JOB: "vgg16"}})
    office.sync()
    assert [pod.metadata.name for pod in office.desk.pods_of(job)] == [W0, "vgg16-worker-1"]
    office.server.drop(paths.pods(SPACE, W0))
    office.sync()
    assert [pod.metadata.name for pod in office.desk.pods_of(job)] == ["vgg16-worker-1"]


async def test_a_busy_job_is_read_but_comes_later(office: Office) -> None:
    office.submit()
    office.sync()
    office.desk.busy.add(KEY)
    assert office.desk.due(office.now) == []
    assert KEY in office.desk.jobs
    office.desk.busy.clear()
    assert office.desk.due(office.now) == [KEY]
    assert office.desk.due(office.now) == []


async def test_a_job_wakes_when_its_time_has_come(office: Office) -> None:
    office.submit()
    office.sync()
    office.desk.due(office.now)
    office.desk.wakes[KEY] = office.now + 5
    assert office.desk.due(office.now + 4.9) == []
    assert office.desk.due(office.now + 5) == [KEY]
    assert office.desk.wakes == {}


async def test_work_that_fails_is_tried_again_and_harms_nobody(office: Office) -> None:
    async def broken() -> None:
        raise RuntimeError("a fault of ours")

    office.desk.start(KEY, broken())
    assert office.desk.busy == {KEY}
    await office.idle()
    assert office.desk.wakes == {KEY: office.now + RETRY_SECONDS}
    assert office.desk.bell.is_set()


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
async def test_what_frees_gpus_is_planned(office: Office, change: dict[str, dict[str, str]], plans: bool) -> None:
    office.pod("other", 2, gated=False, node="n1", spec={"schedulerName": "default-scheduler"})
    office.sync()
    office.desk.plan_at = NEVER
    office.change(paths.pods(SPACE, "other"), **change)
    office.sync()
    assert (office.desk.plan_at == 0.0) is plans


async def test_a_pod_that_vanishes_frees_gpus(office: Office) -> None:
    for gpus in (0, 2):
        office.pod("other", gpus, gated=False, node="n1", spec={"schedulerName": "default-scheduler"})
        office.sync()
        office.desk.plan_at = NEVER
        office.server.drop(paths.pods(SPACE, "other"))
        office.sync()
        assert (office.desk.plan_at == 0.0) is (gpus > 0)


async def test_a_node_that_changes_has_its_jobs_looked_at(office: Office) -> None:
    office.submit(roles=roles(workers=1, gpus=4))
    await office.turn(3)
    node = office.status()["placement"][0]["node"]
    office.sync()
    office.desk.due(office.now)
    office.desk.plan_at = NEVER
    office.node(node, annotations={"heartbeat": "1"})
    office.sync()
    assert (office.desk.due(office.now), office.desk.plan_at) == ([], NEVER)
    office.node(node, ready=False)
    office.sync()
    assert (office.desk.due(office.now), office.desk.plan_at) == ([KEY], 0.0)
    office.node("n2" if node == "n1" else "n1", labels={names.RACK: "r1"})
    office.desk.plan_at = NEVER
    office.sync()
    assert (office.desk.due(office.now), office.desk.plan_at) == ([], 0.0)
