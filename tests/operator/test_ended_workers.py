"""Workers that end before the others: they are not counted as running, and where nobody needs them their GPUs are free."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from builders.dljobs import NOW, Json, after, job, pod_of, pods_of, roles, started
from builders.operator_harness import SPACE, OperatorHarness
from builders.steps import look, step_of
from muster.allocation.view import ClusterView
from muster.kube import paths
from muster.kube.objects import DLJob, Pod
from muster_operator.dljob.gang import gang_of
from muster_operator.dljob.job import Job
from muster_operator.dljob.placement_check import misfit

W0, W1, W2 = (f"vgg16-worker-{index}" for index in range(3))
ALONE: Json = {"rendezvous": "None"}
JOB = paths.dljobs(SPACE, "vgg16")


def one_ended(gang: Job, index: int = 0) -> dict[str, Pod]:
    """The pods of a running gang of which one has succeeded."""
    place = gang.status.placement[index]
    return {**pods_of(gang), place.pod: pod_of(gang, place, "Succeeded")}


def told(gang: Job, pods: dict[str, Pod], at: float = NOW) -> Job:
    """The job once its next step is written."""
    record = step_of(gang, pods, now=at).status
    assert record is not None
    return replace(gang, status=record.status)


@pytest.mark.parametrize(
    ("rendezvous", "freed"), [("None", True), ("ParameterServer", True), ("Torchrun", False), ("MPI", False)]
)
def test_worker_that_has_ended_is_not_counted_as_running(rendezvous: str, freed: bool) -> None:
    gang = started(job(rendezvous=rendezvous))
    pods = one_ended(gang)
    after_it = told(gang, pods, NOW + 100)
    status = after_it.status
    assert (status.phase, status.message) == ("Running", "1 of 2 pods running, 1 ended")
    assert next(each.message for each in status.conditions if each.type == "Running") == status.message
    assert (status.placement[0].ended, status.placement[0].gpus) == ((True, []) if freed else (None, [0, 1]))
    assert (status.gpus, gang_of(after_it).held) == ((2, 2) if freed else (4, 4))
    assert status.gpu_seconds == (200 if freed else 0), "what it had is counted when it ends"
    assert misfit(after_it) is None
    assert look(after_it, pods, now=NOW + 200) == {"service": rendezvous != "None"}


def test_ended_worker_may_be_deleted_and_is_not_made_anew() -> None:
    gang = started(job(**ALONE))
    pods = one_ended(gang)
    gang = told(gang, pods)
    del pods[W0]
    assert look(gang, pods) == {"service": False}
    pods[W1] = pod_of(gang, gang.status.placement[1], "Succeeded")
    assert look(gang, pods) == {"status": ("Succeeded", "Succeeded", "Completed")}


def test_operator_and_extender_hold_nothing_for_an_ended_worker() -> None:
    gang = told(started(job(**ALONE)), one_ended(started(job(**ALONE))))
    status = json.dumps(gang.status.model_dump(mode="json", by_alias=True, exclude_none=True))
    meta = {"name": "vgg16", "namespace": "vision", "uid": "uid-vgg16", "resourceVersion": "2"}
    read = msgspec.json.decode(f'{{"metadata": {json.dumps(meta)}, "status": {status}}}', type=DLJob)
    for seen in (gang, read):
        view = ClusterView()
        view.reservations.put("vision/vgg16", seen)
        assert sum(each.gpus.bit_count() for each in view.reservations.values()) == 2


def test_gang_that_is_requeued_starts_again_as_a_whole() -> None:
    gang = told(started(job(**ALONE)), one_ended(started(job(**ALONE))))
    pods = {**one_ended(gang), W1: pod_of(gang, gang.status.placement[1], "Failed")}
    assert look(gang, pods)["status"] == ("Queued", "Restarting", "PodFailed")
    again = told(gang, pods)
    assert [task.name for task in gang_of(again).tasks] == [W0, W1]


def test_change_of_the_gang_keeps_the_ranks_and_does_not_start_an_ended_worker_again() -> None:
    gang = started(job(**ALONE, roles=roles(workers=3)), ["n1"])
    pods = one_ended(gang, 1)
    gang = told(gang, pods)
    planned = gang_of(gang)
    assert [task.name for task in planned.tasks] == [W0, W2]
    renumbered = tuple(each._replace(rank=rank) for rank, each in enumerate(planned.placement))
    moved = after(gang, lambda record: record.admit(renumbered, "Resized", "is resized"))
    assert [(place.pod, place.rank, place.ended) for place in moved.status.placement] == [
        (W0, 0, None),
        (W1, 1, True),
        (W2, 2, None),
    ]
    assert misfit(moved) is None
    answer = look(moved, pods)
    assert set(answer) == {"notice"}, "the ended pod stays for its log, the others run on"


@pytest.mark.parametrize("workers", [2, 4])
async def test_gang_with_an_ended_worker_is_resized(harness: OperatorHarness, workers: int) -> None:
    harness.submit(roles=roles(workers=3), **ALONE)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.change(paths.pods(SPACE, W0), status={"phase": "Succeeded"})
    await harness.turn(2)
    before = {pod: harness.metadata(pod)["uid"] for pod in (W0, W1)}
    generation = harness.server.objects[JOB]["metadata"]["generation"] + 1
    harness.change(JOB, metadata={"generation": generation}, spec={"roles": roles(workers=workers)})
    for _ in range(6):
        await harness.turn(seconds=2)
        harness.end_pods()
    assert (harness.status()["attempt"], harness.status().get("requeues", 0)) == (2, 0)
    assert [place.get("ended") for place in harness.status()["placement"]].count(True) == 1
    assert {pod: harness.metadata(pod)["uid"] for pod in (W0, W1)} == before
    assert len(harness.pods()) == workers


async def test_gpus_of_an_ended_worker_go_to_the_next_gang(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=2, gpus=4), **ALONE)
    await harness.turn(3)
    harness.submit("next", roles=roles(workers=1, gpus=4))
    harness.run_pods()
    await harness.turn(2)
    assert harness.status("next")["phase"] == "Queued"
    harness.change(paths.pods(SPACE, W0), status={"phase": "Succeeded"})
    await harness.turn(4, seconds=1)
    assert (harness.status("next")["phase"], harness.status()["phase"]) == ("Admitted", "Running")
