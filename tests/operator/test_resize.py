"""A running gang in another size: what the API server would refuse changes nothing, and pods that may stay go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from builders.api_server import failure
from builders.dljobs import NOW, Json, changed, job, pods_of, roles, started, template, time
from builders.operator_harness import SPACE, OperatorHarness
from builders.steps import look
from muster.api import names
from muster.kube import paths
from muster.scheduling.gang import renumbered
from muster_operator.dljob.gang import placement_of
from muster_operator.dljob.job import Job
from muster_operator.dljob.resize_check import ASK_AGAIN_SECONDS, together
from muster_operator.dljob.status import Record

JOB = paths.dljobs(SPACE, "vgg16")
W0, W1, W2 = (f"vgg16-worker-{index}" for index in range(3))
QUOTA = "exceeded quota: gpus, requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=4, limited: 4"


async def running(harness: OperatorHarness, **fields: Any) -> dict[str, str]:
    """A job of two workers that runs; return the uid of each pod."""
    harness.submit(**fields)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    assert harness.status()["phase"] == "Running"
    return uids(harness)


def uids(harness: OperatorHarness) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in harness.server.of("pods")}


def scale(harness: OperatorHarness, workers: int) -> None:
    body = harness.server.objects[JOB]
    generation = body["metadata"]["generation"] + 1
    harness.change(JOB, metadata={"generation": generation}, spec={"roles": roles(workers=workers)})


# What the API server would refuse


@pytest.mark.parametrize("code", [400, 403, 422])
async def test_gang_goes_on_where_the_new_size_is_refused(harness: OperatorHarness, code: int) -> None:
    before = await running(harness)
    harness.server.refuse("POST", "pods?dryRun", code, QUOTA, times=1000)
    scale(harness, 3)
    await harness.turn(4)
    status = harness.status()
    assert (status["phase"], status["attempt"], uids(harness)) == ("Running", 1, before)
    assert status["message"] == f"keeps its size: {QUOTA}"
    assert harness.admitted() == ("ResizeRefused", status["message"])
    assert ("Normal", "vgg16", "ResizeRefused") in await harness.events()
    tried = harness.server.asked[-1]
    await harness.turn(4, seconds=1)
    assert harness.server.asked[-1] == tried, "it is not tried at every plan"
    assert harness.work_queue.plan_at <= NOW + ASK_AGAIN_SECONDS

    harness.server.refusals.clear()
    await harness.turn(2, seconds=ASK_AGAIN_SECONDS)
    assert (harness.status()["attempt"], harness.status()["replicas"]) == (2, 3)


async def test_gang_goes_on_where_the_sum_of_the_new_pods_is_refused(harness: OperatorHarness) -> None:
    """Each of them alone would be created."""
    before = await running(harness)

    def at_most_two_more(method: str, path: str, body: Json) -> web.Response | None:
        if method != "POST" or not path.endswith("dryRun"):
            return None
        asked = sum(each["resources"]["limits"][names.GPU] for each in body["spec"]["containers"])
        return failure(403, QUOTA, "Forbidden") if asked > 2 else None

    harness.server.refusals.append(at_most_two_more)
    scale(harness, 4)
    await harness.turn(3)
    assert (harness.status()["message"], uids(harness)) == (f"keeps its size: {QUOTA}", before)
    scale(harness, 3)
    await harness.turn(2)
    assert harness.status()["attempt"] == 2


async def test_gang_goes_on_where_another_pod_has_a_new_name(harness: OperatorHarness) -> None:
    before = await running(harness)
    harness.pod(W2, 0, gated=False, node="n1", metadata={"labels": {}})
    scale(harness, 3)
    await harness.turn(3)
    assert harness.status()["message"].startswith(f"keeps its size: Pod vision/{W2} exists and is not this job's")
    assert {name: uid for name, uid in uids(harness).items() if name != W2} == before


async def test_job_that_is_scaled_back_is_as_before(harness: OperatorHarness) -> None:
    await running(harness)
    harness.server.refuse("POST", "pods?dryRun", 403, QUOTA, times=1000)
    scale(harness, 3)
    await harness.turn(3)
    scale(harness, 2)
    await harness.turn(3)
    assert (harness.status()["message"], harness.admitted()[0]) == ("2 pods running, the whole gang", "Placed")


async def test_smaller_size_needs_no_consent(harness: OperatorHarness) -> None:
    await running(harness)
    harness.server.refuse("POST", "pods?dryRun", 403, QUOTA, times=1000)
    scale(harness, 1)
    await harness.turn(2)
    assert harness.status()["attempt"] == 2


def test_pods_together_ask_for_what_each_asks_for() -> None:
    container = {"name": "train", "image": "x", "ports": [{"hostPort": 1}], "resources": {"limits": {names.GPU: 2}}}
    asked = together({"spec": {"containers": [container]}}, 3)["spec"]["containers"]
    assert len({each["name"] for each in asked}) == 3
    assert [each["resources"] for each in asked] == [container["resources"]] * 3
    assert ["ports" in each for each in asked] == [True, False, False]


# Pods that stay


def resized(before: Job, **fields: Any) -> Job:
    """The job with another placement, in which its pods are where they were."""
    now = job(**fields)
    placement = placement_of(before)
    record = Record(replace(now, status=before.status), NOW)
    wanted = {f"vgg16-{role}-{index}" for role, count in now.replicas.items() for index in range(count)}
    record.admit(renumbered(assigned for assigned in placement if assigned.task.name in wanted), "Resized", "")
    return replace(now, status=record.status)


def mpi(workers: int) -> Json:
    return {"rendezvous": "MPI", "roles": {**roles(workers=workers), "chief": {"template": template(gpus=0)}}}


def test_pods_without_a_rendezvous_stay_where_they_are() -> None:
    before = started(job(rendezvous="None", roles=roles(workers=3)))
    gang = resized(before, rendezvous="None", roles=roles(workers=2))
    pods = pods_of(before)
    taken_over = {names.ATTEMPT: "2", names.RANK: "0", names.GPUS: "0,1"}
    answer = look(gang, pods)
    assert answer["notice"][W0] == taken_over
    assert set(answer["notice"]) == {W0, W1, W2}
    assert names.STOP_AT in answer["notice"][W2]
    assert "delete" not in answer
    stayed = {name: changed(pods[name], annotations={names.ATTEMPT: "2"}) for name in (W0, W1)}
    assert look(gang, stayed) == {"service": False, "status": ("Running", "Running", "GangRunning")}


@pytest.mark.parametrize("rendezvous", ["Torchrun", "MPI"])
def test_pods_that_know_the_size_from_their_start_are_created_again(rendezvous: str) -> None:
    before = started(job(rendezvous=rendezvous, roles=roles(workers=3)))
    gang = resized(before, rendezvous=rendezvous, roles=roles(workers=2))
    answer = look(gang, pods_of(before))
    assert all(names.STOP_AT in notice for notice in answer["notice"].values())
    assert set(answer["notice"]) == {W0, W1, W2}


def test_workers_of_an_mpi_launcher_stay_with_a_new_hostfile() -> None:
    before = started(job(**mpi(3)))
    gang = resized(before, **mpi(2))
    notices = look(gang, pods_of(before))["notice"]
    assert {name for name, notice in notices.items() if names.STOP_AT in notice} == {"vgg16-chief-0", W2}
    assert notices[W0][names.ATTEMPT] == "2"
    assert notices[W0][names.HOSTFILE].count("slots") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"leaving": True},
        {"annotations": {names.GPUS: "1,2"}},
        {"annotations": {names.RANK: "5"}},
        {"annotations": {names.STOP_AT: time(NOW)}},
    ],
)
def test_pod_that_is_not_as_placed_does_not_stay(change: Json) -> None:
    before = started(job(rendezvous="None", roles=roles(workers=2)))
    gang = resized(before, rendezvous="None", roles=roles(workers=1))
    pods = {W0: changed(pods_of(before)[W0], **change)}
    assert names.ATTEMPT not in look(gang, pods).get("notice", {}).get(W0, {})
