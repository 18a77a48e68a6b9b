"""A placement in a status that is not the job's own: it is taken back, and neither its job nor another is stopped by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.dljobs import NOW, Json, after, job, placed, pods_of, roles, started
from builders.operator_harness import SPACE, OperatorHarness
from builders.steps import look, nodes
from muster.api.status import DLJobStatus, TaskPlacement
from muster.kube import paths
from muster.scheduling.topology.links import gpu_set
from muster_operator.dljob.gang import gang_of, held_gang, placement_of
from muster_operator.dljob.job import Job
from muster_operator.dljob.lifecycle import next_step
from muster_operator.dljob.placement_check import misfit
from muster_operator.dljob.status import Record

JOB = paths.dljobs(SPACE, "vgg16")
W0 = "vgg16-worker-0"


def edited(one: Job, **fields: object) -> Job:
    """The job with another first entry of its placement."""

    def change(record: Record) -> None:
        first, *others = record.status.placement
        record.status.placement = [first.model_copy(update=fields), *others]

    return after(one, change)


def without_first(one: Job) -> Job:
    return after(one, lambda record: record.status.placement.pop(0))


def of(uid: str | None) -> Callable[[Record], object]:
    return lambda record: setattr(record.status, "placed_uid", uid)


def scaled(one: Job, workers: int) -> Job:
    """The job once its user has scaled it."""
    return replace(one, spec=job(roles=roles(workers=workers)).spec)


WRONG: dict[str, tuple[Job, str]] = {
    "role": (edited(placed(job()), role="chief"), f"pod '{W0}' has the role chief, which the job does not have"),
    "index": (edited(placed(job()), index=2), f"pod '{W0}' has number 2, and the role worker has 0 to 1"),
    "negative index": (edited(placed(job()), index=-1), "has number -1"),
    "name": (edited(placed(job()), pod="other-worker-0"), f"pod 'other-worker-0' would have to be called {W0}"),
    "twice": (edited(placed(job()), pod="vgg16-worker-1", index=1), "a pod is in it twice"),
    "rank": (edited(placed(job()), rank=7), "its ranks are not those from 0 to 1"),
    "fewer GPUs": (edited(placed(job()), gpus=[0]), f"pod '{W0}' has 1 GPU and asks for 2"),
    "no GPUs": (edited(placed(job()), gpus=[]), "has 0 GPUs and asks for 2"),
    "one GPU twice": (edited(placed(job()), gpus=[1, 1]), "has 1 GPU and asks for 2"),
    "absurd GPU": (edited(placed(job()), gpus=[0, 10**12]), "has a GPU that no node has: 0, 1000000000000"),
    "negative GPU": (edited(placed(job()), gpus=[-1, 0]), "has a GPU that no node has: -1, 0"),
    "no node": (edited(placed(job()), node=""), "is on '', which is no name of a node"),
    "absurd node": (edited(placed(job()), node="../../n1"), "is on '../../n1', which is no name of a node"),
    "long node": (edited(placed(job()), node="n" * 254), "which is no name of a node"),
    "no chief": (without_first(placed(job(roles=roles(chief=1)))), "ranks are not those from 0"),
    "another job": (after(placed(job()), of("uid-before")), "it was made for another job of this name, uid uid-before"),
    "phase": (after(placed(job()), lambda record: setattr(record.status, "phase", "Queued")), "a job in phase Queued has none"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_placement_that_is_not_the_jobs_own_is_taken_back(wrong: str) -> None:
    one, sentence = WRONG[wrong]
    step = next_step(one, [], nodes(), NOW)
    assert step.status is not None
    status = step.status.status
    assert (status.phase, status.placement, step.create) == ("Queued", [], [])
    assert status.timeline[-1].reason == "PlacementInvalid"
    assert sentence in status.message


def test_chief_that_an_earlier_job_of_the_name_did_not_have_is_missed() -> None:
    before = placed(job(roles=roles(workers=1)))
    other = job(roles=roles(workers=1, chief=1))
    restored = after(other, lambda record: setattr(record, "status", before.status.model_copy(update={"placed_uid": None})))
    assert misfit(restored) == "it has 0 of 1 pods of the role chief"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_placement_of_a_job_that_was_scaled_since_is_its_own(workers: int) -> None:
    one = scaled(started(job(roles=roles(workers=3))), workers)
    assert misfit(one) is None


def test_placement_of_an_earlier_version_of_muster_is_the_jobs_own() -> None:
    assert misfit(after(started(job()), of(None))) is None


def test_admitted_gang_has_its_own_placement() -> None:
    one = placed(job(roles=roles(workers=2, chief=1, ps=2, evaluator=1)))
    assert misfit(one) is None
    assert one.status.placed_uid == one.meta.uid


def test_finished_job_holds_nothing_whatever_its_status_says() -> None:
    one = after(started(job()), lambda record: setattr(record.status, "phase", "Succeeded"))
    step = next_step(one, pods_of(one, "Succeeded").values(), nodes(), NOW)
    assert step.status is not None
    assert (step.status.status.phase, step.status.status.placement) == ("Succeeded", [])


ENTRY = st.builds(
    TaskPlacement.model_construct,  # of no schema
    pod=st.text(),
    role=st.sampled_from(["worker", "chief", "ps", "evaluator"]),
    index=st.integers(),
    rank=st.integers(),
    node=st.text(),
    gpus=st.lists(st.integers()),
)
STATUS = st.builds(
    DLJobStatus,
    phase=st.sampled_from([None, "Queued", "Admitted", "Running", "Suspended", "Succeeded", "Failed"]),
    placement=st.lists(ENTRY, min_size=1),
    wanted_replicas=st.none() | st.integers(),
    placed_uid=st.none() | st.text(),
)


@given(STATUS)
def test_no_placement_raises(status: DLJobStatus) -> None:
    one = after(job(), lambda record: setattr(record, "status", status))
    gang = gang_of(one)
    assert all(0 <= assigned.gpus < 2**64 for assigned in gang.placement)
    assert placement_of(one) == gang.placement
    assert held_gang(one) is not None
    step = next_step(one, [], nodes(), NOW)
    assert step.status is not None, "a placement of such texts is nobody's"
    assert step.status.status.placement == []


async def test_restored_placement_stops_nobody_and_its_job_is_planned_anew(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=1, chief=1))
    await harness.turn(3)
    backup: Json = harness.status()
    harness.server.drop(JOB)
    harness.server.drop(paths.services(SPACE, "vgg16"))
    for name in harness.pods():
        harness.server.drop(paths.pods(SPACE, name))
    harness.submit(roles=roles(workers=1), metadata={"uid": "uid-of-the-next"}, status=backup)
    harness.submit("other", roles=roles(workers=1))
    await harness.turn(2)
    assert harness.status("other")["phase"] == "Admitted"
    assert (harness.status()["phase"], harness.admitted()[0]) == ("Queued", "PlacementInvalid")
    assert ("Warning", "vgg16", "PlacementInvalid") in await harness.events()
    await harness.turn(3, seconds=100)
    assert [place["role"] for place in harness.status()["placement"]] == ["worker"]


# Pods that are not where their gang's placement says


def moved(one: Job, **where: Any) -> Job:
    """The job as another operator placed it, under the number of the same attempt."""
    return edited(one, **where)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"node": "n7"}, f"pod {W0} is on node n7, not on n1 as placed"),
        ({"gpus": [2, 3]}, f"pod {W0} on node n1 has the GPUs 2,3, not 0,1 as placed"),
    ],
)
@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_gang_with_a_pod_elsewhere_is_requeued(where: Json, sentence: str, phase: str) -> None:
    one = started(job())
    pods = pods_of(moved(one, **where), phase)
    assert look(one, pods)["status"] == ("Queued", "Requeued", "PodMisplaced")
    step = next_step(one, pods.values(), nodes(), NOW)
    assert step.status is not None
    assert step.status.status.message == sentence


def test_pod_that_has_done_its_part_elsewhere_is_let_be() -> None:
    one = started(job())
    pods = {**pods_of(one), W0: pods_of(moved(one, node="n7"), "Succeeded")[W0]}
    assert look(one, pods)["status"] == ("Running", "Running", "GangRunning")


def test_unbound_pod_is_not_elsewhere() -> None:
    one = placed(job())
    assert "status" not in look(one, pods_of(one, "Pending", bound=False))


def test_gpus_of_a_placement_are_a_set_of_their_indices() -> None:
    one = placed(job())
    assert [assigned.gpus for assigned in placement_of(one)] == [gpu_set(place.gpus) for place in one.status.placement]
