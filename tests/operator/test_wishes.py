"""Wishes by annotation that cannot be met are answered by an Event, once, and harm nothing."""

from __future__ import annotations

import pytest

from builders.dljobs import Json
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths

JOB = paths.dljobs(SPACE, "vgg16")
W0 = "vgg16-worker-0"


async def said(harness: OperatorHarness, about: str, reason: str = "UnknownWish") -> list[str]:
    await harness.recorder.drain(30)
    events = harness.server.of("events")
    return [e["message"] for e in events if (e["involvedObject"]["name"], e["reason"]) == (about, reason)]


@pytest.mark.parametrize("value", ["yes", "True", "FALSE", "", " true", "1", "x" * 5000])
async def test_suspend_with_another_value_is_answered(harness: OperatorHarness, value: str) -> None:
    harness.submit(annotations={names.SUSPEND: value})
    await harness.turn(4)
    (answer,) = await said(harness, "vgg16")
    assert answer.startswith("muster.dev/suspend is '")
    assert answer.endswith("has no effect: its values are true and false")
    assert len(answer) < 200
    assert harness.status()["phase"] == "Admitted"


@pytest.mark.parametrize("value", ["true", "false"])
async def test_wish_that_is_understood_has_no_answer(harness: OperatorHarness, value: str) -> None:
    harness.submit(annotations={names.SUSPEND: value, "example.com/suspend": "yes"})
    await harness.turn(3)
    assert await said(harness, "vgg16") == []


async def test_suspend_on_a_running_job_and_its_pod_is_answered(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.change(JOB, metadata={"annotations": {names.SUSPEND: "yes"}})
    notes: Json = harness.metadata(W0)["annotations"]
    harness.change(paths.pods(SPACE, W0), metadata={"annotations": {**notes, names.SUSPEND: "no"}})
    await harness.turn(3)
    assert (len(await said(harness, "vgg16")), len(await said(harness, W0))) == (1, 1)
    assert harness.status()["phase"] == "Running"
    harness.change(JOB, metadata={"annotations": {names.SUSPEND: "off"}})
    await harness.turn(2)
    assert len(await said(harness, "vgg16")) == 2, "each value is answered"


async def test_unknown_annotation_of_a_job_is_answered(harness: OperatorHarness) -> None:
    odd = {f"muster.dev/odd-{number}": "x" for number in range(100)}
    harness.submit(annotations={"muster.dev/suspnd": "true", **odd})
    await harness.turn(3)
    answers = await said(harness, "vgg16")
    assert 1 < len(answers) < 10
    assert answers[0].endswith("those of users are muster.dev/suspend and muster.dev/migrate")


async def test_wish_to_leave_an_unknown_node_is_answered(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.change(JOB, metadata={"annotations": {names.MIGRATE: "n9"}})
    await harness.turn(3)
    assert await said(harness, "vgg16", "NotThere") == ["does not move: there is no node or rack n9"]
    assert names.MIGRATE not in harness.server.objects[JOB]["metadata"]["annotations"]
    assert harness.status()["attempt"] == 1


async def test_wish_to_move_a_job_without_a_placement_is_answered(harness: OperatorHarness) -> None:
    harness.submit(suspend=True, annotations={names.MIGRATE: "n1"})
    await harness.turn(3)
    (answer,) = await said(harness, "vgg16", "NotThere")
    assert answer == "does not move: the job has no placement"
