"""One plan over everything: nothing is given away twice, what could not be written is planned again, waiting is told."""

from __future__ import annotations

import pytest

from builders.dljobs import Json, roles, time
from builders.office import SPACE, Office
from muster.api import names
from muster.kube import paths
from muster_operator import planning
from muster_operator.desk import RETRY_SECONDS
from muster_operator.planning import SAY_SECONDS

WHOLE = roles(workers=1, gpus=4)
"""A job that fills a node."""


def held(office: Office) -> dict[str, list[tuple[str, int]]]:
    """GPUs that the jobs' placements name, by job."""
    jobs = office.server.of("dljobs")
    places = {job["metadata"]["name"]: (job["status"] or {}).get("placement", []) for job in jobs}
    return {name: sorted((p["node"], gpu) for p in found for gpu in p["gpus"]) for name, found in places.items() if found}


def once(office: Office) -> bool:
    """Whether no GPU is held twice."""
    gpus = [gpu for found in held(office).values() for gpu in found]
    return len(gpus) == len(set(gpus))


async def test_every_gpu_is_given_once(office: Office) -> None:
    for number in range(6):
        office.submit(f"job{number}", roles=roles(workers=1, gpus=3 if number % 2 else 1))
    await office.turn(4)
    assert once(office)
    assert sum(len(found) for found in held(office).values()) == 8


async def test_a_busy_job_keeps_what_it_holds(office: Office) -> None:
    """Its placement is written but its pods are not there yet, and its work goes on and on: the GPUs are taken all the same."""
    office.submit("first", roles=WHOLE)
    await office.turn(2)
    office.desk.busy.add("vision/first")
    office.submit("second", roles=roles(workers=2, gpus=4))
    office.submit("third", roles=WHOLE)
    office.sync()
    for key in office.desk.due(office.now):
        office.steps.look_at(key, office.now)
    await office.until(lambda: office.desk.busy == {"vision/first"})
    for _ in range(3):
        await office.planning.run(office.now)
        await office.until(lambda: office.desk.busy == {"vision/first"})
    assert (once(office), "first" in held(office), len(held(office)["first"])) == (True, True, 4)


async def test_a_busy_job_that_waits_is_not_planned(office: Office) -> None:
    office.submit(roles=WHOLE)
    office.sync()
    await office.look()
    office.desk.busy.add("vision/vgg16")
    await office.planning.run(office.now)
    assert held(office) == {}
    office.desk.busy.clear()
    await office.planning.run(office.now)
    assert len(held(office)["vgg16"]) == 4


async def test_a_write_that_fails_is_planned_again(office: Office) -> None:
    office.submit("first", roles=WHOLE)
    office.submit("second", roles=WHOLE)
    office.server.refuse("PATCH", "first/status", 403, "not today")
    await office.turn(2)
    assert set(held(office)) == {"second"}
    assert office.desk.plan_at <= office.now + RETRY_SECONDS
    await office.turn(seconds=RETRY_SECONDS)
    assert (set(held(office)), once(office)) == ({"first", "second"}, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"suspend": True},
        {"status": {"phase": "Failed"}},
        {"metadata": {"deletionTimestamp": time(0)}},
        {"annotations": {names.SUSPEND: "true"}},
    ],
)
async def test_who_is_not_planned(office: Office, fields: Json) -> None:
    office.submit(roles=WHOLE, **fields)
    await office.turn(4)
    assert held(office) == {}


async def test_nothing_is_placed_while_pods_of_the_job_still_run(office: Office) -> None:
    office.submit(roles=WHOLE)
    await office.turn(3)
    office.run_pods()
    await office.turn()
    office.node("n1", ready=True)
    pod = office.server.of("pods")[0]["metadata"]["name"]
    office.change(paths.pods(SPACE, pod), metadata={"deletionTimestamp": time(office.now)})
    await office.turn(4, seconds=5)
    assert (office.status()["phase"], held(office)) == ("Queued", {})
    office.end_pods()
    await office.turn(2)
    assert office.status()["phase"] == "Admitted"


# Telling what is waited for


async def waiting(office: Office) -> None:
    """Two jobs that hold all, and a third that waits."""
    for name in ("a", "b", "c"):
        office.submit(name, roles=WHOLE)
        await office.turn(3)
    assert office.status("c")["phase"] == "Queued"


async def test_a_job_is_told_why_it_waits(office: Office) -> None:
    await waiting(office)
    reason, message = office.admitted("c")
    assert reason == "InsufficientGPUs"
    assert "needs 4 GPUs" in message
    events = await office.events()
    assert ("Normal", "c", "InsufficientGPUs") in events


async def test_newer_numbers_are_told_now_and_then(office: Office) -> None:
    await waiting(office)
    before = office.admitted("c")
    office.node("n3")
    office.pod("other", 3, gated=False, node="n3", spec={"schedulerName": "default-scheduler"})
    await office.turn(2, seconds=1)
    assert office.admitted("c") == before
    assert office.desk.plan_at <= office.now + SAY_SECONDS
    await office.turn(2, seconds=SAY_SECONDS)
    assert office.admitted("c")[0] == before[0]
    assert office.admitted("c") != before


async def test_another_reason_is_told_at_once(office: Office) -> None:
    await waiting(office)
    office.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"gpus": 8}})
    await office.turn(2)
    assert office.admitted("c")[0] == "QuotaExhausted"


async def test_not_everybody_is_told_at_once(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SAY_AT_ONCE", 3)
    for number in range(8):
        office.submit(f"job{number}", roles=roles(workers=1, gpus=64))
    await office.turn(2)
    told = [job["metadata"]["name"] for job in office.server.of("dljobs") if job["status"]]
    assert (len(told), office.desk.plan_at) == (3, office.now + 1.0)
    for _ in range(3):
        await office.turn(seconds=1)
    reasons = [office.admitted(f"job{number}")[0] for number in range(8)]
    assert reasons == ["NeverFits"] * 8


async def test_the_reason_for_backing_off_is_not_overwritten(office: Office) -> None:
    office.submit(roles=WHOLE)
    await office.turn(2)
    office.server.refuse("POST", "pods", 403, "no pods today")
    await office.turn(3)
    assert office.admitted() == ("PodRefused", "no pods today")
    assert office.desk.plan_at <= office.now + 2
    await office.turn(3, seconds=2)
    assert office.status()["phase"] == "Admitted"


# Giving way and moving


async def test_a_job_of_higher_priority_takes_the_place(office: Office) -> None:
    office.submit("low", roles=roles(workers=2, gpus=4))
    await office.turn(3)
    office.run_pods()
    await office.turn()
    office.submit("high", roles=WHOLE, priority=10)
    await office.turn(3)
    assert (office.status("low")["phase"], office.admitted("low")[1]) == (
        "Queued",
        "gave way to vision/high, which has priority 10",
    )
    await office.turn(2, seconds=2)
    office.end_pods()
    await office.turn(3)
    assert set(held(office)) == {"high"}
    assert ("Warning", "low", "Preempted") in await office.events()


async def test_of_jobs_that_take_turns_the_one_that_had_least_goes_first(office: Office) -> None:
    turns = {"timeSlicing": True}
    office.submit("long", roles=roles(workers=2, gpus=4), sharing=turns)
    await office.turn(3)
    office.run_pods()
    await office.turn(2, seconds=600)
    office.submit("new", roles=WHOLE, sharing=turns)
    await office.turn(3)
    assert (office.status("long")["phase"], office.admitted("long")[1]) == ("Queued", "others have had less")
    assert office.admitted("new")[0] == "PodsStopping"  # its GPUs are promised, not given, while others hold them
    assert "new" not in held(office)
    await office.turn(2, seconds=2)
    office.end_pods()
    await office.turn(3)
    assert set(held(office)) == {"new"}
    assert once(office)


async def test_nobody_gives_way_shortly_before_jobs_usually_end(office: Office) -> None:
    """Twenty jobs took 1000 s each: one that has run for 900 promises more than a new one."""
    turns = {"timeSlicing": True}
    usual = {"phase": "Succeeded", "finishedAt": time(office.now), "gpuSeconds": 4000.0, "gpus": 4}
    for number in range(20):
        office.submit(f"done{number}", roles=WHOLE, status=usual)
    office.submit("long", roles=roles(workers=2, gpus=4), sharing=turns)
    await office.turn(3)
    office.run_pods()
    assert "long" in held(office)
    await office.turn(2, seconds=450)
    office.submit("new", roles=WHOLE, sharing=turns)
    await office.turn(3)
    assert set(held(office)) == {"long"}


async def test_a_job_that_shares_nothing_does_not_take_turns(office: Office) -> None:
    office.submit("long", roles=roles(workers=2, gpus=4))
    await office.turn(3)
    office.run_pods()
    await office.turn(2, seconds=600)
    office.submit("new", roles=WHOLE, sharing={"timeSlicing": True})
    await office.turn(3, seconds=60)
    assert set(held(office)) == {"long"}


async def test_the_priority_of_a_class_is_looked_up_afresh(office: Office) -> None:
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    office.submit("low", roles=roles(workers=2, gpus=4))
    await office.turn(3)
    office.submit("high", roles=WHOLE, priorityClassName="urgent")
    await office.turn(3)
    assert office.status("low")["phase"] == "Admitted"
    office.server.put(classes, {"metadata": {"name": "urgent"}, "value": 1000})
    await office.turn(2)
    assert office.status("low")["phase"] == "Queued"


async def test_a_wish_to_move_is_granted_once(office: Office) -> None:
    office.submit(roles=WHOLE, annotations={names.MIGRATE: ""})
    await office.turn(4)
    assert (office.status()["attempt"], office.server.of("dljobs")[0]["metadata"]["annotations"]) == (1, {})
    before = held(office)["vgg16"][0][0]
    office.change(paths.dljobs(SPACE, "vgg16"), metadata={"annotations": {names.MIGRATE: before}})
    await office.turn(6)
    assert (office.status()["attempt"], office.server.of("dljobs")[0]["metadata"]["annotations"]) == (2, {})
    assert held(office)["vgg16"][0][0] != before
    assert office.status()["timeline"][-1]["event"] == "Migrated"


async def test_a_job_that_cannot_move_stays_and_says_so_once(office: Office) -> None:
    office.submit("a", roles=WHOLE)
    await office.turn(2)
    office.submit("b", roles=WHOLE)
    await office.turn(3)
    node = held(office)["a"][0][0]
    office.change(paths.dljobs(SPACE, "a"), metadata={"annotations": {names.MIGRATE: node}})
    await office.turn(5, seconds=1)
    status = office.status("a")
    assert (status["attempt"], [e["event"] for e in status["timeline"]].count("Stays")) == (1, 1)
    assert status["message"].startswith("stays where it is")


# Queues


async def test_a_queue_tells_what_it_holds(office: Office) -> None:
    queue = {"metadata": {"name": "default", "namespace": SPACE, "generation": 3}, "spec": {"gpus": 4}}
    office.server.put(paths.dlqueues(SPACE), queue)
    office.submit("a", roles=WHOLE)
    office.submit("b", roles=WHOLE)
    await office.turn(3)
    status = office.server.of("dlqueues")[0]["status"]
    assert status == {"observedGeneration": 3, "gpusInUse": 4, "pending": 1, "running": 1}
    done = office.server.writes("PATCH").count(paths.dlqueues(SPACE, "default") + "/status")
    await office.turn(3)
    assert office.server.writes("PATCH").count(paths.dlqueues(SPACE, "default") + "/status") == done
