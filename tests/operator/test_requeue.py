"""Gangs of foreign pods that cannot start: taken back whole, and bare pods created again, once, whatever comes between."""

from __future__ import annotations

from typing import Any

import pytest

from builders.dljobs import BORN, NOW, Json, condition, time
from builders.office import SPACE, Office
from muster.api import names
from muster.kube import paths
from muster_operator import templates
from muster_operator.desk import NEVER, RETRY_SECONDS
from muster_operator.lifecycle import REFUSED_SECONDS
from muster_operator.planning import Planning
from muster_operator.requeue import REFUSED_SECONDS as AGAIN_SECONDS

GIVEN = {names.GPUS: "0", names.RANK: "0"}
PINNED: Json = {"gated": False, "pin": "n1", "annotations": GIVEN}
GONE: Json = {**PINNED, "pin": "gone"}
REFUSED = condition("PodScheduled", "False", reason="Unschedulable", since=NOW)
OWNED: Json = {"ownerReferences": [{"kind": "Job", "name": "j", "uid": "uid-j", "controller": True}]}


def kept(office: Office) -> list[str]:
    """The pods of which there is a template."""
    return sorted(found["template"]["metadata"]["name"] for found in office.server.of("podtemplates"))


def keep(office: Office, pod: str, **fields: Any) -> None:
    """Write a pod's template as an operator did that was killed then."""
    body = templates.template(office.pod(pod, **fields))
    body["metadata"]["uid"] = f"uid-of-the-template-of-{pod}"
    office.server.put(paths.podtemplates(SPACE), body)


def uid(office: Office, pod: str) -> str:
    return str(office.metadata(pod)["uid"])


def restart(office: Office) -> None:
    office.planning = Planning(office.desk, office.planning._planner.settings)


def gated(office: Office, pod: str) -> bool:
    return bool(office.server.objects[paths.pods(SPACE, pod)]["spec"].get("schedulingGates"))


async def test_a_pod_that_cannot_start_is_taken_back_with_its_gang(office: Office) -> None:
    office.pod("p0", gang="g", size=3, **PINNED, conditions=[REFUSED])
    office.pod("p1", gang="g", size=3, **PINNED, node="n1")
    office.pod("p2", gang="h", size=1, **PINNED, node="n1")
    await office.turn()
    assert office.desk.plan_at == NOW + REFUSED_SECONDS
    assert office.pods() == ["p0", "p1", "p2"]
    await office.turn(seconds=REFUSED_SECONDS)
    assert office.pods() == ["p1", "p2"]
    assert ("deletionTimestamp" in office.metadata("p1"), "deletionTimestamp" in office.metadata("p2")) == (True, False)
    events = [(name, reason) for _, name, reason in await office.events()]
    assert events == [("p0", "TakenBack"), ("p1", "TakenBack")]


async def test_bare_pods_come_again_and_their_gang_is_let_go_in_its_turn(office: Office) -> None:
    """All is written down before anything is deleted; nothing of the gang starts before the last of it is back."""
    office.pod("p0", gang="g", size=2, **GONE)
    office.pod("p1", gang="g", size=2, **PINNED, node="n1")
    await office.turn()
    writes = [line.split()[0] for line in office.server.writes("POST", "DELETE") if not line.endswith("/events")]
    assert writes == ["POST", "POST", "DELETE", "DELETE"]
    assert kept(office) == ["p0", "p1"]
    assert sorted(office.stores.templates) == [f"{SPACE}/uid-p0", f"{SPACE}/uid-p1"], "known before the watch says so"
    await office.turn(2)
    assert (kept(office), office.pods(), gated(office, "p0")) == (["p1"], ["p0", "p1"], True)
    assert "1 not created yet" in office.metadata("p0")["annotations"][names.WAITING]
    office.end_pods()
    await office.turn(2)
    assert (kept(office), gated(office, "p1")) == ([], True)
    assert uid(office, "p1") != "uid-p1"
    await office.turn(2, seconds=1)
    assert [gated(office, pod) for pod in office.pods()] == [False, False]
    assert office.server.writes("POST").count(f"POST {paths.pods(SPACE)}") == 2


async def test_without_a_size_too_a_gang_waits_for_what_is_to_be_created_again(office: Office) -> None:
    office.pod("p0", gang="g", **GONE)
    office.pod("p1", gang="g", **PINNED, node="n1")
    await office.turn(3, seconds=60)
    assert (office.pods(), gated(office, "p0")) == (["p0", "p1"], True)
    assert "1 not created yet" in office.metadata("p0")["annotations"][names.WAITING]


async def test_the_first_arrival_and_the_back_off_go_with_it(office: Office) -> None:
    """Taken back for the third time, so 4 s from its creation; its place in the queue is that of its first."""
    office.pod("a", **{**GONE, "annotations": GIVEN | {names.REQUEUES: "2", names.QUEUED_AT: time(BORN - 99)}})
    await office.turn(3)
    notes = office.metadata("a")["annotations"]
    assert (notes[names.QUEUED_AT], notes[names.REQUEUES], gated(office, "a")) == (time(BORN - 99), "3", True)
    assert office.desk.plan_at == NOW + 4
    (gang,) = office.planning._foreign.gangs()
    assert (gang.arrived, gang.not_before) == (BORN - 99, NOW + 4)
    await office.turn(seconds=3.9)
    assert gated(office, "a")
    await office.turn(seconds=0.2)
    assert not gated(office, "a")


async def test_pods_with_a_controller_are_left_to_it(office: Office) -> None:
    office.pod("p0", gang="g", size=2, metadata=OWNED, **GONE)
    office.pod("p1", gang="g", size=2, **PINNED, node="n1")
    await office.turn()
    office.end_pods()
    await office.turn(2)
    assert (office.pods(), kept(office)) == (["p1"], [])


async def test_what_is_gated_waits_on_and_what_has_ended_stays(office: Office) -> None:
    office.pod("p0", gang="g", size=3, **GONE)
    office.pod("p1", gang="g", size=3)
    office.pod("p2", gang="g", size=3, **{**PINNED, "annotations": {names.RESERVATION: "{}"}}, phase="Succeeded")
    await office.turn()
    assert kept(office) == ["p0"]
    assert (uid(office, "p1"), uid(office, "p2")) == ("uid-p1", "uid-p2")
    assert office.server.writes("DELETE") == [f"DELETE {paths.pods(SPACE, 'p0')}"]
    assert names.RESERVATION not in office.metadata("p2")["annotations"]


async def test_a_pod_on_a_node_that_is_gone_is_not_waited_for(office: Office) -> None:
    office.pod("p0", gang="g", size=2, **GONE)
    office.pod("p1", gang="g", size=2, **PINNED, node="gone")
    await office.turn()
    assert office.pods() == []
    await office.turn()
    assert (office.pods(), kept(office)) == (["p0", "p1"], [])


async def test_a_node_that_goes_while_its_pod_ends(office: Office) -> None:
    keep(office, "a", **PINNED, node="n1", metadata={"deletionTimestamp": time(NOW)})
    await office.turn()
    assert (office.pods(), office.server.asked) == (["a"], [])
    office.node("n1", ready=False)
    await office.turn(2)
    assert (uid(office, "a") != "uid-a", kept(office)) == (True, [])


# A restart after each step


async def test_killed_after_the_template(office: Office) -> None:
    """The foreign pod that was in the way is gone, so nothing is wrong any more but that the gang was to be taken back."""
    keep(office, "p0", gang="g", size=2, **PINNED)
    office.pod("p1", gang="g", size=2, **PINNED)
    restart(office)
    await office.turn()
    assert (kept(office), office.pods()) == (["p0", "p1"], [])
    await office.turn()
    assert (kept(office), office.pods()) == ([], ["p0", "p1"])


async def test_a_template_that_is_heard_of_is_looked_at(office: Office) -> None:
    keep(office, "a", **PINNED)
    office.sync(but="podtemplates")
    office.desk.plan_at = NEVER
    office.sync()
    assert office.desk.plan_at == 0.0


async def test_killed_between_two_deletions(office: Office) -> None:
    """The one that is left has a controller, so nothing is written down of it."""
    keep(office, "p0", gang="g", size=2, **PINNED)
    office.server.drop(paths.pods(SPACE, "p0"))
    office.pod("p1", gang="g", size=2, metadata=OWNED, **PINNED, node="n1")
    restart(office)
    await office.turn()
    assert (kept(office), gated(office, "p0"), "deletionTimestamp" in office.metadata("p1")) == ([], True, True)


async def test_killed_after_the_deletion(office: Office) -> None:
    keep(office, "a", **PINNED)
    office.server.drop(paths.pods(SPACE, "a"))
    restart(office)
    await office.turn()
    assert (kept(office), gated(office, "a")) == ([], True)


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded"])
async def test_killed_after_the_creation(office: Office, phase: str) -> None:
    """Or its user was faster: what is there under its name stays as it is."""
    keep(office, "a", **PINNED)
    office.pod("a", metadata={"uid": "later"}, phase=phase, spec={"schedulerName": "default-scheduler"})
    restart(office)
    await office.turn(2)
    assert (kept(office), uid(office, "a")) == ([], "later")
    assert office.server.writes("POST") == []


async def test_a_pod_of_that_name_that_nobody_has_heard_of_yet(office: Office) -> None:
    keep(office, "a", **PINNED)
    office.server.drop(paths.pods(SPACE, "a"))
    office.sync()
    office.pod("a", metadata={"uid": "later"})
    await office.planning.run(office.now)
    assert (kept(office), uid(office, "a")) == ([], "later")


async def test_a_pod_that_ran_to_its_end_meanwhile_does_not_run_again(office: Office) -> None:
    keep(office, "a", **PINNED, node="n1", phase="Succeeded")
    await office.turn()
    assert (kept(office), uid(office, "a"), office.server.writes()) == (
        [],
        "uid-a",
        [f"DELETE {paths.podtemplates(SPACE, 'uid-a')}"],
    )


# What users do meanwhile


@pytest.mark.parametrize("change", ["leaving", "gone", "made anew"])
async def test_what_its_user_deletes_does_not_come_again(office: Office, change: str) -> None:
    """At the last moment: the operator has not heard of it when it takes the pod back."""
    office.pod("a", **GONE)
    office.sync()
    if change == "leaving":
        office.change(paths.pods(SPACE, "a"), metadata={"deletionTimestamp": time(NOW)})
    else:
        office.server.drop(paths.pods(SPACE, "a"))
    if change == "made anew":
        office.pod("a", metadata={"uid": "later"}, gated=False)
    await office.planning.run(office.now)
    office.end_pods()
    await office.turn(2)
    assert (kept(office), office.pods()) == ([], ["a"] if change == "made anew" else [])
    assert change != "made anew" or uid(office, "a") == "later"
    assert not [line for line in office.server.writes("POST") if "podtemplates" in line]


async def test_the_rest_of_a_gang_is_taken_back_without_the_pod_that_its_user_deletes(office: Office) -> None:
    office.pod("p0", gang="g", size=2, **GONE)
    office.pod("p1", gang="g", size=2, **GONE)
    office.sync()
    office.server.drop(paths.pods(SPACE, "p0"))
    await office.planning.run(office.now)
    assert (kept(office), office.pods()) == (["p1"], [])


async def test_who_deletes_the_template_has_the_pod_forgotten(office: Office) -> None:
    keep(office, "a", **PINNED)
    office.server.drop(paths.pods(SPACE, "a"))
    office.sync()
    office.server.drop(paths.podtemplates(SPACE, "uid-a"))
    await office.planning.run(office.now)
    assert (office.pods(), office.stores.templates.get(f"{SPACE}/uid-a")) == ([], None)


async def test_a_template_speaks_for_its_own_namespace_only(office: Office) -> None:
    """Who may write templates in one namespace must not hold up the gangs of another, nor make pods there."""
    body = office.pod("other", gang="g", size=1)
    office.server.drop(paths.pods(SPACE, "other"))
    forged = templates.template({**body, "metadata": {**body["metadata"], "namespace": "theirs"}})
    forged["template"]["metadata"]["namespace"] = SPACE
    office.server.put(paths.podtemplates("theirs"), forged)
    office.server.refuse("POST", "theirs/pods", 403, "never", times=1000)
    office.pod("mine", gang="g", size=1)
    await office.turn(2)
    assert not gated(office, "mine")
    assert office.server.objects.keys() >= {paths.podtemplates("theirs", "uid-other"), paths.pods(SPACE, "mine")}
    assert office.pods() == ["mine"]


async def test_a_pod_that_its_user_deletes_leaves_without_the_others(office: Office) -> None:
    office.pod("p0", gang="g", size=2, **GONE)
    office.pod("p1", gang="g", size=2, **PINNED, node="n1", metadata={"deletionTimestamp": time(NOW)})
    await office.turn()
    assert (kept(office), office.server.writes("DELETE")) == (["p0"], [f"DELETE {paths.pods(SPACE, 'p0')}"])


# What the API server refuses


async def test_what_could_not_be_taken_back_is_tried_again_soon(office: Office) -> None:
    office.server.refuse("POST", "podtemplates", 403, "exceeded quota")
    office.pod("a", **GONE)
    await office.turn()
    assert (office.pods(), office.desk.plan_at) == (["a"], NOW + RETRY_SECONDS)


async def test_what_could_not_be_created_again_is_tried_again_later(office: Office) -> None:
    """Its gang waits for it, though nobody said how many it has."""
    office.server.refuse("POST", "/pods", 403, "exceeded quota", times=1000)
    keep(office, "p0", gang="g", **PINNED)
    office.server.drop(paths.pods(SPACE, "p0"))
    await office.turn()
    assert office.desk.plan_at == NOW + AGAIN_SECONDS
    office.pod("p1", gang="g")
    await office.turn()
    assert gated(office, "p1")


async def test_a_template_that_could_not_be_deleted_does_no_harm(office: Office) -> None:
    office.server.refuse("DELETE", "podtemplates", 403, "not yours", times=1000)
    keep(office, "p0", gang="g", **PINNED)
    office.pod("p0", gang="g", metadata={"uid": "later"})
    await office.turn(3)
    assert (office.pods(), uid(office, "p0"), gated(office, "p0")) == (["p0"], "later", False)


async def test_nothing_is_deleted_that_could_not_be_written_down(office: Office) -> None:
    office.server.refuse("POST", "podtemplates", 403, "exceeded quota")
    office.pod("p0", gang="g", size=2, **GONE)
    office.pod("p1", gang="g", size=2, **GONE)
    await office.turn()
    assert (office.pods(), len(kept(office))) == (["p0", "p1"], 1)
    await office.turn()
    assert (office.pods(), kept(office)) == ([], ["p0", "p1"])


async def test_a_pod_that_may_not_be_deleted_holds_up_nobody(office: Office) -> None:
    office.server.refuse("DELETE", "pods/a", 403, "not yours", times=1000)
    office.pod("a", **GONE)
    office.pod("b", 1)
    await office.turn(2)
    assert (gated(office, "b"), office.pods()) == (False, ["a", "b"])


async def test_a_pod_that_may_not_be_created_again_is_kept_and_told(office: Office) -> None:
    office.server.refuse("POST", "/pods", 403, "exceeded quota", times=2)
    keep(office, "a", **PINNED)
    office.server.drop(paths.pods(SPACE, "a"))
    office.pod("b", 1)
    await office.turn(3)
    assert (office.pods(), kept(office), gated(office, "b")) == (["b"], ["a"], False)
    assert office.server.writes("POST").count(f"POST {paths.pods(SPACE)}") == 1
    assert office.desk.plan_at <= NOW + AGAIN_SECONDS
    assert ("Warning", "a", "NotQueuedAgain") in await office.events()
    await office.turn(2, seconds=AGAIN_SECONDS)
    assert (office.pods(), kept(office)) == (["a", "b"], [])
