"""Single jobs: templates are checked, what life asks for is carried out, a refusal is told in the server's words."""

from __future__ import annotations

import pytest

from builders.dljobs import NOW, Json, roles, template, time
from builders.office import SPACE, Office
from muster.api import names
from muster.kube import paths
from muster_operator import manifests
from muster_operator.desk import RETRY_SECONDS
from muster_operator.steps import CHECK_AGAIN_SECONDS

W0, W1 = "vgg16-worker-0", "vgg16-worker-1"
JOB = paths.dljobs(SPACE, "vgg16")
PODS = paths.pods(SPACE)
TRY = f"POST {PODS}?dryRun"


def timeline(office: Office) -> list[str]:
    return [event["event"] for event in office.status()["timeline"]]


async def test_a_whole_life(office: Office) -> None:
    office.submit(rendezvous="ParameterServer", roles=roles(ps=1))
    await office.turn()
    assert office.server.writes("POST")[:2] == [TRY, TRY]
    assert (office.pods(), "phase" in office.status()) == ([], False)
    await office.turn()
    assert office.status()["phase"] == "Admitted"
    await office.turn()
    assert office.pods() == ["vgg16-ps-0", W0, W1]
    assert len(office.server.of("services")) == 1
    office.run_pods()
    await office.turn()
    assert office.status()["phase"] == "Running"
    office.change(paths.pods(SPACE, W0), status={"phase": "Succeeded"})
    await office.turn()
    assert office.status()["phase"] == "Running"
    office.change(paths.pods(SPACE, W1), status={"phase": "Succeeded"})
    await office.turn(2)
    assert (office.status()["phase"], office.status()["placement"], office.server.of("services")) == ("Succeeded", [], [])
    assert names.STOP_AT in office.metadata("vgg16-ps-0")["annotations"]
    await office.turn(seconds=2)
    office.end_pods()
    await office.turn()
    assert office.pods() == [W0, W1]
    assert timeline(office) == ["Queued", "Admitted", "Running", "Succeeded"]
    done = len(office.server.asked)
    await office.turn(3, seconds=100)
    assert len(office.server.asked) == done
    assert ("Normal", "vgg16", "GangRunning") in await office.events()


async def test_pods_come_after_the_reservation_and_the_service(office: Office) -> None:
    office.submit()
    await office.turn(3)
    writes = [w for w in office.server.writes() if "events" not in w and "?dryRun" not in w]
    assert writes == [f"PATCH {JOB}/status", f"POST {paths.services(SPACE)}", f"POST {PODS}", f"POST {PODS}"]


async def test_suspend_and_resume(office: Office) -> None:
    office.submit()
    await office.turn(3)
    office.run_pods()
    await office.turn()
    office.change(
        paths.pods(SPACE, W1), metadata={"annotations": {**office.metadata(W1)["annotations"], names.SUSPEND: "true"}}
    )
    await office.turn(3)
    assert office.server.objects[JOB]["metadata"]["annotations"] == {names.SUSPEND: "true"}
    assert office.metadata(W0)["annotations"][names.STOP_AT] == time(NOW + 1)
    await office.turn(seconds=1.5)
    assert {office.metadata(name).get("deletionTimestamp") for name in (W0, W1)} == {time(NOW)}
    office.end_pods()
    await office.turn(2)
    assert (office.status()["phase"], office.pods()) == ("Suspended", [])
    office.change(JOB, metadata={"annotations": {names.SUSPEND: "false"}})
    await office.turn(3)
    assert (office.status()["phase"], office.status()["attempt"], office.pods()) == ("Admitted", 2, [W0, W1])


async def test_the_time_to_live(office: Office) -> None:
    office.submit(status={"phase": "Failed", "finishedAt": time(NOW)}, ttlSecondsAfterFinished=60)
    await office.turn(2)
    assert JOB in office.server.objects
    assert office.desk.wakes["vision/vgg16"] == NOW + 60
    await office.turn(seconds=60)
    assert JOB not in office.server.objects
    assert office.server.asked[-1][2]["propagationPolicy"] == "Background"


async def test_pods_on_a_lost_node_are_deleted_without_grace(office: Office) -> None:
    office.submit()
    await office.turn(3)
    office.run_pods()
    await office.turn()
    on = {pod["spec"]["nodeName"] for pod in office.server.of("pods")}
    for node in on:
        office.node(node, ready=False)
    await office.turn(2)
    assert office.pods() == []
    assert (office.status()["phase"], office.admitted()[0]) == ("Queued", "NodeLost")


# Templates


@pytest.mark.parametrize("code", [422, 400])
async def test_a_template_that_can_never_be_a_pod(office: Office, code: int) -> None:
    office.submit(roles=roles(ps=1), rendezvous="ParameterServer")
    office.server.refuse("POST", "pods?dryRun", code, 'Pod "x" is invalid: spec.containers[0].image: Required value')
    await office.turn(3)
    status = office.status()
    assert (status["phase"], status["timeline"][-1]["reason"]) == ("Failed", "InvalidTemplate")
    assert status["message"] == 'Pod "x" is invalid: spec.containers[0].image: Required value'
    assert ("Warning", "vgg16", "InvalidTemplate") in await office.events()
    assert office.server.writes("POST").count(TRY) <= 2


@pytest.mark.parametrize("code", [403, 409])
async def test_a_template_that_is_refused_today_is_tried_again(office: Office, code: int) -> None:
    words = "exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9"
    office.server.refuse("POST", "pods?dryRun", code, words, times=3)
    office.submit()
    await office.turn(4)
    assert (office.status()["phase"], office.admitted()) == ("Queued", ("TemplateRefused", words))
    assert office.desk.wakes["vision/vgg16"] == NOW + CHECK_AGAIN_SECONDS
    tried = office.server.writes("POST").count(TRY)
    await office.turn(3, seconds=1)
    assert office.server.writes("POST").count(TRY) == tried  # not again before its time
    for _ in range(3):
        await office.turn(2, seconds=CHECK_AGAIN_SECONDS)
    assert office.status()["phase"] == "Admitted"


async def test_a_server_in_trouble_says_nothing_of_a_template(office: Office) -> None:
    office.submit()
    office.server.refuse("POST", "pods?dryRun", 500, "etcd is away")
    await office.turn()
    assert (office.status(), office.desk.wakes) == ({}, {"vision/vgg16": NOW + RETRY_SECONDS})
    await office.turn(2, seconds=RETRY_SECONDS)
    assert office.status()["phase"] == "Admitted"


async def test_one_pod_of_each_role_is_tried_on_no_particular_node(office: Office) -> None:
    office.submit(roles=roles(workers=3, ps=2), rendezvous="ParameterServer")
    await office.turn()
    tried = [body for _, path, body in office.server.asked if path.endswith("?dryRun")]
    assert [body["metadata"]["generateName"] for body in tried] == [f"{W0}-", "vgg16-ps-0-"]  # a name may still be taken
    assert "vision/vgg16" not in office.desk.busy
    await office.turn(3)
    assert len([path for _, path, _ in office.server.asked if path.endswith("?dryRun")]) == 2


@pytest.mark.parametrize(
    ("fields", "checked"),
    [
        ({}, True),
        ({"suspend": True}, False),
        ({"metadata": {"deletionTimestamp": time(NOW)}}, False),
        ({"status": {"phase": "Failed"}}, False),
        ({"status": {"phase": "Queued", "attempt": 3}}, False),
    ],
)
async def test_who_is_checked(office: Office, fields: Json, checked: bool) -> None:
    office.submit(**fields)
    office.sync()
    await office.look()
    assert (TRY in office.server.writes()) is checked


@pytest.mark.parametrize(("reason", "checked"), [("InsufficientGPUs", False), ("TemplateRefused", True), ("Resumed", True)])
async def test_after_a_restart_of_the_operator(office: Office, reason: str, checked: bool) -> None:
    """The API server's consent is not written down: that the planner has spoken of a job tells that it was given."""
    told = {"type": "Admitted", "status": "False", "reason": reason, "lastTransitionTime": time(NOW)}
    office.submit(status={"phase": "Queued", "conditions": [told]})
    office.sync()
    await office.look()
    assert (TRY in office.server.writes()) is checked
    assert "uid-vgg16" in office.desk.checked


# Creation refused


@pytest.mark.parametrize("code", [403, 422, 500])
async def test_a_refused_pod_takes_the_gang_back(office: Office, code: int) -> None:
    words = "exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9"
    office.submit()
    await office.turn(2)
    office.server.refuse("POST", "pods", code, words)
    await office.turn()
    assert (office.status()["placement"], office.admitted()) == ([], ("PodRefused", words))
    assert (office.status()["requeues"], office.status().get("restarts", 0)) == (1, 0)
    assert ("Warning", "vgg16", "PodRefused") in await office.events()
    await office.turn()
    assert office.pods() == []  # what was created of it goes again
    await office.turn(3, seconds=2)
    assert (office.status()["phase"], office.pods()) == ("Admitted", [W0, W1])


async def test_a_pod_of_that_name_that_is_anothers(office: Office) -> None:
    office.submit()
    office.pod("vgg16-worker-1", 0, gated=False, spec={"schedulerName": "default-scheduler"})
    await office.turn(3)
    assert office.admitted()[0] == "PodRefused"
    assert office.admitted()[1].endswith("already exists: a pod of that name is not this job's")
    await office.turn()
    assert office.pods() == [W1]


async def test_a_service_of_that_name_that_is_anothers(office: Office) -> None:
    office.submit()
    service = {"metadata": {"name": "vgg16", "namespace": SPACE, "uid": "theirs"}}
    office.server.put(paths.services(SPACE), service)
    await office.turn(3)
    assert office.pods() == []
    why = "Service vision/vgg16 exists and is not this job's: delete it, or name the job otherwise"
    assert office.admitted() == ("PodRefused", why)
    assert office.server.of("services")[0]["metadata"]["uid"] == "theirs"


async def test_a_refused_service_takes_the_gang_back(office: Office) -> None:
    office.submit()
    office.server.refuse("POST", "services", 403, "no Services here")
    await office.turn(3)
    assert (office.pods(), office.admitted()) == ([], ("PodRefused", "no Services here"))


async def test_its_own_service_that_the_watch_has_not_brought_yet(office: Office) -> None:
    office.submit()
    await office.turn(2)
    office.server.put(paths.services(SPACE), manifests.service(office.desk.jobs["vision/vgg16"]))
    await office.look()
    assert (office.pods(), office.status()["phase"]) == ([W0, W1], "Admitted")
    assert office.stores.services.get("vision/vgg16") is not None


async def test_a_write_that_fails_is_tried_again(office: Office) -> None:
    office.submit()
    await office.turn(3)
    office.run_pods()
    office.server.refuse("PATCH", "vgg16/status", 403, "not today")
    await office.turn()
    assert office.status()["phase"] == "Admitted"
    await office.turn(seconds=RETRY_SECONDS)
    assert office.status()["phase"] == "Running"


async def test_a_template_with_odd_parts_reaches_the_server_whole(office: Office) -> None:
    odd = template(hostIPC=True, resourceClaims=[{"name": "c"}])
    office.submit(roles={"worker": {"replicas": 1, "template": odd}})
    await office.turn(3)
    spec = office.server.of("pods")[0]["spec"]
    assert (spec["hostIPC"], spec["resourceClaims"]) == (True, [{"name": "c"}])
