"""Pods that muster did not create: let go as gangs, told why they wait."""

from __future__ import annotations

import json

import pytest

from builders.dljobs import Json, roles
from builders.office import SPACE, Office
from muster.api import names
from muster.kube import paths
from muster_operator.desk import RETRY_SECONDS
from muster_operator.foreign import ForeignPods
from muster_operator.planning import Planning


def notes(office: Office, pod: str) -> Json:
    found: Json = office.metadata(pod)["annotations"]
    return found


def gated(office: Office) -> list[str]:
    return [pod["metadata"]["name"] for pod in office.server.of("pods") if pod["spec"].get("schedulingGates")]


def gang(office: Office, count: int, gpus: int = 4, size: int | None = None) -> None:
    for number in range(count):
        office.pod(f"p{number}", gpus, gang="g", size=size or count)


async def test_a_pod_alone_is_let_go(office: Office) -> None:
    office.pod("a", 2, spec={"affinity": {"podAffinity": {"kept": True}}})
    await office.turn()
    assert (gated(office), notes(office, "a")) == ([], {names.RANK: "0", names.GPUS: "0,1"})
    affinity = office.server.of("pods")[0]["spec"]["affinity"]
    assert (affinity["podAffinity"], "nodeAffinity" in affinity) == ({"kept": True}, True)
    assert ("Normal", "a", "Placed") in await office.events()


async def test_a_gang_is_let_go_whole_or_not_at_all(office: Office) -> None:
    gang(office, 2, size=3)
    await office.turn()
    assert gated(office) == ["p0", "p1"]
    assert "1 not created yet" in notes(office, "p0")[names.WAITING]
    office.pod("p2", 0, gang="g", size=3)
    await office.turn()
    assert gated(office) == []
    assert {name for pod in ("p0", "p1", "p2") for name in notes(office, pod)} == {names.GANG_SIZE, names.RANK, names.GPUS}


async def test_the_reservation_is_written_before_the_first_gate_is_dropped(office: Office) -> None:
    gang(office, 2)
    await office.turn()
    patches = [(path, body) for method, path, body in office.server.asked if method == "PATCH"]
    assert patches[0][0] == paths.pods(SPACE, "p0")
    assert set(json.loads(patches[0][1]["metadata"]["annotations"][names.RESERVATION])) == {"p0", "p1"}
    assert ["spec" in body for _, body in patches] == [False, True, True, False]
    assert patches[-1][1]["metadata"]["annotations"] == {names.RESERVATION: None}


async def test_who_starts_again_in_between_goes_on(office: Office) -> None:
    gang(office, 2)
    office.server.refuse("PATCH", "pods/p1", 403, "not today")
    await office.turn()
    assert gated(office) == ["p1"]
    promised = json.loads(notes(office, "p0")[names.RESERVATION])["p1"]
    office.submit("thief", roles=roles(workers=1, gpus=4), priority=9)
    office.planning = Planning(office.desk, office.planning._planner.settings)  # the operator was started again
    office.sync()
    await office.planning.run(office.now)
    assert (gated(office), notes(office, "p1")[names.GPUS]) == ([], ",".join(map(str, promised["gpus"])))
    await office.turn()
    assert names.RESERVATION not in notes(office, "p0")


async def test_a_promise_that_cannot_be_kept_holds_up_nobody(office: Office) -> None:
    gang(office, 2, gpus=1)
    office.server.refuse("PATCH", "pods/p1", 403, "never", times=1000)
    office.submit(roles=roles(workers=1, gpus=1))
    await office.turn(3)
    assert (gated(office), office.status()["phase"]) == (["p1"], "Admitted")
    assert office.desk.plan_at <= office.now + RETRY_SECONDS


@pytest.mark.parametrize("size", ["9" * 5000, "x", "-1"])
async def test_an_odd_size_holds_up_nobody(office: Office, size: str) -> None:
    office.pod("odd", 1, gang="g", size=size)
    office.pod("b", 1)
    await office.turn()
    assert gated(office) == []


@pytest.mark.parametrize("text", ["x", '{"odd": {"node": "n1", "gpus": [-1], "rank": 0}}'])
async def test_an_odd_reservation_holds_up_nobody(office: Office, text: str) -> None:
    office.pod("odd", 1, annotations={names.RESERVATION: text})
    office.pod("b", 1)
    await office.turn()
    assert gated(office) == []


async def test_a_pod_that_changed_meanwhile_is_looked_at_again(office: Office) -> None:
    office.pod("a", 1)
    office.sync()
    office.change(paths.pods(SPACE, "a"), metadata={"labels": {"new": "label"}})  # nobody has heard of it yet
    await office.planning.run(office.now)
    assert gated(office) == ["a"]
    await office.turn()
    assert gated(office) == []


# Waiting


async def test_a_reason_is_told_once(office: Office) -> None:
    office.pod("a", 64)
    await office.turn(4)
    assert "needs 64 GPUs" in notes(office, "a")[names.WAITING]
    assert office.server.writes("PATCH") == [f"PATCH {paths.pods(SPACE, 'a')}"]
    assert (await office.events()).count(("Warning", "a", "NeverFits")) == 1


async def test_a_reason_that_could_not_be_told_is_told_again(office: Office) -> None:
    gang(office, 2, gpus=64)
    office.server.refuse("PATCH", "pods/p1", 403, "not today")
    await office.turn()
    assert names.WAITING not in notes(office, "p1")
    await office.turn(seconds=RETRY_SECONDS)
    assert names.WAITING in notes(office, "p1")


# What is there already


async def test_what_was_let_go_counts_against_the_quota(office: Office) -> None:
    office.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"gpus": 3}})
    office.pod("a", 2)
    await office.turn()
    office.pod("b", 2)
    await office.turn(2)
    assert gated(office) == ["b"]
    assert "uses 2 of 3 GPUs" in notes(office, "b")[names.WAITING]


async def test_pods_that_were_there_first_are_known(office: Office) -> None:
    office.pod("a", 1)
    office.pod("done", 1, phase="Succeeded")
    office.sync()
    found = ForeignPods(office.desk)
    await found.tend(office.now)
    assert [gang.name for gang in found.gangs()] == ["vision/pod:a"]
