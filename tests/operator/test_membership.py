"""Labelled gangs: ended members count as done, a launcher is held with its gang, and what cannot be planned is said."""

from __future__ import annotations

from typing import Any

import pytest

from builders.dljobs import Json, container, roles
from builders.external_pods import external_pods
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.external_pods.membership import done, size_of

RUNS: Json = {"gated": False, "node": "n1", "phase": "Running", "annotations": {names.RANK: "0", names.GPUS: "0"}}


def owned(uid: str) -> Json:
    return {"metadata": {"ownerReferences": [{"kind": "Job", "name": "j", "uid": uid, "controller": True}]}}


def labelled(uid: str) -> Json:
    """The metadata of a pod of the gang g and a controller."""
    return {"metadata": {**owned(uid)["metadata"], "labels": {names.GANG: "g"}}}


def gated(harness: OperatorHarness) -> list[str]:
    return [pod["metadata"]["name"] for pod in harness.server.of("pods") if pod["spec"].get("schedulingGates")]


def waiting(harness: OperatorHarness, pod: str) -> str:
    return str(harness.metadata(pod)["annotations"].get(names.WAITING, ""))


# Ended members


@pytest.mark.parametrize(
    ("others", "is_done"),
    [
        ([{**labelled("j"), "phase": "Succeeded"}, {**labelled("j"), **RUNS}], True),
        ([{**labelled("j"), "phase": "Succeeded"}, {**labelled("j"), "phase": "Succeeded"}], True),
        ([{**labelled("j"), "phase": "Succeeded"}, {**labelled("j"), "phase": "Failed"}], False),
        ([{**labelled("earlier"), "phase": "Succeeded"}, {**labelled("earlier"), "phase": "Succeeded"}], False),
    ],
    ids=["one-runs", "all-others-succeeded", "failed-pod-comes-again", "of-an-earlier-job"],
)
async def test_pod_that_is_created_again_joins_those_that_are_done(
    harness: OperatorHarness, others: list[Json], is_done: bool
) -> None:
    for index, fields in enumerate(others):
        harness.pod(f"p{index}", size=3, **{"gated": False, **fields})
    harness.pod("again", size=3, **labelled("j"))
    await harness.turn(2)
    assert gated(harness) == ([] if is_done else ["again"])
    assert is_done or "not created yet" in waiting(harness, "again")


async def test_gang_whose_member_ended_is_whole_without_it(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=3, gated=False, phase="Succeeded")
    harness.pod("p1", gang="g", size=3, **RUNS)
    harness.pod("p2", gang="g", size=3)
    await harness.turn(2)
    assert gated(harness) == []
    harness.server.drop(paths.pods(SPACE, "p0"))
    harness.pod("p2", gang="g", size=3, metadata={"uid": "later", "labels": {names.GANG: "g"}})
    await harness.turn(2)
    assert gated(harness) == ["p2"], "a member that was deleted is not done"


@pytest.mark.parametrize(("runs", "count"), [(True, 2), (False, 0)])
def test_bare_pods_are_done_while_their_gang_runs(runs: bool, count: int) -> None:
    ended = [external_pods(f"e{phase}", gang="g", gated=False, phase=phase) for phase in ("Succeeded", "Failed")]
    present = [external_pods("new", gang="g"), *([external_pods("old", gang="g", **RUNS)] if runs else [])]
    assert done(present, ended) == count


# What cannot be planned


@pytest.mark.parametrize(
    ("text", "size"),
    [("3", 3), ("03", 3), ("0", None), ("-1", None), ("three", None), ("3.5", None), ("9" * 5000, None), ("٣", None)],
)
def test_gang_size_is_a_number_from_one(text: str, size: int | None) -> None:
    assert size_of(external_pods("a", gang="g", size=text)) == size


AMD = {"containers": [{"name": "c", "resources": {"limits": {"amd.com/gpu": 1}}}]}
MIG = {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}]}
UNPLANNABLE: dict[str, tuple[list[Json], str]] = {
    "no-size": ([{}, {}], "without the annotation muster.dev/gang-size"),
    "no-number": ([{"size": "three"}, {"size": 2}], "gang-size of pod p0 is 'three', which is no number"),
    "endless-number": ([{"size": "9" * 5000}], "9', which is no number: delete the pods"),
    "two-sizes": ([{"size": 2}, {"size": 3}], "gang-size is 3 on pod p1 and 2 on pod p0"),
    "amd": (
        [{"size": 2, "spec": AMD}, {"size": 2}],
        "pod p0 asks for amd.com/gpu, and muster plans nvidia.com/gpu",
    ),
    "mig": ([{"size": 1, "spec": MIG}], "pod p0 asks for nvidia.com/mig-1g.5gb"),
    "other-gate": (
        [{"size": 1, "spec": {"schedulingGates": [{"name": names.GATE}, {"name": "example.com/budget"}]}}],
        "pod p0 has the scheduling gate example.com/budget",
    ),
    "ahead": (
        [{"size": 2}, {"size": 2, "gated": False, "node": "n1"}],
        "pod p1 went to node n1 ahead of its gang",
    ),
    "other-scheduler": (
        [{"size": 2}, {"size": 2, "gated": False, "spec": {"schedulerName": "default-scheduler"}}],
        "pod p1 has the gang's label, but names the scheduler default-scheduler",
    ),
}


@pytest.mark.parametrize("kind", UNPLANNABLE)
async def test_gang_that_cannot_be_planned_says_why_and_holds_up_no_other(harness: OperatorHarness, kind: str) -> None:
    pods, words = UNPLANNABLE[kind]
    for index, fields in enumerate(pods):
        harness.pod(f"p{index}", gang="g", **fields)
    harness.submit(roles=roles(workers=1))
    await harness.turn(4)
    held = [f"p{index}" for index, fields in enumerate(pods) if fields.get("gated", True)]
    assert gated(harness) == held
    for pod in held:
        assert words in waiting(harness, pod)
        assert len(waiting(harness, pod)) < 300
        assert (await harness.events()).count(("Warning", pod, "Unplannable")) == 1
    assert harness.status()["phase"] == "Admitted"
    asked = len(harness.server.asked)
    await harness.turn(3)
    assert len(harness.server.asked) == asked


async def test_pod_with_another_gate_is_planned_once_that_is_gone(harness: OperatorHarness) -> None:
    harness.pod("a", 4, spec={"schedulingGates": [{"name": names.GATE}, {"name": "example.com/budget"}]})
    harness.pod("b", 4)
    harness.pod("c", 4)
    await harness.turn(2)
    assert gated(harness) == ["a"], "it holds nothing"
    assert "whoever set it removes it" in waiting(harness, "a")
    harness.server.drop(paths.pods(SPACE, "c"))
    harness.change(paths.pods(SPACE, "a"), spec={"schedulingGates": [{"name": names.GATE}]})
    await harness.turn(2)
    assert gated(harness) == []


async def test_labelled_pod_of_another_scheduler_is_told_that_nothing_holds_it(harness: OperatorHarness) -> None:
    harness.pod("free", gang="g", size=2, gated=False, spec={"schedulerName": "default-scheduler"})
    await harness.turn()
    assert ("Warning", "free", "Unplannable") in await harness.events()


# A member that cannot start


@pytest.mark.parametrize("phase", ["Pending", "Running"])
async def test_gang_with_an_image_that_cannot_be_pulled_is_requeued(harness: OperatorHarness, phase: str) -> None:
    states: Any = [container(waiting={"reason": "ImagePullBackOff", "message": "no such image"})]
    harness.pod("p0", gang="g", size=2, **RUNS)
    harness.pod("p1", gang="g", size=2, **{**RUNS, "phase": phase}, containerStatuses=states)
    await harness.turn()
    assert all("deletionTimestamp" in harness.metadata(pod) for pod in ("p0", "p1"))
    assert ("Warning", "p1", "Requeued") in await harness.events()
    said = {event["involvedObject"]["name"]: event["message"] for event in harness.server.of("events")}
    assert "container train: ImagePullBackOff no such image" in said["p1"]
    assert "pod p1 cannot start" in said["p0"]


async def test_launcher_without_gpus_is_held_and_ungated_with_its_gang(harness: OperatorHarness) -> None:
    harness.pod("launcher", 0, gang="g", size=2)
    await harness.turn(2)
    assert gated(harness) == ["launcher"]
    harness.pod("worker", 4, gang="g", size=2)
    await harness.turn()
    assert gated(harness) == []
