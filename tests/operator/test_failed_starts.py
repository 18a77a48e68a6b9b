"""A gang of other controllers' pods that does not start: others get its GPUs, it learns from that, and its user is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builders.dljobs import NOW, Json, condition, container, roles, time
from builders.external_pods import external_pods
from builders.operator_harness import SPACE, OperatorHarness
from muster.allocation.pods import pinned_to
from muster.api import names
from muster.kube import paths
from muster.scheduling.decisions import Reason
from muster_operator.backoff import FAILURE_BACKOFF, FIRST_BACKOFF
from muster_operator.external_pods.failed_starts import (
    MOST_REFUSALS,
    START_DEADLINE_SECONDS,
    START_RETRIES,
    failure,
    learnt,
    pause,
    read,
    said,
    set_aside,
    written,
)
from muster_operator.external_pods.gangs import pod_gang
from muster_operator.lessons import NOTHING_LEARNT, UNCHANGED, Lessons
from muster_operator.pinning import UNSCHEDULABLE_SECONDS

GIVEN = {names.GPUS: "0", names.RANK: "0"}
PINNED: Json = {"gated": False, "pin": "n1", "annotations": GIVEN}
REFUSED: Json = {"conditions": [condition("PodScheduled", "False", reason="Unschedulable", message="no card", since=NOW)]}
IMAGE: Json = {"containerStatuses": [container(waiting={"reason": "ImagePullBackOff", "message": "no such image"})]}
CREATING: Json = {"containerStatuses": [container(waiting={"reason": "ContainerCreating"})]}
OWNED: Json = {"ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "uid-j", "controller": True}]}


def after(*statuses: Json, overdue: bool = False) -> Lessons:
    """What a gang knows after its pod a has come to each of these."""
    known = NOTHING_LEARNT
    for status in statuses:
        pod = external_pods("a", **PINNED, node=None if status is REFUSED else "n1", **status)
        known = learnt(known, pod, failure(pod, overdue=overdue), UNCHANGED, NOW)
    return known


def waiting(harness: OperatorHarness, pod: str) -> str:
    return str(harness.metadata(pod)["annotations"].get(names.WAITING))


# Pure


def test_refusal_of_a_node_is_learnt_with_its_words() -> None:
    assert (after(REFUSED).avoid, after(REFUSED).refused) == (frozenset({"n1"}), {})
    assert after(REFUSED, REFUSED).refused == {"n1": "no card"}
    failed = after(REFUSED).failed
    assert failed is not None
    assert (failed.times, failed.node) == (0, "n1")
    assert failed.message == "pod a cannot start on the node that it is pinned to: no card"


def test_word_of_kube_scheduler_about_no_node_is_learnt_of_none() -> None:
    message = '0/2 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/2 nodes are available'
    said = condition("PodScheduled", "False", reason="Unschedulable", message=message, since=NOW)
    pod = external_pods("a", **PINNED, conditions=[said])
    known = learnt(NOTHING_LEARNT, pod, failure(pod), UNCHANGED, NOW)
    assert (known.refusals, known.failed is not None, known.failures) == ((), True, 0)


def test_silence_of_kube_scheduler_is_no_failure_of_the_gang() -> None:
    pod = external_pods("a", **PINNED)
    known = learnt(NOTHING_LEARNT, pod, failure(pod, overdue=True), UNCHANGED, NOW)
    assert (known.failed is not None, known.failures, known.refusals) == (True, 0, ())


def test_gang_that_failed_to_start_preempts_nobody_and_leaves_out_what_refused_it() -> None:
    gang = pod_gang("vision/pod:a", [external_pods("a")], lessons=after(REFUSED, REFUSED)).gang
    assert (gang.start_failed, gang.refused, gang.unplannable) == (True, {"n1": "no card"}, "")
    assert not pod_gang("vision/pod:a", [external_pods("a")]).gang.start_failed


def test_back_off_is_longer_for_what_would_start_nowhere() -> None:
    assert [pause(after(*[IMAGE] * times)) for times in (0, 1, 2)] == [0, FAILURE_BACKOFF, 2 * FAILURE_BACKOFF]
    assert [pause(after(*[REFUSED] * times)) for times in (1, 2)] == [FIRST_BACKOFF, 2 * FIRST_BACKOFF]


def test_gang_that_fails_to_start_again_and_again_is_set_aside() -> None:
    assert set_aside(after(*[IMAGE] * START_RETRIES)) == ""
    assert set_aside(after(*[REFUSED] * 99)) == ""
    assert set_aside(after(*[IMAGE] * (START_RETRIES + 1))) == (
        "has failed to start 4 times in a row, the last time because pod a cannot start: container train: ImagePullBackOff "
        "no such image; once that is mended, delete its pods and create them again"
    )


def test_what_is_learnt_is_read_again_as_it_was_written() -> None:
    known = after(REFUSED, REFUSED, IMAGE)
    text = written(known)
    assert read([external_pods("b"), external_pods("a", annotations={names.FAILED_STARTS: text})]) == known
    assert written(NOTHING_LEARNT) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"refusals": 1}', '{"refusals": [{}]}', '{"failedStart": {}}', "x" * 9999])
def test_unreadable_text_says_nothing(text: str) -> None:
    assert read([external_pods("a", annotations={names.FAILED_STARTS: text})]) == NOTHING_LEARNT


def test_annotation_is_short_however_many_nodes_refused() -> None:
    known = NOTHING_LEARNT
    for number in range(99):
        pod = external_pods("a", **{**PINNED, "pin": f"n{number}"}, **REFUSED)
        known = learnt(known, pod, failure(pod), UNCHANGED, NOW)
    text = written(known)
    assert text is not None
    assert [each["node"] for each in json.loads(text)["refusals"]] == [f"n{i}" for i in range(99 - MOST_REFUSALS, 99)]


def test_why_the_last_start_failed_follows_why_a_gang_waits() -> None:
    assert said("waits", NOTHING_LEARNT) == "waits"
    assert said("waits", after(IMAGE)).startswith("waits; the last start failed: pod a cannot start: container train: Image")


# With the API server


async def test_gang_with_one_image_missing_frees_the_gpus_of_the_others(harness: OperatorHarness) -> None:
    harness.pod("p0", 2, gang="g", size=2, **PINNED, node="n1", phase="Running")
    harness.pod("p1", 2, gang="g", size=2, **PINNED, node="n1", **IMAGE)
    await harness.turn()
    harness.end_pods()
    await harness.turn(2)
    assert harness.pods() == ["p0", "p1"]
    assert "the last start failed: pod p1 cannot start: container train: ImagePullBackOff" in waiting(harness, "p0")
    harness.submit("other", roles=roles(workers=1, gpus=4))
    await harness.turn(3)
    assert harness.status("other")["phase"] == "Admitted"


async def test_pod_that_hangs_is_requeued_at_its_deadline(harness: OperatorHarness) -> None:
    harness.pod("a", **PINNED, node="n1", **CREATING)
    await harness.turn()
    await harness.turn(seconds=START_DEADLINE_SECONDS - 1)
    assert "deletionTimestamp" not in harness.metadata("a")
    assert harness.work_queue.plan_at == NOW + START_DEADLINE_SECONDS
    await harness.turn(seconds=1)
    harness.end_pods()
    await harness.turn(2)
    words = "pod a has not started within 600 s: container train: ContainerCreating"
    assert words in waiting(harness, "a")
    assert ("Warning", "a", "Requeued") in await harness.events()


async def test_pod_that_hangs_in_silence_is_explained_by_the_newest_event(harness: OperatorHarness) -> None:
    said = {"metadata": {"name": "e"}, "reason": "FailedMount", "message": "no such claim", "lastTimestamp": time(NOW)}
    harness.server.objects[paths.events(SPACE)] = {"metadata": {"resourceVersion": "1"}, "items": [said]}
    harness.pod("a", **PINNED, node="n1", **CREATING)
    await harness.turn()
    await harness.turn(seconds=START_DEADLINE_SECONDS)
    harness.end_pods()
    await harness.turn(2)
    assert "within 600 s: container train: ContainerCreating; FailedMount no such claim" in waiting(harness, "a")


async def test_refusals_outlive_the_pods_of_a_gang(harness: OperatorHarness) -> None:
    """n1 refuses it, then n2; both again; then nothing is left, and it says who said what."""
    harness.node("n2")
    harness.pod("a")
    await harness.turn(2)
    for _ in range(4):
        harness.change(paths.pods(SPACE, "a"), status=REFUSED)
        await harness.turn(2)
        await harness.turn(seconds=UNSCHEDULABLE_SECONDS)
        harness.end_pods()
        await harness.turn(3)
        await harness.turn(2, seconds=60)
    assert "2 nodes refused it: 2 (n1, ...) with: no card" in waiting(harness, "a")
    (gang,) = harness.external_pods.gangs()
    assert (gang.placement, sorted(gang.refused)) == ((), ["n1", "n2"])
    harness.node("n2", labels={"card": "yes"})
    await harness.turn(2)
    assert harness.server.of("pods")[0]["spec"].get("schedulingGates") in (None, [])


async def test_pods_that_their_controller_creates_again_are_told_what_was_learnt(harness: OperatorHarness) -> None:
    harness.pod("p0", metadata=OWNED, gang="g", size=1, **PINNED, node="n1", **IMAGE)
    await harness.turn()
    assert ("Warning", "j", "Requeued") in await harness.events()
    harness.end_pods()
    harness.pod("p1", metadata={**OWNED, "creationTimestamp": time(NOW)}, gang="g", size=1)
    await harness.turn(2)
    assert "no such image" in harness.metadata("p1")["annotations"][names.FAILED_STARTS]
    assert "the last start failed" in waiting(harness, "p1")
    harness.restart()
    await harness.turn(2)
    (gang,) = harness.external_pods.gangs()
    assert gang.start_failed


REJECTED: Json = {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: no cpu"}


async def replacements(harness: OperatorHarness, status: Json, **fields: Any) -> list[str | None]:
    """Where the pods of a controller go, each of which meets this on its node and is made again under another name."""
    nodes: list[str | None] = []
    for number in range(5):
        name = f"p{number}"
        harness.pod(name, metadata={**OWNED, "creationTimestamp": time(harness.now)}, **fields)
        await harness.turn(4, seconds=60)
        (pod,) = (pod for pod in harness.stores.view.pods.values() if pod.metadata.name == name)
        nodes.append(pinned_to(pod.spec))
        if nodes[-1] is not None:
            harness.change(paths.pods(SPACE, name), spec={"nodeName": nodes[-1]}, status=status)
            await harness.turn(2)
            await harness.turn(2, seconds=START_DEADLINE_SECONDS if status is CREATING else 1)
            harness.end_pods()
    return nodes


@pytest.mark.parametrize("gang", [None, "g"])
async def test_pod_that_a_kubelet_rejected_is_made_again_by_its_controller_and_goes_elsewhere(
    harness: OperatorHarness, gang: str | None
) -> None:
    fields: Json = {"gang": gang, "size": 2} if gang else {}
    if gang:
        harness.pod("other", metadata=OWNED, **fields, **{**PINNED, "annotations": GIVEN}, node="n1", phase="Running")
    assert await replacements(harness, REJECTED, **fields) == ["n1", "n2", "n1", "n2", None]
    assert "2 nodes refused it: 2 (n1, ...) with: Pod was rejected: no cpu" in waiting(harness, "p4")
    assert all(pod.start_failed for pod in harness.external_pods.gangs() if not pod.placement)


async def test_pod_without_a_label_that_its_controller_makes_again_is_set_aside_in_the_end(harness: OperatorHarness) -> None:
    """Its name is another each time, and so is that of its gang."""
    nodes = await replacements(harness, CREATING)
    assert nodes[:2] == ["n1", "n2"], "the node of a start that failed is avoided"
    assert nodes[-1] is None
    assert "has failed to start 4 times in a row" in waiting(harness, "p4")


async def test_pod_that_is_evicted_at_each_start_preempts_once(harness: OperatorHarness) -> None:
    """A ReplicaSet, say, makes such pods without end."""
    harness.submit("low", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    evicted: Json = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory"}
    for name in ("high0", "high1"):
        harness.pod(name, 4, metadata=OWNED, spec={"priority": 9})
        for _ in range(4):
            await harness.turn(2, seconds=5)
            harness.end_pods()
        if name == "high0":
            harness.change(paths.pods(SPACE, name), spec={"nodeName": "n1"}, status={"phase": "Pending"})
            await harness.turn()
            harness.change(paths.pods(SPACE, name), status=evicted)
            await harness.turn(2)
    assert harness.status("low")["requeues"] == 1
    assert "was taken away before it ran: The node was low on resource: memory" in waiting(harness, "high1")


async def test_each_pod_of_a_controller_is_told_of_one_that_it_replaces(harness: OperatorHarness) -> None:
    for name in ("p0", "p1"):
        harness.pod(name, metadata=OWNED, **PINNED, node="n1", **CREATING)
    await harness.turn()
    await harness.turn(seconds=START_DEADLINE_SECONDS)
    harness.end_pods()
    for name in ("p2", "p3", "p4"):
        harness.pod(name, metadata=OWNED)
    await harness.turn(2)
    told = [name for name in harness.pods() if names.FAILED_STARTS in harness.metadata(name)["annotations"]]
    assert len(told) == 2


async def test_pods_of_another_owner_begin_anew(harness: OperatorHarness) -> None:
    harness.pod("p0", metadata=OWNED, gang="g", size=1, **PINNED, node="n1", **IMAGE)
    await harness.turn()
    harness.end_pods()
    owner = {**OWNED["ownerReferences"][0], "uid": "uid-later"}
    harness.pod("p1", metadata={"ownerReferences": [owner]}, gang="g", size=1)
    await harness.turn(2)
    assert names.FAILED_STARTS not in harness.metadata("p1")["annotations"]


async def test_gang_that_runs_has_not_failed_in_a_row(harness: OperatorHarness) -> None:
    notes = {**GIVEN, names.FAILED_STARTS: str(written(after(IMAGE)))}
    harness.pod("p0", gang="g", size=2, **{**PINNED, "annotations": notes}, node="n1", phase="Running")
    harness.pod("p1", gang="g", size=2, **PINNED, node="n1", **CREATING)
    await harness.turn(2)
    assert names.FAILED_STARTS in harness.metadata("p0")["annotations"]
    harness.change(paths.pods(SPACE, "p1"), status={"phase": "Running"})
    await harness.turn(2)
    assert names.FAILED_STARTS not in harness.metadata("p0")["annotations"]


async def test_gang_that_is_set_aside_waits_and_says_how_to_bring_it_back(harness: OperatorHarness) -> None:
    notes = {names.FAILED_STARTS: str(written(after(*[IMAGE] * (START_RETRIES + 1))))}
    harness.pod("a", annotations=notes)
    await harness.turn(2, seconds=999)
    assert ("Warning", "a", Reason.UNPLANNABLE) in await harness.events()
    assert waiting(harness, "a").endswith("delete its pods and create them again")
