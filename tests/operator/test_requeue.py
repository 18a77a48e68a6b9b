"""Gangs of external pods that cannot start: requeued as a whole, and bare pods created again, once, whatever comes between."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builders.dljobs import BORN, NOW, Json, condition, time
from builders.operator_harness import NODE_LOSS_GRACE, SPACE, OperatorHarness
from muster.allocation.pods import pinned_to
from muster.api import names
from muster.kube import paths
from muster_operator.external_pods import templates
from muster_operator.external_pods.requeue import REJECTED_SECONDS as AGAIN_SECONDS
from muster_operator.pinning import UNSCHEDULABLE_SECONDS
from muster_operator.work_queue import RETRY_SECONDS

GIVEN = {names.GPUS: "0", names.RANK: "0"}
PINNED: Json = {"gated": False, "pin": "n1", "annotations": GIVEN}
GONE: Json = {**PINNED, "pin": "gone"}
REFUSED = condition("PodScheduled", "False", reason="Unschedulable", since=NOW)
OWNED: Json = {"ownerReferences": [{"kind": "Job", "name": "j", "uid": "uid-j", "controller": True}]}


def kept(harness: OperatorHarness) -> list[str]:
    """The pods of which there is a template."""
    return sorted(found["template"]["metadata"]["name"] for found in harness.server.of("podtemplates"))


def keep(harness: OperatorHarness, pod: str, **fields: Any) -> None:
    """Write a pod's template as an operator did that was killed then."""
    body = templates.template(harness.pod(pod, **fields))
    body["metadata"]["uid"] = f"uid-of-the-template-of-{pod}"
    harness.server.put(paths.podtemplates(SPACE), body)


def uid(harness: OperatorHarness, pod: str) -> str:
    return str(harness.metadata(pod)["uid"])


def restart(harness: OperatorHarness) -> None:
    harness.restart()


def gated(harness: OperatorHarness, pod: str) -> bool:
    return bool(harness.server.objects[paths.pods(SPACE, pod)]["spec"].get("schedulingGates"))


def seen_for_long(harness: OperatorHarness) -> None:
    """Let the pods have been there for so long that one without its node is believed to be stranded."""
    harness.now -= UNSCHEDULABLE_SECONDS
    harness.sync()
    harness.now += UNSCHEDULABLE_SECONDS


async def test_gang_with_a_pod_that_is_not_where_it_was_placed_is_requeued(harness: OperatorHarness) -> None:
    """Another operator, which did not know that it led no longer, had let p1 go by a placement of its own."""
    placed = {"p0": {"node": "n1", "gpus": [0], "rank": 0}, "p1": {"node": "n2", "gpus": [0], "rank": 1}}
    notes = {**GIVEN, names.RESERVATION: json.dumps(placed)}
    harness.pod("p0", gang="g", size=2, **{**PINNED, "annotations": notes}, node="n1", phase="Running")
    harness.pod("p1", gang="g", size=2, **PINNED, node="n1", phase="Running")
    harness.pod("p2", gang="h", size=1, **PINNED, node="n1", phase="Running")
    await harness.turn()
    assert {name for name in harness.pods() if "deletionTimestamp" in harness.metadata(name)} == {"p0", "p1"}
    assert kept(harness) == ["p0", "p1"]
    harness.end_pods()
    await harness.turn(3)
    assert harness.pods() == ["p0", "p1", "p2"]
    assert ("Warning", "p1", "Requeued") in await harness.events()


REJECTED: Json = {"phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "Pod was rejected: no GPU is left"}


async def test_bare_pod_that_its_kubelet_rejected_is_queued_again_and_goes_elsewhere(harness: OperatorHarness) -> None:
    """It has never run, so it is nobody's failure; the rest of its gang comes with it."""
    harness.pod("p0", gang="g", size=2, **PINNED, node="n1", **REJECTED)
    harness.pod("p1", gang="g", size=2, **PINNED, node="n1", phase="Running")
    harness.pod("alone", **PINNED, node="n1", **REJECTED)
    for _ in range(6):
        await harness.turn(seconds=2)
        harness.end_pods()
    assert (harness.pods(), kept(harness)) == (["alone", "p0", "p1"], [])
    assert "uid-alone" not in {uid(harness, pod) for pod in harness.pods()}
    pins = [pinned_to(pod.spec) for pod in harness.stores.view.pods.values()]
    assert pins == ["n2", "n2", "n2"]


async def test_pod_that_its_kubelet_rejected_is_its_controllers_matter(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=2, **PINNED, metadata=OWNED, node="n1", **REJECTED)
    harness.pod("p1", gang="g", size=2, **PINNED, metadata=OWNED, node="n1", phase="Running")
    await harness.turn(4, seconds=2)
    assert harness.server.writes("DELETE") == []


async def test_pod_that_cannot_start_is_requeued_with_its_gang(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=3, **PINNED, conditions=[REFUSED])
    harness.pod("p1", gang="g", size=3, **PINNED, node="n1")
    harness.pod("p2", gang="h", size=1, **PINNED, node="n1")
    await harness.turn()
    assert harness.work_queue.plan_at == NOW + UNSCHEDULABLE_SECONDS
    assert harness.pods() == ["p0", "p1", "p2"]
    await harness.turn(seconds=UNSCHEDULABLE_SECONDS)
    assert harness.pods() == ["p1", "p2"]
    assert ("deletionTimestamp" in harness.metadata("p1"), "deletionTimestamp" in harness.metadata("p2")) == (True, False)
    events = [(name, reason) for _, name, reason in await harness.events()]
    assert events == [("p0", "Requeued"), ("p1", "Requeued")]


async def test_bare_pods_are_created_again_and_ungated_as_a_gang(harness: OperatorHarness) -> None:
    """All is written down before anything is deleted; nothing of the gang starts before the last of it is back."""
    harness.pod("p0", gang="g", size=2, **GONE)
    harness.pod("p1", gang="g", size=2, **PINNED, node="n1")
    seen_for_long(harness)
    await harness.turn()
    writes = [line.split()[0] for line in harness.server.writes("POST", "DELETE") if not line.endswith("/events")]
    assert writes == ["POST", "POST", "DELETE", "DELETE"]
    assert kept(harness) == ["p0", "p1"]
    assert sorted(harness.stores.of(templates.POD_TEMPLATES)) == [f"{SPACE}/uid-p0", f"{SPACE}/uid-p1"], (
        "known before the watch says so"
    )
    await harness.turn(2)
    assert (kept(harness), harness.pods(), gated(harness, "p0")) == (["p1"], ["p0", "p1"], True)
    assert "1 not created yet" in harness.metadata("p0")["annotations"][names.WAITING]
    harness.end_pods()
    await harness.turn(2)
    assert (kept(harness), gated(harness, "p1")) == ([], True)
    assert uid(harness, "p1") != "uid-p1"
    await harness.turn(2, seconds=1)
    assert [gated(harness, pod) for pod in harness.pods()] == [False, False]
    assert harness.server.writes("POST").count(f"POST {paths.pods(SPACE)}") == 2


async def test_gang_waits_for_parked_pods_that_its_size_leaves_out(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=1, **GONE)
    harness.pod("p1", gang="g", size=1, **PINNED, node="n1")
    await harness.turn(3, seconds=60)
    assert (harness.pods(), gated(harness, "p0")) == (["p0", "p1"], True)
    assert "1 not created yet" in harness.metadata("p0")["annotations"][names.WAITING]


async def test_requeued_pod_keeps_arrival_and_back_off(harness: OperatorHarness) -> None:
    """Taken back for the third time, so 4 s from its creation; its place in the queue is that of its first."""
    harness.pod("a", **{**GONE, "annotations": GIVEN | {names.REQUEUES: "2", names.QUEUED_AT: time(BORN - 99)}})
    seen_for_long(harness)
    await harness.turn(3)
    notes = harness.metadata("a")["annotations"]
    assert (notes[names.QUEUED_AT], notes[names.REQUEUES], gated(harness, "a")) == (time(BORN - 99), "3", True)
    assert harness.work_queue.plan_at == NOW + 4
    (gang,) = harness.external_pods.gangs()
    assert (gang.arrived, gang.not_before) == (BORN - 99, NOW + 4)
    await harness.turn(seconds=3.9)
    assert gated(harness, "a")
    await harness.turn(seconds=0.2)
    assert not gated(harness, "a")


async def test_pods_with_a_controller_are_only_deleted(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=2, metadata=OWNED, **GONE)
    harness.pod("p1", gang="g", size=2, **PINNED, node="n1")
    seen_for_long(harness)
    await harness.turn()
    harness.end_pods()
    await harness.turn(2)
    assert (harness.pods(), kept(harness)) == (["p1"], [])


async def test_requeue_leaves_gated_and_finished_pods_alone(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=3, **GONE)
    harness.pod("p1", gang="g", size=3)
    harness.pod("p2", gang="g", size=3, **{**PINNED, "annotations": {names.RESERVATION: "{}"}}, phase="Succeeded")
    seen_for_long(harness)
    await harness.turn()
    assert kept(harness) == ["p0"]
    assert (uid(harness, "p1"), uid(harness, "p2")) == ("uid-p1", "uid-p2")
    assert harness.server.writes("DELETE") == [f"DELETE {paths.pods(SPACE, 'p0')}"]
    assert names.RESERVATION not in harness.metadata("p2")["annotations"]


async def test_pod_on_a_lost_node_is_deleted_without_grace(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=2, **GONE)
    harness.pod("p1", gang="g", size=2, **PINNED, node="gone")
    seen_for_long(harness)
    await harness.turn()
    assert harness.pods() == []
    await harness.turn()
    assert (harness.pods(), kept(harness)) == (["p0", "p1"], [])


async def test_pod_whose_node_is_lost_while_it_terminates_is_deleted(harness: OperatorHarness) -> None:
    keep(harness, "a", **PINNED, node="n1", metadata={"deletionTimestamp": time(NOW)})
    await harness.turn()
    assert (harness.pods(), harness.server.asked) == (["a"], [])
    harness.node("n1", ready=False)
    await harness.turn()
    assert harness.work_queue.plan_at == NOW + NODE_LOSS_GRACE
    await harness.turn(2, seconds=NODE_LOSS_GRACE)
    assert (uid(harness, "a") != "uid-a", kept(harness)) == (True, [])


# A restart after each step


async def test_operator_killed_after_parking_carries_on(harness: OperatorHarness) -> None:
    """The external pod that was in the way is gone, so nothing is wrong any more but that the gang was to be requeued."""
    keep(harness, "p0", gang="g", size=2, **PINNED)
    harness.pod("p1", gang="g", size=2, **PINNED)
    restart(harness)
    await harness.turn()
    assert (kept(harness), harness.pods()) == (["p0", "p1"], [])
    await harness.turn()
    assert (kept(harness), harness.pods()) == ([], ["p0", "p1"])


async def test_new_template_leads_to_a_plan(harness: OperatorHarness) -> None:
    keep(harness, "a", **PINNED)
    harness.sync(but="podtemplates")
    harness.work_queue.begin_plan()
    harness.sync()
    assert harness.work_queue.plan_at == 0.0


async def test_operator_killed_between_two_deletions_carries_on(harness: OperatorHarness) -> None:
    """The one that is left has a controller, so nothing is written down of it."""
    keep(harness, "p0", gang="g", size=2, **PINNED)
    harness.server.drop(paths.pods(SPACE, "p0"))
    harness.pod("p1", gang="g", size=2, metadata=OWNED, **PINNED, node="n1")
    restart(harness)
    await harness.turn()
    assert (kept(harness), gated(harness, "p0"), "deletionTimestamp" in harness.metadata("p1")) == ([], True, True)


async def test_operator_killed_after_the_deletion_carries_on(harness: OperatorHarness) -> None:
    keep(harness, "a", **PINNED)
    harness.server.drop(paths.pods(SPACE, "a"))
    restart(harness)
    await harness.turn()
    assert (kept(harness), gated(harness, "a")) == ([], True)


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded"])
async def test_operator_killed_after_the_creation_deletes_the_template(harness: OperatorHarness, phase: str) -> None:
    """Or its user was faster: what is there under its name stays as it is."""
    keep(harness, "a", **PINNED)
    harness.pod("a", metadata={"uid": "later"}, phase=phase, spec={"schedulerName": "default-scheduler"})
    restart(harness)
    await harness.turn(2)
    assert (kept(harness), uid(harness, "a")) == ([], "later")
    assert harness.server.writes("POST") == []


async def test_pod_of_that_name_that_the_watch_has_not_brought_stays(harness: OperatorHarness) -> None:
    keep(harness, "a", **PINNED)
    harness.server.drop(paths.pods(SPACE, "a"))
    harness.sync()
    harness.pod("a", metadata={"uid": "later"})
    await harness.plan()
    assert (kept(harness), uid(harness, "a")) == ([], "later")


async def test_pod_that_finished_meanwhile_is_not_created_again(harness: OperatorHarness) -> None:
    keep(harness, "a", **PINNED, node="n1", phase="Succeeded")
    await harness.turn()
    assert (kept(harness), uid(harness, "a"), harness.server.writes()) == (
        [],
        "uid-a",
        [f"DELETE {paths.podtemplates(SPACE, 'uid-a')}"],
    )


# What users do meanwhile


@pytest.mark.parametrize("change", ["leaving", "gone", "created again"])
async def test_pod_that_its_user_deletes_is_not_created_again(harness: OperatorHarness, change: str) -> None:
    """At the last moment: the operator has not heard of it when it requeues the pod."""
    harness.pod("a", **GONE)
    harness.sync()
    if change == "leaving":
        harness.change(paths.pods(SPACE, "a"), metadata={"deletionTimestamp": time(NOW)})
    else:
        harness.server.drop(paths.pods(SPACE, "a"))
    if change == "created again":
        harness.pod("a", metadata={"uid": "later"}, gated=False)
    await harness.plan()
    harness.end_pods()
    await harness.turn(2)
    assert (kept(harness), harness.pods()) == ([], ["a"] if change == "created again" else [])
    assert change != "created again" or uid(harness, "a") == "later"
    assert not [line for line in harness.server.writes("POST") if "podtemplates" in line]


async def test_gang_is_requeued_without_the_pod_that_its_user_deletes(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=2, **GONE)
    harness.pod("p1", gang="g", size=2, **GONE)
    seen_for_long(harness)
    harness.server.drop(paths.pods(SPACE, "p0"))
    await harness.plan()
    assert (kept(harness), harness.pods()) == (["p1"], [])


async def test_deleted_template_ends_the_requeue(harness: OperatorHarness) -> None:
    keep(harness, "a", **PINNED)
    harness.server.drop(paths.pods(SPACE, "a"))
    harness.sync()
    harness.server.drop(paths.podtemplates(SPACE, "uid-a"))
    await harness.plan()
    assert (harness.pods(), harness.stores.of(templates.POD_TEMPLATES).get(f"{SPACE}/uid-a")) == ([], None)


async def test_template_counts_in_its_own_namespace_only(harness: OperatorHarness) -> None:
    """Who may write templates in one namespace must not hold up the gangs of another, nor make pods there."""
    body = harness.pod("other", gang="g", size=1)
    harness.server.drop(paths.pods(SPACE, "other"))
    forged = templates.template({**body, "metadata": {**body["metadata"], "namespace": "theirs"}})
    forged["template"]["metadata"]["namespace"] = SPACE
    harness.server.put(paths.podtemplates("theirs"), forged)
    harness.server.refuse("POST", "theirs/pods", 403, "never", times=1000)
    harness.pod("mine", gang="g", size=1)
    await harness.turn(2)
    assert not gated(harness, "mine")
    assert harness.server.objects.keys() >= {paths.podtemplates("theirs", "uid-other"), paths.pods(SPACE, "mine")}
    assert harness.pods() == ["mine"]


async def test_terminating_pod_is_not_parked(harness: OperatorHarness) -> None:
    harness.pod("p0", gang="g", size=2, **GONE)
    harness.pod("p1", gang="g", size=2, **PINNED, node="n1", metadata={"deletionTimestamp": time(NOW)})
    seen_for_long(harness)
    await harness.turn()
    assert (kept(harness), harness.server.writes("DELETE")) == (["p0"], [f"DELETE {paths.pods(SPACE, 'p0')}"])


# What the API server refuses


async def test_failed_requeue_is_tried_again_soon(harness: OperatorHarness) -> None:
    harness.server.refuse("POST", "podtemplates", 403, "exceeded quota")
    harness.pod("a", **GONE)
    seen_for_long(harness)
    await harness.turn()
    assert (harness.pods(), harness.work_queue.plan_at) == (["a"], NOW + RETRY_SECONDS)


async def test_failed_creation_is_tried_again_later(harness: OperatorHarness) -> None:
    """Its gang waits for it, though nobody said how many it has."""
    harness.server.refuse("POST", "/pods", 403, "exceeded quota", times=1000)
    keep(harness, "p0", gang="g", **PINNED)
    harness.server.drop(paths.pods(SPACE, "p0"))
    await harness.turn()
    assert harness.work_queue.plan_at == NOW + AGAIN_SECONDS
    harness.pod("p1", gang="g")
    await harness.turn()
    assert gated(harness, "p1")


async def test_template_that_could_not_be_deleted_does_no_harm(harness: OperatorHarness) -> None:
    harness.server.refuse("DELETE", "podtemplates", 403, "not yours", times=1000)
    keep(harness, "p0", gang="g", **PINNED)
    harness.pod("p0", gang="g", size=1, metadata={"uid": "later"})
    await harness.turn(3)
    assert (harness.pods(), uid(harness, "p0"), gated(harness, "p0")) == (["p0"], "later", False)


async def test_pod_that_could_not_be_parked_is_not_deleted(harness: OperatorHarness) -> None:
    harness.server.refuse("POST", "podtemplates", 403, "exceeded quota")
    harness.pod("p0", gang="g", size=2, **GONE)
    harness.pod("p1", gang="g", size=2, **GONE)
    seen_for_long(harness)
    await harness.turn()
    assert (harness.pods(), len(kept(harness))) == (["p0", "p1"], 1)
    await harness.turn()
    assert (harness.pods(), kept(harness)) == ([], ["p0", "p1"])


async def test_pod_that_cannot_be_deleted_holds_up_no_other_gang(harness: OperatorHarness) -> None:
    harness.server.refuse("DELETE", "pods/a", 403, "not yours", times=1000)
    harness.pod("a", **GONE)
    harness.pod("b", 1)
    await harness.turn(2)
    assert (gated(harness, "b"), harness.pods()) == (False, ["a", "b"])


async def test_pod_that_cannot_be_created_stays_parked_and_is_reported(harness: OperatorHarness) -> None:
    harness.server.refuse("POST", "/pods", 403, "exceeded quota", times=2)
    keep(harness, "a", **PINNED)
    harness.server.drop(paths.pods(SPACE, "a"))
    harness.pod("b", 1)
    await harness.turn(3)
    assert (harness.pods(), kept(harness), gated(harness, "b")) == (["b"], ["a"], False)
    assert harness.server.writes("POST").count(f"POST {paths.pods(SPACE)}") == 1
    assert harness.work_queue.plan_at <= NOW + AGAIN_SECONDS
    assert ("Warning", "a", "RequeueFailed") in await harness.events()
    await harness.turn(2, seconds=AGAIN_SECONDS)
    assert (harness.pods(), kept(harness)) == (["a", "b"], [])
