"""The clock that dates what is written may step, and those of other hosts may be wrong: planning goes on."""

from __future__ import annotations

import pytest

from builders.dljobs import NOW, Json, condition, roles, time
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.pinning import UNSCHEDULABLE_SECONDS

WHOLE = roles(workers=1, gpus=4)
HOUR = 3600.0


@pytest.mark.parametrize("step", [-120.0, -HOUR, 120.0, HOUR])
async def test_job_that_arrives_after_a_step_of_the_clock_starts_at_once(harness: OperatorHarness, step: float) -> None:
    wrong = [0.0]
    harness.clock, harness.pace = lambda: harness.now + wrong[0], lambda: harness.now
    harness.submit("first", roles=WHOLE)
    await harness.turn(3)
    wrong[0] = step
    harness.submit("second", roles=WHOLE)
    for _ in range(3):
        harness.now += 0.1
        harness.sync()
        for key in harness.work_queue.due():
            harness.dljobs.reconcile(key.name, harness.clock())
        if harness.work_queue.plan_is_due():
            harness.work_queue.begin_plan()
            await harness.planning.run(harness.clock())
        await harness.idle()
    assert harness.status("second")["phase"] == "Admitted"


def refused(since: float) -> Json:
    return {"conditions": [condition("PodScheduled", "False", reason="Unschedulable", message="no room", since=since)]}


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
async def test_refusal_of_a_jobs_pod_counts_from_when_it_is_seen_here(harness: OperatorHarness, skew: float) -> None:
    harness.submit(roles=WHOLE)
    await harness.turn(3)
    harness.change(paths.pods(SPACE, "vgg16-worker-0"), status=refused(NOW + skew))
    await harness.turn(2)
    assert harness.status()["phase"] == "Admitted"
    await harness.turn(2, seconds=UNSCHEDULABLE_SECONDS + 1)
    assert harness.status()["requeues"] == 1


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
async def test_refusal_of_an_external_pod_counts_from_when_it_is_seen_here(harness: OperatorHarness, skew: float) -> None:
    harness.pod("p", gated=False, pin="n1", annotations={names.GPUS: "0", names.RANK: "0"}, **refused(NOW + skew))
    await harness.turn(2)
    assert harness.server.writes("POST", "DELETE") == []
    await harness.turn(seconds=UNSCHEDULABLE_SECONDS)
    assert f"DELETE {paths.pods(SPACE, 'p')}" in harness.server.writes("DELETE")


@pytest.mark.parametrize("gang", [None, "g"])
@pytest.mark.parametrize("skew", [-HOUR, -120.0, 0.0, 120.0, HOUR])
async def test_back_off_of_a_requeued_pod_counts_from_when_it_is_seen_here(
    harness: OperatorHarness, skew: float, gang: str | None
) -> None:
    harness.node("n1", 4)
    born = {"creationTimestamp": time(NOW + skew)}
    harness.pod("first", gang=gang, size=2, annotations={names.REQUEUES: "1"}, metadata=born)
    harness.pod("p", gang=gang, size=2, annotations={names.REQUEUES: "3"}, metadata=born)
    await harness.turn(2)
    assert harness.work_queue.plan_at == NOW + (1 if gang is None else 4)
    await harness.turn(seconds=3.9)
    assert is_gated(harness, "p")
    await harness.turn(seconds=0.2)
    assert not is_gated(harness, "p")


@pytest.mark.parametrize("step", [-120.0, 120.0])
async def test_back_off_of_a_requeued_pod_outlasts_a_step_of_the_clock(harness: OperatorHarness, step: float) -> None:
    wrong = [0.0]
    harness.pace = lambda: harness.now - wrong[0]
    harness.node("n1", 4)
    harness.pod("p", annotations={names.REQUEUES: "3"})
    await harness.turn()
    wrong[0] = step
    await harness.turn(seconds=step + 3.9)
    assert is_gated(harness, "p")
    await harness.turn(seconds=0.2)
    assert not is_gated(harness, "p")


def is_gated(harness: OperatorHarness, pod: str) -> bool:
    return bool(harness.server.objects[paths.pods(SPACE, pod)]["spec"]["schedulingGates"])


@pytest.mark.parametrize("skew", [-HOUR, 0.0, HOUR])
async def test_back_off_of_a_job_counts_from_when_it_is_seen_here(harness: OperatorHarness, skew: float) -> None:
    """The leader before, on another host, wrote that the job rests for eight seconds."""
    harness.submit(roles=WHOLE)
    disrupted = condition("Admitted", "False", reason="PodDisrupted", message="pod vgg16-worker-0 was taken away")
    rest = {"queuedAt": time(NOW), "releasedAt": time(NOW + skew), "notBefore": time(NOW + skew + 8)}
    harness.change(paths.dljobs(SPACE, "vgg16"), status={"phase": "Queued", "requeues": 4, "conditions": [disrupted], **rest})
    await harness.turn(2)
    await harness.turn(2, seconds=3.9)
    assert harness.status()["phase"] == "Queued"
    await harness.turn(2, seconds=0.2)
    assert harness.status()["phase"] == "Admitted"


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
async def test_start_of_a_gang_counts_from_when_it_is_seen_here(harness: OperatorHarness, skew: float) -> None:
    """The leader before, on another host, placed the gang; or the clock of this one has stepped."""
    harness.submit(roles=WHOLE)
    await harness.turn(3)
    harness.change(paths.dljobs(SPACE, "vgg16"), status={"admittedAt": time(NOW + skew)})
    harness.restart()
    await harness.turn(2)
    await harness.turn(seconds=599)
    assert (harness.status()["phase"], harness.status()["admittedAt"]) == ("Admitted", time(NOW + skew))
    await harness.turn(2, seconds=2)
    assert (harness.status()["phase"], harness.status()["failedStart"]["reason"]) == ("Queued", "StartDeadlineExceeded")


@pytest.mark.parametrize("step", [-HOUR, HOUR])
async def test_start_of_a_gang_takes_as_long_whatever_becomes_of_the_clock(harness: OperatorHarness, step: float) -> None:
    wrong = 0.0
    harness.pace = lambda: harness.now - wrong
    harness.submit(roles=WHOLE)
    await harness.turn(3)
    wrong = step
    await harness.turn(seconds=step + 599)
    await harness.turn()
    assert harness.status()["phase"] == "Admitted"
    await harness.turn(2, seconds=2)
    assert harness.status()["phase"] == "Queued"
