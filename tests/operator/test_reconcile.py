"""Single jobs: templates are checked, what life asks for is carried out, a refusal is told in the server's words."""

from __future__ import annotations

import pytest

from builders.dljobs import NOW, Json, roles, template, time
from builders.operator_harness import NODE_LOSS_GRACE, SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.dljob import manifests
from muster_operator.dljob.resources import SERVICES
from muster_operator.dljob.template_check import CHECK_AGAIN_SECONDS
from muster_operator.work_queue import RETRY_SECONDS

W0, W1 = "vgg16-worker-0", "vgg16-worker-1"
JOB = paths.dljobs(SPACE, "vgg16")
PODS = paths.pods(SPACE)
TRY = f"POST {PODS}?dryRun"


def timeline(harness: OperatorHarness) -> list[str]:
    return [event["event"] for event in harness.status()["timeline"]]


async def test_job_goes_through_its_whole_life(harness: OperatorHarness) -> None:
    harness.submit(rendezvous="ParameterServer", roles=roles(ps=1))
    await harness.turn()
    assert harness.server.writes("POST")[:2] == [TRY, TRY]
    assert (harness.pods(), "phase" in harness.status()) == ([], False)
    await harness.turn()
    assert harness.status()["phase"] == "Admitted"
    await harness.turn()
    assert harness.pods() == ["vgg16-ps-0", W0, W1]
    assert len(harness.server.of("services")) == 1
    harness.run_pods()
    await harness.turn()
    assert harness.status()["phase"] == "Running"
    harness.change(paths.pods(SPACE, W0), status={"phase": "Succeeded"})
    await harness.turn()
    assert harness.status()["phase"] == "Running"
    harness.change(paths.pods(SPACE, W1), status={"phase": "Succeeded"})
    await harness.turn(2)
    assert (harness.status()["phase"], harness.status()["placement"], harness.server.of("services")) == ("Succeeded", [], [])
    assert names.STOP_AT in harness.metadata("vgg16-ps-0")["annotations"]
    await harness.turn(seconds=2)
    harness.end_pods()
    await harness.turn()
    assert harness.pods() == [W0, W1]
    assert timeline(harness) == ["Queued", "Admitted", "Running", "Succeeded"]
    done = len(harness.server.asked)
    await harness.turn(3, seconds=100)
    assert len(harness.server.asked) == done
    assert ("Normal", "vgg16", "GangRunning") in await harness.events()


async def test_pods_come_after_the_reservation_and_the_service(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    writes = [w for w in harness.server.writes() if "events" not in w and "?dryRun" not in w]
    assert writes == [f"PATCH {JOB}/status", f"POST {paths.services(SPACE)}", f"POST {PODS}", f"POST {PODS}"]


async def test_job_is_suspended_and_resumed(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.change(
        paths.pods(SPACE, W1), metadata={"annotations": {**harness.metadata(W1)["annotations"], names.SUSPEND: "true"}}
    )
    await harness.turn(3)
    assert harness.server.objects[JOB]["metadata"]["annotations"] == {names.SUSPEND: "true"}
    assert harness.metadata(W0)["annotations"][names.STOP_AT] == time(NOW + 1)
    await harness.turn(seconds=1.5)
    assert {harness.metadata(name).get("deletionTimestamp") for name in (W0, W1)} == {time(NOW)}
    harness.end_pods()
    await harness.turn(2)
    assert (harness.status()["phase"], harness.pods()) == ("Suspended", [])
    harness.change(JOB, metadata={"annotations": {names.SUSPEND: "false"}})
    await harness.turn(3)
    assert (harness.status()["phase"], harness.status()["attempt"], harness.pods()) == ("Admitted", 2, [W0, W1])


async def test_job_is_removed_after_its_time_to_live(harness: OperatorHarness) -> None:
    harness.submit(status={"phase": "Failed", "finishedAt": time(NOW)}, ttlSecondsAfterFinished=60)
    await harness.turn(2)
    assert JOB in harness.server.objects
    assert harness.later() == NOW + 60
    await harness.turn(seconds=60)
    assert JOB not in harness.server.objects
    assert harness.server.asked[-1][2]["propagationPolicy"] == "Background"


async def test_pods_on_a_lost_node_are_deleted_without_grace(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    on = {pod["spec"]["nodeName"] for pod in harness.server.of("pods")}
    for node in on:
        harness.node(node, ready=False)
    await harness.turn(2)
    assert harness.status()["phase"] == "Running"
    await harness.turn(2, seconds=NODE_LOSS_GRACE)
    assert harness.pods() == []
    assert (harness.status()["phase"], harness.admitted()[0]) == ("Queued", "NodeLost")


# Templates


@pytest.mark.parametrize("code", [422, 400])
async def test_invalid_template_fails_the_job(harness: OperatorHarness, code: int) -> None:
    harness.submit(roles=roles(ps=1), rendezvous="ParameterServer")
    harness.server.refuse("POST", "pods?dryRun", code, 'Pod "x" is invalid: spec.containers[0].image: Required value')
    await harness.turn(3)
    status = harness.status()
    assert (status["phase"], status["timeline"][-1]["reason"]) == ("Failed", "InvalidTemplate")
    assert status["message"] == 'roles.worker.template: Pod "x" is invalid: spec.containers[0].image: Required value'
    assert ("Warning", "vgg16", "InvalidTemplate") in await harness.events()
    assert harness.server.writes("POST").count(TRY) <= 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"spec": {**template()["spec"], "nodeSelectr": {"pool": "a"}}}, "spec.nodeSelectr"),
        ({"metadata": {"lables": {"team": "a"}}}, "metadata.lables"),
        ({"annotations": {"team": "a"}}, "annotations"),
    ],
)
async def test_unknown_field_of_a_template_fails_the_job(harness: OperatorHarness, change: Json, field: str) -> None:
    evaluator = {"template": {**template(0), **change}}
    harness.submit(rendezvous="None", roles={**roles(), "evaluator": evaluator})
    await harness.turn(4)
    status = harness.status()
    assert (status["phase"], harness.pods()) == ("Failed", [])
    assert status["message"].startswith("roles.evaluator.template: ")
    assert status["message"].endswith(f'unknown field "{field}"')


async def test_metadata_that_a_template_has_in_vain_is_not_refused(harness: OperatorHarness) -> None:
    idle = {"name": "x", "namespace": "other", "creationTimestamp": None, "resourceVersion": "7"}
    harness.submit(roles={"worker": {"replicas": 1, "template": {**template(), "metadata": idle}}})
    await harness.turn(3)
    assert harness.pods() == [W0]


@pytest.mark.parametrize("code", [403, 409])
async def test_rejected_template_is_tried_again(harness: OperatorHarness, code: int) -> None:
    words = "failed quota: team: must specify cpu for: train"
    harness.server.refuse("POST", "pods?dryRun", code, words, times=3)
    harness.submit()
    await harness.turn(4)
    assert (harness.status()["phase"], harness.admitted()) == ("Queued", ("TemplateRejected", words))
    assert harness.later() == NOW + CHECK_AGAIN_SECONDS
    tried = harness.server.writes("POST").count(TRY)
    await harness.turn(3, seconds=1)
    assert harness.server.writes("POST").count(TRY) == tried  # not again before its time
    for _ in range(3):
        await harness.turn(2, seconds=CHECK_AGAIN_SECONDS)
    assert harness.status()["phase"] == "Admitted"


async def test_rejected_pod_has_the_same_name_each_time(harness: OperatorHarness) -> None:
    """The API server's message has the name; another message would change the status, and so cause the next try at once."""
    harness.server.refuse("POST", "pods?dryRun", 403, "failed quota: team: must specify cpu for: train", times=3)
    harness.submit()
    await harness.turn(3)
    await harness.turn(2, seconds=CHECK_AGAIN_SECONDS)
    tried = [body["metadata"] for _, path, body in harness.server.asked if path.endswith("?dryRun")]
    assert len(tried) >= 3
    assert {meta.get("name") for meta in tried} == {f"{W0}-{harness.job().meta.uid[:8]}"}


async def test_server_error_says_nothing_about_a_template(harness: OperatorHarness) -> None:
    harness.submit()
    harness.server.refuse("POST", "pods?dryRun", 500, "etcd is away")
    await harness.turn()
    assert (harness.status(), harness.later()) == ({}, NOW + RETRY_SECONDS)
    await harness.turn(2, seconds=RETRY_SECONDS)
    assert harness.status()["phase"] == "Admitted"


async def test_one_pod_of_each_role_is_tried_on_no_particular_node(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=3, ps=2), rendezvous="ParameterServer")
    await harness.turn()
    tried = [body for _, path, body in harness.server.asked if path.endswith("?dryRun")]
    suffix = harness.job().meta.uid[:8]  # a name may still be taken
    assert [body["metadata"]["name"] for body in tried] == [f"{W0}-{suffix}", f"vgg16-ps-0-{suffix}"]
    assert not harness.work_queue.in_flight
    await harness.turn(3)
    assert len([path for _, path, _ in harness.server.asked if path.endswith("?dryRun")]) == 2


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
async def test_only_new_jobs_are_checked(harness: OperatorHarness, fields: Json, checked: bool) -> None:
    harness.submit(**fields)
    harness.sync()
    await harness.look()
    assert (TRY in harness.server.writes()) is checked


@pytest.mark.parametrize(
    ("reason", "checked"),
    [("InsufficientGPUs", False), ("TemplateRejected", True), ("TemplateRefused", True), ("Resumed", True)],
)
async def test_reason_in_the_status_tells_whether_a_job_was_checked(
    harness: OperatorHarness, reason: str, checked: bool
) -> None:
    """The API server's consent is not written down: that the planner has spoken of a job tells that it was given."""
    told = {"type": "Admitted", "status": "False", "reason": reason, "lastTransitionTime": time(NOW)}
    harness.submit(status={"phase": "Queued", "conditions": [told]})
    harness.sync()
    await harness.look()
    assert (TRY in harness.server.writes()) is checked
    assert harness.dljobs.check.has_passed(harness.job())


# Creation refused


@pytest.mark.parametrize("code", [403, 422, 500])
async def test_gang_with_a_rejected_pod_is_requeued(harness: OperatorHarness, code: int) -> None:
    words = "exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9"
    harness.submit()
    await harness.turn(2)
    harness.server.refuse("POST", "pods", code, words)
    await harness.turn()
    assert (harness.status()["placement"], harness.admitted()) == ([], ("FailedCreate", words))
    assert (harness.status()["requeues"], harness.status().get("restarts", 0)) == (1, 0)
    assert ("Warning", "vgg16", "FailedCreate") in await harness.events()
    await harness.turn()
    assert harness.pods() == []  # what was created of it goes again
    await harness.turn(3, seconds=2)
    assert (harness.status()["phase"], harness.pods()) == ("Admitted", [W0, W1])


async def test_gang_with_a_rejected_service_is_requeued(harness: OperatorHarness) -> None:
    harness.submit()
    harness.server.refuse("POST", "services", 403, "no Services here")
    await harness.turn(3)
    assert (harness.pods(), harness.admitted()) == ([], ("FailedCreate", "no Services here"))


async def test_own_service_that_the_watch_has_not_brought_is_adopted(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(2)
    harness.server.put(paths.services(SPACE), manifests.service(harness.job()))
    await harness.look()
    assert (harness.pods(), harness.status()["phase"]) == ([W0, W1], "Admitted")
    assert harness.stores.of(SERVICES).get("vision/vgg16") is not None


async def test_write_that_fails_is_tried_again(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.run_pods()
    harness.server.refuse("PATCH", "vgg16/status", 403, "not today")
    await harness.turn()
    assert harness.status()["phase"] == "Admitted"
    await harness.turn(seconds=RETRY_SECONDS)
    assert harness.status()["phase"] == "Running"


async def test_unusual_fields_of_a_template_reach_the_server(harness: OperatorHarness) -> None:
    odd = template(hostIPC=True, resourceClaims=[{"name": "c"}])
    harness.submit(roles={"worker": {"replicas": 1, "template": odd}})
    await harness.turn(3)
    spec = harness.server.of("pods")[0]["spec"]
    assert (spec["hostIPC"], spec["resourceClaims"]) == (True, [{"name": "c"}])


# A start that fails

MOUNTING: Json = {"containerStatuses": [{"name": "train", "state": {"waiting": {"reason": "ContainerCreating"}}}]}


def warning(reason: str, message: str, seconds: float) -> Json:
    return {"metadata": {"name": reason}, "reason": reason, "message": message, "lastTimestamp": time(NOW + seconds)}


@pytest.mark.parametrize("read", [True, False])
async def test_start_that_fails_in_silence_is_explained_by_the_newest_event(harness: OperatorHarness, read: bool) -> None:
    """The kubelet says in Events alone why it cannot mount a volume; where they cannot be read the rest is said."""
    if read:
        said = [warning("FailedMount", 'configmap\n"x" not found.', 2), warning("FailedScheduling", "no node", 1)]
        harness.server.objects[paths.events(SPACE)] = {"metadata": {"resourceVersion": "1"}, "items": said}
    harness.submit(startDeadlineSeconds=20)
    await harness.turn(3)
    harness.run_pods("Pending")
    for pod in (W0, W1):
        harness.change(paths.pods(SPACE, pod), status=MOUNTING)
    await harness.turn(seconds=20)
    cause = '; FailedMount configmap "x" not found' if read else ""
    message = f"pod {W0} on node n1 has not started within 20 s, like 1 other: container train: ContainerCreating{cause}"
    status = harness.status()
    assert harness.admitted() == ("StartDeadlineExceeded", message)
    assert [status["message"], status["timeline"][-1]["message"], status["failedStart"]["message"]] == [message] * 3
