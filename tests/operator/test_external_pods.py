"""Pods that muster did not create: ungated as gangs, told why they wait."""

from __future__ import annotations

import json

import pytest

from builders.dljobs import Json, roles
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.external_pods.controller import ExternalPods
from muster_operator.work_queue import RETRY_SECONDS


def notes(harness: OperatorHarness, pod: str) -> Json:
    found: Json = harness.metadata(pod)["annotations"]
    return found


def gated(harness: OperatorHarness) -> list[str]:
    return [pod["metadata"]["name"] for pod in harness.server.of("pods") if pod["spec"].get("schedulingGates")]


def gang(harness: OperatorHarness, count: int, gpus: int = 4, size: int | None = None) -> None:
    for number in range(count):
        harness.pod(f"p{number}", gpus, gang="g", size=size or count)


async def test_single_pod_is_ungated_and_pinned(harness: OperatorHarness) -> None:
    harness.pod("a", 2, spec={"affinity": {"podAffinity": {"kept": True}}})
    await harness.turn()
    assert (gated(harness), notes(harness, "a")) == ([], {names.RANK: "0", names.GPUS: "0,1"})
    affinity = harness.server.of("pods")[0]["spec"]["affinity"]
    assert (affinity["podAffinity"], "nodeAffinity" in affinity) == ({"kept": True}, True)
    assert ("Normal", "a", "Placed") in await harness.events()


async def test_gang_is_ungated_as_a_whole_or_not_at_all(harness: OperatorHarness) -> None:
    gang(harness, 2, size=3)
    await harness.turn()
    assert gated(harness) == ["p0", "p1"]
    assert "1 not created yet" in notes(harness, "p0")[names.WAITING]
    harness.pod("p2", 0, gang="g", size=3)
    await harness.turn()
    assert gated(harness) == []
    assert {name for pod in ("p0", "p1", "p2") for name in notes(harness, pod)} == {names.GANG_SIZE, names.RANK, names.GPUS}


async def test_reservation_is_written_before_the_first_pod_is_ungated(harness: OperatorHarness) -> None:
    gang(harness, 2)
    await harness.turn()
    patches = [(path, body) for method, path, body in harness.server.asked if method == "PATCH"]
    assert patches[0][0] == paths.pods(SPACE, "p0")
    assert set(json.loads(patches[0][1]["metadata"]["annotations"][names.RESERVATION])) == {"p0", "p1"}
    assert ["spec" in body for _, body in patches] == [False, True, True, False]
    assert patches[-1][1]["metadata"]["annotations"] == {names.RESERVATION: None}


async def test_restarted_operator_goes_on_ungating_as_reserved(harness: OperatorHarness) -> None:
    gang(harness, 2)
    harness.server.refuse("PATCH", "pods/p1", 403, "not today")
    await harness.turn()
    assert gated(harness) == ["p1"]
    reserved = json.loads(notes(harness, "p0")[names.RESERVATION])["p1"]
    harness.submit("thief", roles=roles(workers=1, gpus=4), priority=9)
    harness.restart()
    harness.sync()
    await harness.plan()
    assert (gated(harness), notes(harness, "p1")[names.GPUS]) == ([], ",".join(map(str, reserved["gpus"])))
    await harness.turn()
    assert names.RESERVATION not in notes(harness, "p0")


async def test_reservation_that_cannot_be_carried_out_holds_up_no_other_gang(harness: OperatorHarness) -> None:
    gang(harness, 2, gpus=1)
    harness.server.refuse("PATCH", "pods/p1", 403, "never", times=1000)
    harness.submit(roles=roles(workers=1, gpus=1))
    await harness.turn(3)
    assert (gated(harness), harness.status()["phase"]) == (["p1"], "Admitted")
    assert harness.work_queue.plan_at <= harness.now + RETRY_SECONDS


@pytest.mark.parametrize("text", ["x", '{"odd": {"node": "n1", "gpus": [-1], "rank": 0}}'])
async def test_unreadable_reservation_holds_up_no_other_gang(harness: OperatorHarness, text: str) -> None:
    harness.pod("odd", 1, annotations={names.RESERVATION: text})
    harness.pod("b", 1)
    await harness.turn()
    assert gated(harness) == []


async def test_pod_that_changed_meanwhile_is_ungated_by_the_next_plan(harness: OperatorHarness) -> None:
    harness.pod("a", 1)
    harness.sync()
    harness.change(paths.pods(SPACE, "a"), metadata={"labels": {"new": "label"}})  # the watch has not brought it yet
    await harness.plan()
    assert gated(harness) == ["a"]
    await harness.turn()
    assert gated(harness) == []


# Waiting


async def test_pod_is_told_a_reason_once(harness: OperatorHarness) -> None:
    harness.pod("a", 64)
    await harness.turn(4)
    assert "needs 64 GPUs" in notes(harness, "a")[names.WAITING]
    assert harness.server.writes("PATCH") == [f"PATCH {paths.pods(SPACE, 'a')}"]
    assert (await harness.events()).count(("Warning", "a", "NeverFits")) == 1


async def test_reason_that_could_not_be_written_is_written_again(harness: OperatorHarness) -> None:
    gang(harness, 2, gpus=64)
    harness.server.refuse("PATCH", "pods/p1", 403, "not today")
    await harness.turn()
    assert names.WAITING not in notes(harness, "p1")
    await harness.turn(seconds=RETRY_SECONDS)
    assert names.WAITING in notes(harness, "p1")


# What is there already


async def test_ungated_pods_count_against_the_quota(harness: OperatorHarness) -> None:
    harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"gpus": 3}})
    harness.pod("a", 2)
    await harness.turn()
    harness.pod("b", 2)
    await harness.turn(2)
    assert gated(harness) == ["b"]
    assert "uses 2 of 3 GPUs" in notes(harness, "b")[names.WAITING]


async def test_pods_from_before_the_controller_are_known(harness: OperatorHarness) -> None:
    harness.pod("a", 1)
    harness.pod("done", 1, phase="Succeeded")
    harness.sync()
    external = ExternalPods(harness.context)
    await external.prepare(harness.now)
    assert [gang.name for gang in external.gangs()] == ["vision/pod:a"]
