"""Pods that take their time to end: whoever waits for one is told which it is, and keeps its turn."""

from __future__ import annotations

import pytest

from builders.dljobs import NOW, after, changed, condition, job, placed, pods_of, roles, started, time
from builders.operator_harness import SPACE, OperatorHarness
from builders.steps import look, step_of
from muster.kube import paths
from muster_operator.dljob.lifecycle import STOPPING_SECONDS
from muster_operator.dljob.status import Record

WHOLE = roles(workers=1, gpus=4)
LONG = NOW + STOPPING_SECONDS


def message(record: Record | None) -> str:
    assert record is not None
    return record.status.message


def test_gang_names_the_pod_whose_end_it_waits_for() -> None:
    before = started(job())
    gang = after(before, lambda record: record.requeue("PodDisrupted", "taken away"))
    pods = {name: changed(pod, leaving=True) for name, pod in pods_of(before).items()}
    assert look(gang, pods, now=LONG - 1) == {"service": False, "wake": LONG}
    step = step_of(gang, pods, now=LONG)
    assert message(step.status) == ("waits for the end of pod vgg16-worker-0 on node n1, which is terminating, and for 1 other")
    told = after(gang, lambda record: record.await_end(message(step.status)), LONG)
    assert (told.status.phase, told.waits_for) == ("Queued", "PodsStopping")
    assert look(told, pods, now=LONG + 60) == {"service": False}
    assert (told.status.queued_at, told.status.requeues) == (before.status.queued_at, 1)


def test_gang_that_is_suspended_names_it_too() -> None:
    before = started(job())
    gang = after(before, lambda record: record.stop("suspending: 1 pod to stop"))
    suspended = job(status=gang.status.model_dump(mode="json", by_alias=True, exclude_none=True), suspend=True)
    pods = {name: changed(pod, leaving=True) for name, pod in list(pods_of(before).items())[1:]}
    step = step_of(suspended, pods, now=LONG)
    assert message(step.status) == "waits for the end of pod vgg16-worker-1 on node n2, which is terminating"
    assert step.status is not None
    assert step.status.status.phase == "Suspending"


def test_pod_of_a_lost_node_is_not_waited_for() -> None:
    before = started(job(roles=WHOLE))
    gang = after(before, lambda record: record.requeue("NodeLost", "gone"))
    pods = {name: changed(pod, leaving=True) for name, pod in pods_of(before).items()}
    assert look(gang, pods, dead={"n1"}, now=LONG) == {"service": False, "destroy": ["vgg16-worker-0"]}


def test_start_that_an_earlier_pod_holds_up_is_no_failed_start() -> None:
    """The gang was to move; its GPUs come free again, and it waits for the pod that does not end."""
    before = started(job(roles=WHOLE))
    gang = placed(before, ["n2"])
    pods = {name: changed(pod, leaving=True) for name, pod in pods_of(before).items()}
    step = step_of(gang, pods, now=NOW + 600)
    waited = "waits for the end of pod vgg16-worker-0 on node n1"
    assert message(step.status) == f"pod vgg16-worker-0 on node n2 has not started within 600 s: {waited}"
    assert step.status is not None
    assert (step.status.status.phase, step.status.status.failed_start) == ("Queued", None)


async def test_gang_that_waits_for_a_pod_of_another_gang_names_it(harness: OperatorHarness) -> None:
    for name in ("hung", "beside"):
        harness.submit(name, roles=WHOLE)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.submit("next", roles=WHOLE)
    await harness.turn(2)
    harness.change(paths.dljobs(SPACE, "hung"), metadata={"annotations": {"muster.dev/suspend": "true"}})
    await harness.turn(6, seconds=2)
    reason, text = harness.admitted("next")
    assert reason == "PodsStopping"
    assert text.endswith(": pod hung-worker-0 on node n2")
    harness.end_pods()
    await harness.turn(3)
    assert harness.status("next")["phase"] == "Admitted"


LEAVING = {"deletionTimestamp": time(NOW)}
DRAINED = condition("DisruptionTarget", reason="EvictionByEvictionAPI", message="Eviction API: evicting")


@pytest.mark.parametrize("how", ["drained", "evicted"])
async def test_gang_that_was_drained_or_evicted_keeps_its_turn_and_quota(harness: OperatorHarness, how: str) -> None:
    """Later jobs of its queue, which would fit on the node that is left, do not go before it."""
    harness.server.put(
        paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"quota": {"gpus": 8}}}
    )
    harness.submit("drained", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    arrived = harness.status("drained")["queuedAt"]
    harness.now += 600
    harness.submit("later", roles=WHOLE, metadata={"creationTimestamp": time(harness.now)})
    await harness.turn(2)
    if how == "drained":
        harness.change(paths.pods(SPACE, "drained-worker-0"), metadata=LEAVING, status={"conditions": [DRAINED]})
    else:
        harness.change(paths.pods(SPACE, "drained-worker-0"), status={"phase": "Failed", "reason": "Evicted"})
    for _ in range(6):
        await harness.turn(seconds=2)
        harness.end_pods()
    assert (harness.status("drained")["phase"], harness.status("drained")["queuedAt"]) == ("Admitted", arrived)
    assert (harness.status("drained").get("restarts", 0), harness.status("later")["phase"]) == (0, "Queued")


@pytest.mark.parametrize("deleted", [False, True], ids=["suspended", "deleted"])
async def test_pods_that_take_their_time_to_end_stretch_no_quota(harness: OperatorHarness, deleted: bool) -> None:
    """A user chooses the grace period of his pods: their GPUs count in his queue for as long as that lasts."""
    harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"gpus": 4}})
    harness.submit("first", roles=WHOLE)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn(2)
    if deleted:
        harness.server.drop(paths.dljobs(SPACE, "first"))
    else:
        harness.change(paths.dljobs(SPACE, "first"), spec={"suspend": True})
    await harness.turn(3)
    harness.submit("second", roles=WHOLE)
    await harness.turn(3)
    assert (harness.pods(), harness.admitted("second")[0]) == (["first-worker-0"], "PodsStopping")
    harness.server.drop(paths.pods(SPACE, "first-worker-0"))
    await harness.turn(3)
    assert harness.status("second")["phase"] == "Admitted"
