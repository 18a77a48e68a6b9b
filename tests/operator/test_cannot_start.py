"""A gang of higher priority that cannot start: nobody makes way for it twice, and for what is known before nobody at all."""

from __future__ import annotations

import pytest

from builders.dljobs import Json, container, roles, template
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths

HIGH = "high-worker-0"
WHOLE = roles(workers=1, gpus=4)
IMAGE: Json = {"containerStatuses": [container(waiting={"reason": "ImagePullBackOff", "message": "no such image"})]}


async def running(harness: OperatorHarness) -> None:
    """Let a job of low priority run on the whole cluster."""
    harness.submit("low", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()


async def change_places(harness: OperatorHarness) -> None:
    """Let pods stop, and others take their place."""
    for _ in range(4):
        await harness.turn(seconds=2)
        harness.end_pods()
    await harness.turn(2)


@pytest.mark.parametrize("message", ["serviceaccount no-such not found", "no PriorityClass with name none was found"])
async def test_nobody_makes_way_for_pods_that_the_api_server_rejects(harness: OperatorHarness, message: str) -> None:
    await running(harness)
    harness.submit("high", roles=WHOLE, priority=9)
    harness.server.refuse("POST", "pods?dryRun", 403, f"pods is forbidden: {message}", times=1000)
    for _ in range(20):
        await harness.turn(seconds=60)
    assert (harness.status("low")["phase"], harness.status("low").get("requeues", 0)) == ("Running", 0)
    assert harness.admitted("high") == ("TemplateRejected", f"pods is forbidden: {message}")


async def test_dry_run_is_of_the_pod_as_it_will_be(harness: OperatorHarness) -> None:
    """But for its name, which may be taken, and its node and its attempt, which nobody knows yet."""
    term = {"matchExpressions": [{"key": "pool", "operator": "Exists"}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    harness.node("n3", labels={"pool": "a"})
    own = {"serviceAccountName": "trainer", "priorityClassName": "urgent", "affinity": affinity}
    harness.submit(roles={"worker": {"replicas": 1, "template": template(4, **own)}}, rendezvous="None")
    harness.server.put("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "urgent"}, "value": 5})
    await harness.turn(3)
    (dry,) = (body for method, path, body in harness.server.asked if method == "POST" and "dryRun" in path)
    (made,) = harness.server.of("pods")
    pin = {"key": "metadata.name", "operator": "In"}
    for pod, node in ((dry, "any"), (made, "n3")):
        required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert required == {"nodeSelectorTerms": [{**term, "matchFields": [{**pin, "values": [node]}]}]}
        pod["spec"]["containers"][0]["env"] = [each for each in _env(pod) if each["name"] != "MUSTER_ATTEMPT"]
    assert {**dry["spec"], "affinity": None} == {**made["spec"], "affinity": None}
    assert (dry["spec"]["serviceAccountName"], dry["spec"]["priorityClassName"]) == ("trainer", "urgent")


def _env(pod: Json) -> list[Json]:
    found: list[Json] = pod["spec"]["containers"][0]["env"]
    return found


async def test_gang_whose_image_is_missing_takes_the_place_of_another_once(harness: OperatorHarness) -> None:
    await running(harness)
    harness.submit("high", roles=WHOLE, priority=9)
    await change_places(harness)
    assert harness.status("high")["phase"] == "Admitted"
    harness.change(paths.pods(SPACE, HIGH), spec={"nodeName": "n1"}, status={"phase": "Pending", **IMAGE})
    await change_places(harness)
    harness.run_pods()
    await harness.turn()
    for _ in range(20):
        await harness.turn(seconds=60)
    assert (harness.status("low")["phase"], harness.status("low")["requeues"]) == ("Running", 1)
    assert (harness.status("high")["phase"], harness.admitted("high")[0]) == ("Queued", "InsufficientGPUs")
    assert "no such image" in harness.status("high")["failedStart"]["message"]


async def test_changed_spec_may_preempt_again(harness: OperatorHarness) -> None:
    await test_gang_whose_image_is_missing_takes_the_place_of_another_once(harness)
    harness.change(paths.dljobs(SPACE, "high"), metadata={"generation": 2})
    await change_places(harness)
    assert (harness.status("high")["phase"], harness.status("low")["requeues"]) == ("Admitted", 2)


async def test_gang_whose_pods_were_rejected_after_all_preempts_nobody_again(harness: OperatorHarness) -> None:
    await running(harness)
    harness.submit("high", roles=WHOLE, priority=9)
    await harness.turn(3)
    harness.server.refuse("POST", paths.pods(SPACE), 403, "no pods today", times=1)
    await change_places(harness)
    assert harness.status("high")["failedStart"]["reason"] == "FailedCreate"
    (high,) = (gang for gang in harness.dljobs.gangs() if gang.name.endswith("/high"))
    assert high.start_failed


async def test_job_that_does_not_start_is_set_aside_and_resumed(harness: OperatorHarness) -> None:
    harness.submit("high", roles=WHOLE, startRetries=0)
    await harness.turn(3)
    harness.change(paths.pods(SPACE, HIGH), spec={"nodeName": "n1"}, status={"phase": "Pending", **IMAGE})
    await change_places(harness)
    await harness.turn(3)
    assert harness.status("high")["phase"] == "Suspended"
    assert harness.server.objects[paths.dljobs(SPACE, "high")]["metadata"]["annotations"] == {names.SUSPEND: "true"}
    harness.change(paths.dljobs(SPACE, "high"), metadata={"annotations": {names.SUSPEND: "false"}})
    await harness.turn(4)
    assert harness.status("high")["phase"] == "Admitted"
