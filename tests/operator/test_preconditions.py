"""Every write carries a precondition: what was decided about one version of an object never lands in another."""

from __future__ import annotations

from typing import Any

import pytest

from builders.dljobs import Json, roles
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster.kube.errors import Conflict
from muster.kube.objects import Meta
from muster.scheduling.decisions import Place, Reason, Requeue, Wait
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster_operator.controller import News
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.planning import executors
from muster_operator.planning.snapshot import Snapshots
from muster_operator.resources import PODS
from muster_operator.work_queue import NEWS_SECONDS

JOB = paths.dljobs(SPACE, "vgg16")


def preconditions(harness: OperatorHarness) -> list[Json]:
    """What each patch and each deletion so far was to hold for."""
    found = [(method, body) for method, _, body in harness.server.asked if method in ("PATCH", "DELETE")]
    return [body["metadata"] if method == "PATCH" else body["preconditions"] for method, body in found]


def replaced(harness: OperatorHarness, **fields: Any) -> None:
    """Delete the job, and create another one of its name at once, as `kubectl replace --force` does."""
    harness.server.drop(JOB)
    harness.submit(metadata={"uid": "uid-of-the-next"}, **fields)


async def warnings(harness: OperatorHarness) -> list[str]:
    return [reason for kind, _, reason in await harness.events() if kind == "Warning"]


async def test_whole_life_of_gangs_is_written_with_preconditions(harness: OperatorHarness) -> None:
    harness.submit(ttlSecondsAfterFinished=10)
    harness.pod("p0", gang="g", size=2)
    harness.pod("p1", gang="g", size=2)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.change(JOB, metadata={"annotations": {names.SUSPEND: "true"}})
    await harness.turn(4, seconds=2)
    harness.end_pods()
    harness.change(JOB, metadata={"annotations": {}})
    await harness.turn(4)
    harness.run_pods("Succeeded")
    await harness.turn(4, seconds=20)
    assert JOB not in harness.server.objects
    assert {method for method, *_ in harness.server.asked} == {"POST", "PATCH", "DELETE"}
    assert all("uid" in each or "resourceVersion" in each for each in preconditions(harness))
    assert f"DELETE {JOB}" in harness.server.writes("DELETE")
    assert await warnings(harness) == []


async def test_placement_of_a_deleted_job_does_not_land_in_the_next_of_its_name(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=1, chief=1))
    harness.sync()
    await harness.look()
    snapshot = Snapshots(harness.stores.view, harness.controllers, harness.context.reporter).take()
    (gang,) = snapshot.gangs
    placement = find(gang, FreeCapacity(snapshot.nodes))
    assert placement is not None
    replaced(harness, roles=roles(workers=1))
    harness.sync()  # the watch is quick: the store has the next job before the decision is written
    decided = [Place(gang, placement, Reason.PLACED, "2 pods on one node")]
    harness.work_queue.begin_plan()
    await executors.carry_out(harness.context, harness.controllers, decided, snapshot, harness.now)
    assert harness.server.objects[JOB]["status"] is None
    assert harness.work_queue.plan_at <= harness.now + NEWS_SECONDS
    assert await warnings(harness) == []
    await harness.turn(2)
    assert [place["role"] for place in harness.status()["placement"]] == ["worker"]


async def test_decision_follows_upon_another_of_the_same_plan(harness: OperatorHarness) -> None:
    """The version that the first made is the second's precondition: what comes in between is not overwritten."""
    harness.submit(roles=roles(workers=1, gpus=4))
    await harness.turn(2)
    snapshot = Snapshots(harness.stores.view, harness.controllers, harness.context.reporter).take()
    (gang,) = snapshot.gangs
    decided = (Requeue(gang, Reason.TIME_SLICED, "another ranks first"), Place(gang, gang.placement, Reason.PLACED, "again"))
    await executors.carry_out(harness.context, harness.controllers, decided, snapshot, harness.now)
    versions = [each["resourceVersion"] for each in preconditions(harness)]
    assert (harness.status()["attempt"], len(versions)) == (2, len(set(versions)))


async def test_wish_is_met_upon_the_placement_that_meets_it(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=1, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.change(JOB, metadata={"annotations": {names.MIGRATE: ""}})
    await harness.turn()
    assert harness.status()["attempt"] == 2
    assert names.MIGRATE not in harness.server.objects[JOB]["metadata"]["annotations"]
    assert await warnings(harness) == []


async def test_reason_for_waiting_is_not_told_to_another_job(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=9, gpus=4))
    harness.sync()
    await harness.look()
    (gang,) = Snapshots(harness.stores.view, harness.controllers, harness.context.reporter).take().gangs
    replaced(harness)
    wait = Wait(gang, Reason.NEVER_FITS, "needs 36 GPUs")
    harness.planning.telling.hear([wait], harness.now)
    await harness.idle()
    assert harness.server.objects[JOB]["status"] is None
    assert harness.work_queue.plan_at <= harness.now + NEWS_SECONDS
    harness.sync()
    assert harness.dljobs.news(wait) is News.NONE
    assert await warnings(harness) == []


async def test_pod_that_was_created_again_is_not_ungated_for_the_one_before(harness: OperatorHarness) -> None:
    for name in ("p0", "p1"):
        harness.pod(name, 1, gang="g", size=2)
    harness.sync()
    await harness.external_pods.prepare(harness.now)
    snapshot = Snapshots(harness.stores.view, harness.controllers, harness.context.reporter).take()
    (gang,) = snapshot.gangs
    placement = find(gang, FreeCapacity(snapshot.nodes))
    assert placement is not None
    harness.server.drop(paths.pods(SPACE, "p1"))
    harness.pod("p1", 4, gang="g", size=2, metadata={"uid": "uid-of-the-next"})
    harness.sync()
    decided = [Place(gang, placement, Reason.PLACED, "2 pods on one node")]
    await executors.carry_out(harness.context, harness.controllers, decided, snapshot, harness.now)
    assert names.GPUS not in harness.metadata("p1")["annotations"]
    assert harness.server.objects[paths.pods(SPACE, "p1")]["spec"]["schedulingGates"]


async def test_conflict_of_one_pod_is_tried_again_without_a_word(harness: OperatorHarness) -> None:
    """The kubelet wrote the pod's status meanwhile, which does not concern its job: no news bring the job on."""
    harness.submit(roles=roles(workers=1))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.change(JOB, metadata={"annotations": {names.SUSPEND: "true"}})
    harness.sync()
    await harness.look()
    harness.change(paths.pods(SPACE, "vgg16-worker-0"), status={"qosClass": "BestEffort"})
    harness.sync(but="pods")
    await harness.look()
    assert names.STOP_AT not in harness.metadata("vgg16-worker-0")["annotations"]
    assert harness.later() == harness.now + NEWS_SECONDS
    await harness.turn(seconds=NEWS_SECONDS)
    assert names.STOP_AT in harness.metadata("vgg16-worker-0")["annotations"]
    assert await warnings(harness) == []


async def test_conflict_on_creating_a_pod_does_not_requeue_the_gang(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=1))
    await harness.turn(2)
    message = "Operation cannot be fulfilled on resourcequotas: the object has been modified"
    harness.server.refuse("POST", "/pods", 409, message, reason="Conflict")
    await harness.turn()
    assert (harness.pods(), harness.status()["phase"]) == ([], "Admitted")
    await harness.turn(seconds=NEWS_SECONDS)
    assert harness.pods() == ["vgg16-worker-0"]


async def test_expired_job_that_was_changed_meanwhile_stays(harness: OperatorHarness) -> None:
    harness.submit(ttlSecondsAfterFinished=10, status={"phase": "Succeeded", "finishedAt": "2020-01-01T00:00:00Z"})
    harness.sync()
    harness.change(JOB, metadata={"annotations": {"keep": "me"}})
    await harness.look()
    assert JOB in harness.server.objects
    await harness.turn()
    assert JOB not in harness.server.objects


async def test_object_that_was_never_read_cannot_be_written(harness: OperatorHarness) -> None:
    writer, unread = harness.context.api_writer, Meta("vgg16", namespace=SPACE, uid="uid-vgg16")
    for write in (
        writer.annotate(DLJOBS, unread, {"a": "b"}),
        writer.patch_status(DLJOBS, unread, {"phase": "Queued"}),
        writer.delete_unchanged(PODS, unread),
    ):
        with pytest.raises(ValueError, match="vision/vgg16 was not read from the API server"):
            await write
    assert harness.server.asked == []


async def test_answer_is_the_precondition_of_the_next_write(harness: OperatorHarness) -> None:
    harness.submit()
    harness.sync()
    writer, before = harness.context.api_writer, harness.job().meta
    annotated = await writer.annotate(DLJOBS, before, {"a": "b"})
    assert annotated is not None
    assert await writer.patch_status(DLJOBS, annotated.metadata, {"phase": "Queued"}) is not None
    with pytest.raises(Conflict):
        await writer.patch_status(DLJOBS, before, {"phase": "Running"})
    assert harness.status() == {"phase": "Queued"}
