"""One plan over everything: no GPU is given twice, failed writes are planned again, waiting jobs are told why."""

from __future__ import annotations

import pytest

from builders.dljobs import Json, dljob, roles, time
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.dlqueue.controller import SAME_COUNTS_SECONDS
from muster_operator.planning.telling import SAME_REASON_SECONDS
from muster_operator.work_queue import RETRY_SECONDS

CLASSES = paths.priorityclasses()
WHOLE = roles(workers=1, gpus=4)
"""A job that fills a node."""


def held(harness: OperatorHarness) -> dict[str, list[tuple[str, int]]]:
    """GPUs that the jobs' placements name, by job."""
    jobs = harness.server.of("dljobs")
    places = {job["metadata"]["name"]: (job["status"] or {}).get("placement", []) for job in jobs}
    return {name: sorted((p["node"], gpu) for p in found for gpu in p["gpus"]) for name, found in places.items() if found}


def once(harness: OperatorHarness) -> bool:
    """Whether no GPU is held twice."""
    gpus = [gpu for found in held(harness).values() for gpu in found]
    return len(gpus) == len(set(gpus))


async def test_every_gpu_is_given_to_one_job(harness: OperatorHarness) -> None:
    for number in range(6):
        harness.submit(f"job{number}", roles=roles(workers=1, gpus=3 if number % 2 else 1))
    await harness.turn(4)
    assert once(harness)
    assert sum(len(found) for found in held(harness).values()) == 8


async def test_busy_job_keeps_what_it_holds(harness: OperatorHarness) -> None:
    """Its placement is written, its pods do not exist yet, and its work goes on: the GPUs are taken all the same."""
    harness.submit("first", roles=WHOLE)
    await harness.turn(2)
    harness.keep_busy("first")
    harness.submit("second", roles=roles(workers=2, gpus=4))
    harness.submit("third", roles=WHOLE)
    harness.sync()
    await harness.look()
    for _ in range(3):
        await harness.plan()
        await harness.idle()
    assert (once(harness), "first" in held(harness), len(held(harness)["first"])) == (True, True, 4)


async def test_busy_job_that_waits_is_not_planned(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE)
    harness.sync()
    await harness.look()
    harness.keep_busy("vgg16")
    await harness.plan()
    assert held(harness) == {}
    await harness.release("vgg16")
    assert harness.work_queue.plan_at == 0.0
    await harness.plan()
    assert len(held(harness)["vgg16"]) == 4


async def test_write_that_fails_is_planned_again(harness: OperatorHarness) -> None:
    harness.submit("first", roles=WHOLE)
    harness.submit("second", roles=WHOLE)
    harness.server.refuse("PATCH", "first/status", 403, "not today")
    await harness.turn(2)
    assert set(held(harness)) == {"second"}
    assert harness.work_queue.plan_at <= harness.now + RETRY_SECONDS
    await harness.turn(seconds=RETRY_SECONDS)
    assert (set(held(harness)), once(harness)) == ({"first", "second"}, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"suspend": True},
        {"status": {"phase": "Failed"}},
        {"metadata": {"deletionTimestamp": time(0)}},
        {"annotations": {names.SUSPEND: "true"}},
    ],
)
async def test_suspended_finished_and_deleted_jobs_are_not_planned(harness: OperatorHarness, fields: Json) -> None:
    harness.submit(roles=WHOLE, **fields)
    await harness.turn(4)
    assert held(harness) == {}


async def test_nothing_is_placed_while_pods_of_the_job_still_run(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.node("n1", ready=True)
    pod = harness.server.of("pods")[0]["metadata"]["name"]
    harness.change(paths.pods(SPACE, pod), metadata={"deletionTimestamp": time(harness.now)})
    await harness.turn(4, seconds=5)
    assert (harness.status()["phase"], held(harness)) == ("Queued", {})
    harness.end_pods()
    await harness.turn(2)
    assert harness.status()["phase"] == "Admitted"


# Telling what is waited for


async def waiting(harness: OperatorHarness) -> None:
    """Two jobs that hold all, and a third that waits."""
    for name in ("a", "b", "c"):
        harness.submit(name, roles=WHOLE)
        await harness.turn(3)
    assert harness.status("c")["phase"] == "Queued"


async def test_job_is_told_why_it_waits(harness: OperatorHarness) -> None:
    await waiting(harness)
    reason, message = harness.admitted("c")
    assert reason == "InsufficientGPUs"
    assert "needs 4 GPUs" in message
    events = await harness.events()
    assert ("Normal", "c", "InsufficientGPUs") in events


async def test_cause_of_a_back_off_is_not_overwritten(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE)
    await harness.turn(2)
    harness.server.refuse("POST", "pods", 403, "no pods today")
    await harness.turn(3)
    assert harness.admitted() == ("FailedCreate", "no pods today")
    assert harness.work_queue.plan_at <= harness.now + 2
    await harness.turn(3, seconds=2)
    assert harness.status()["phase"] == "Admitted"


# Giving way and moving


async def test_job_of_higher_priority_preempts(harness: OperatorHarness) -> None:
    harness.submit("low", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.submit("high", roles=WHOLE, priority=10)
    await harness.turn(3)
    assert (harness.status("low")["phase"], harness.admitted("low")[1]) == (
        "Queued",
        "preempted by vision/high, which has priority 10",
    )
    await harness.turn(2, seconds=2)
    harness.end_pods()
    await harness.turn(3)
    assert set(held(harness)) == {"high"}
    assert ("Warning", "low", "Preempted") in await harness.events()


async def test_integer_of_another_namespace_preempts_nobody_and_is_told_no_names(harness: OperatorHarness) -> None:
    """Seen: `priority: 1000000000`, which anybody may write, took the GPUs of another team."""
    harness.submit("secret", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    other = dljob("greedy", roles=WHOLE, priority=10**9, metadata={"namespace": "other"})
    harness.server.put(paths.dljobs("other"), other)
    other = dljob("next", roles=WHOLE, metadata={"namespace": "third"})
    harness.server.put(paths.dljobs("third"), other)
    await harness.turn(3)
    assert set(held(harness)) == {"secret"}
    message = harness.server.objects[paths.dljobs("third", "next")]["status"]["message"]
    assert message == "needs 4 GPUs; comes after a gang of another namespace, which waits for GPUs"


async def test_priority_class_preempts_across_namespaces_and_names_nobody(harness: OperatorHarness) -> None:
    harness.server.put(CLASSES, {"metadata": {"name": "urgent"}, "value": 7})
    harness.submit("secret", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    other = dljob("boss", roles=WHOLE, priorityClassName="urgent", metadata={"namespace": "other"})
    harness.server.put(paths.dljobs("other"), other)
    await harness.turn(2)
    assert harness.admitted("secret")[1] == "preempted by a gang of another namespace, which has priority 7"
    told = harness.server.objects[paths.dljobs("other", "boss")]["status"]["message"]
    assert told == "takes the place of a gang of another namespace (lower priority)"
    assert "secret" not in str([event for event in harness.server.of("events") if event["metadata"]["namespace"] == "other"])


async def test_job_whose_priority_class_does_not_exist_waits_and_says_so(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE, priorityClassName="urgent")
    await harness.turn(3)
    assert harness.admitted() == ("NotFound", "PriorityClass urgent does not exist")
    harness.server.put(CLASSES, {"metadata": {"name": "urgent"}, "value": 7})
    await harness.turn(2)
    assert set(held(harness)) == {"vgg16"}


async def test_running_job_keeps_the_priority_that_its_pods_were_admitted_with(harness: OperatorHarness) -> None:
    """As in Kubernetes: its class may be deleted, even made anew with another value."""
    for name, value in (("urgent", 1000), ("usual", 10)):
        harness.server.put(CLASSES, {"metadata": {"name": name}, "value": value})
    harness.submit("runs", roles=roles(workers=2, gpus=4), priorityClassName="urgent")
    await harness.turn(3)
    for name in harness.pods():
        harness.change(paths.pods(SPACE, name), spec={"priority": 1000})
    harness.run_pods()
    await harness.turn()
    harness.server.drop(f"{CLASSES}/urgent")
    harness.submit("next", roles=WHOLE, priorityClassName="usual")
    await harness.turn(3)
    harness.restart()
    await harness.turn(3)
    harness.server.put(CLASSES, {"metadata": {"name": "urgent"}, "value": 1})
    await harness.turn(3)
    assert (harness.status("runs")["phase"], harness.status("runs")["attempt"]) == ("Running", 1)
    assert harness.admitted("next")[0] == "InsufficientGPUs"


def queue(harness: OperatorHarness, name: str, gpus: int | None) -> None:
    harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": name, "namespace": SPACE}, "spec": {"gpus": gpus}})


async def test_job_that_waits_for_its_quota_holds_no_gpus_of_others(harness: OperatorHarness) -> None:
    """Seen: a job that waited for its own queue's quota kept 95 of 96 GPUs from every other team."""
    queue(harness, "small", 7)
    harness.submit("first", roles=roles(workers=1, gpus=1), queue="small")
    await harness.turn(2)
    harness.submit("greedy", roles=roles(workers=7, gpus=1), queue="small")
    await harness.turn(2)
    assert harness.admitted("greedy") == ("QuotaExhausted", "needs 7 GPUs; queue vision/small uses 1 of 7 GPUs")
    later: Json = {"namespace": "other", "creationTimestamp": time(harness.now)}
    harness.server.put(paths.dljobs("other"), dljob("other", roles=roles(workers=7, gpus=1), metadata=later))
    await harness.turn(2)
    assert set(held(harness)) == {"first", "other"}


async def test_higher_priority_preempts_a_lower_one_within_a_full_quota(harness: OperatorHarness) -> None:
    queue(harness, "small", 4)
    harness.submit("low", roles=WHOLE, queue="small")
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.submit("high", roles=WHOLE, queue="small", priority=1)
    await harness.turn(3)
    assert harness.admitted("low")[1] == "preempted by vision/high, which has priority 1"
    await harness.turn(2, seconds=2)
    harness.end_pods()
    await harness.turn(3)
    assert set(held(harness)) == {"high"}


async def test_job_of_a_queue_that_does_not_exist_waits_and_is_told_which_do(harness: OperatorHarness) -> None:
    queue(harness, "prod", None)
    harness.submit("lost", roles=WHOLE, queue="prd")
    await harness.turn(2)
    assert harness.admitted("lost") == ("QueueNotFound", "queue vision/prd does not exist; there are vision/prod")
    queue(harness, "prd", None)
    await harness.turn(2)
    assert set(held(harness)) == {"lost"}
    for name in ("prd", "prod"):
        harness.server.drop(paths.dlqueues(SPACE, name))
    await harness.turn(3)
    assert set(held(harness)) == {"lost"}


async def test_gpus_of_pods_of_other_schedulers_count_in_their_queue(harness: OperatorHarness) -> None:
    queue(harness, "default", 4)
    harness.pod("foreign", 2, gated=False, node="n1", spec={"schedulerName": "default-scheduler"})
    harness.submit(roles=roles(workers=1, gpus=3))
    await harness.turn(3)
    assert harness.admitted() == ("QuotaExhausted", "needs 3 GPUs; queue vision/default uses 2 of 4 GPUs")
    status = harness.server.objects[paths.dlqueues(SPACE, "default")]["status"]
    assert (status["gpusInUse"], status["pending"]) == (2, 1)


async def test_quota_lowered_below_what_runs_stops_nothing_and_starts_nothing(harness: OperatorHarness) -> None:
    queue(harness, "default", 8)
    harness.submit("runs", roles=WHOLE)
    await harness.turn(2)
    queue(harness, "default", 2)
    harness.submit("waits", roles=roles(workers=1, gpus=1))
    await harness.turn(3)
    assert set(held(harness)) == {"runs"}
    assert harness.admitted("waits") == ("QuotaExhausted", "needs 1 GPU; queue vision/default uses 4 of 2 GPUs")


async def test_new_queue_counts_what_runs_already_and_stops_none_of_it(harness: OperatorHarness) -> None:
    """The namespace had no queues; a quota of 0 admits nothing more, and says so."""
    harness.submit("runs", roles=WHOLE)
    await harness.turn(3)
    harness.run_pods()
    queue(harness, "default", 0)
    harness.submit("waits", roles=roles(workers=1, gpus=1), priority=1)
    await harness.turn(4)
    assert (set(held(harness)), harness.status("runs")["phase"]) == ({"runs"}, "Running")
    words = "needs 1 GPU; queue vision/default may never hold more than 0"
    assert harness.admitted("waits") == ("OverQuota", words)
    status = harness.server.objects[paths.dlqueues(SPACE, "default")]["status"]
    assert (status["gpusInUse"], status["running"], status["pending"]) == (4, 1, 1)
    assert status["message"] == f"vision/waits: {words}"


async def test_job_that_runs_outside_all_queues_goes_on_until_it_is_queued_again(harness: OperatorHarness) -> None:
    """The first queue of its namespace has another name: what runs stays, is counted nowhere, and does not come back."""
    harness.submit("runs", roles=WHOLE)
    await harness.turn(3)
    harness.run_pods()
    queue(harness, "prod", 0)
    await harness.turn(3)
    assert harness.status("runs")["phase"] == "Running"
    status = harness.server.objects[paths.dlqueues(SPACE, "prod")]["status"]
    assert (status["gpusInUse"], status["running"]) == (0, 0)
    harness.change(paths.dljobs(SPACE, "runs"), metadata={"annotations": {names.SUSPEND: "true"}})
    await harness.turn(2)
    await harness.turn(2, seconds=2)
    harness.end_pods()
    await harness.turn(2)
    harness.change(paths.dljobs(SPACE, "runs"), metadata={"annotations": {names.SUSPEND: "false"}})
    await harness.turn(3)
    assert harness.admitted("runs") == ("QueueNotFound", "queue vision/default does not exist; there are vision/prod")


async def test_time_slicing_job_with_least_service_goes_first(harness: OperatorHarness) -> None:
    turns = {"timeSlicing": True}
    harness.submit("long", roles=roles(workers=2, gpus=4), sharing=turns)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn(2, seconds=600)
    harness.submit("new", roles=WHOLE, sharing=turns)
    await harness.turn(3)
    assert (harness.status("long")["phase"], harness.admitted("long")[1]) == ("Queued", "others have had less")
    assert harness.admitted("new")[0] == "PodsStopping"  # others still hold its GPUs
    assert "new" not in held(harness)
    await harness.turn(2, seconds=2)
    harness.end_pods()
    await harness.turn(3)
    assert set(held(harness)) == {"new"}
    assert once(harness)


async def test_job_close_to_the_usual_end_is_not_requeued(harness: OperatorHarness) -> None:
    """Twenty jobs took 1000 s each: a job that has run for 900 s is likely to end soon, and goes before a new one."""
    turns = {"timeSlicing": True}
    usual = {"phase": "Succeeded", "finishedAt": time(harness.now), "gpuSeconds": 4000.0, "gpus": 4}
    for number in range(20):
        harness.submit(f"done{number}", roles=WHOLE, status=usual)
    harness.submit("long", roles=roles(workers=2, gpus=4), sharing=turns)
    await harness.turn(3)
    harness.run_pods()
    assert "long" in held(harness)
    await harness.turn(2, seconds=450)
    harness.submit("new", roles=WHOLE, sharing=turns)
    await harness.turn(3)
    assert set(held(harness)) == {"long"}


async def test_job_without_time_slicing_keeps_its_gpus(harness: OperatorHarness) -> None:
    harness.submit("long", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn(2, seconds=600)
    harness.submit("new", roles=WHOLE, sharing={"timeSlicing": True})
    await harness.turn(3, seconds=60)
    assert set(held(harness)) == {"long"}


async def test_new_priority_class_takes_effect(harness: OperatorHarness) -> None:
    harness.submit("low", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.submit("high", roles=WHOLE, priorityClassName="urgent")
    await harness.turn(3)
    assert harness.status("low")["phase"] == "Admitted"
    harness.server.put(CLASSES, {"metadata": {"name": "urgent"}, "value": 1000})
    await harness.turn(2)
    assert harness.status("low")["phase"] == "Queued"


async def test_wish_to_move_is_met_once(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE, annotations={names.MIGRATE: ""})
    await harness.turn(4)
    assert (harness.status()["attempt"], harness.server.of("dljobs")[0]["metadata"]["annotations"]) == (1, {})
    before = held(harness)["vgg16"][0][0]
    harness.change(paths.dljobs(SPACE, "vgg16"), metadata={"annotations": {names.MIGRATE: before}})
    await harness.turn(6)
    assert (harness.status()["attempt"], harness.server.of("dljobs")[0]["metadata"]["annotations"]) == (2, {})
    assert held(harness)["vgg16"][0][0] != before
    assert harness.status()["timeline"][-1]["event"] == "Migrated"


async def test_job_that_cannot_move_stays_and_is_told_once(harness: OperatorHarness) -> None:
    harness.submit("a", roles=WHOLE)
    await harness.turn(2)
    harness.submit("b", roles=WHOLE)
    await harness.turn(3)
    node = held(harness)["a"][0][0]
    harness.change(paths.dljobs(SPACE, "a"), metadata={"annotations": {names.MIGRATE: node}})
    await harness.turn(5, seconds=1)
    status = harness.status("a")
    assert (status["attempt"], [e["event"] for e in status["timeline"]].count("ChangePending")) == (1, 1)
    assert status["message"].startswith("stays where it is")


# Queues


async def test_queue_status_has_its_use(harness: OperatorHarness) -> None:
    queue = {"metadata": {"name": "default", "namespace": SPACE, "generation": 3}, "spec": {"gpus": 4}}
    harness.server.put(paths.dlqueues(SPACE), queue)
    harness.submit("a", roles=WHOLE)
    harness.submit("b", roles=WHOLE)
    await harness.turn(4)
    status = harness.server.of("dlqueues")[0]["status"]
    message = "vision/b: needs 4 GPUs; queue vision/default uses 4 of 4 GPUs"
    assert status == {"observedGeneration": 3, "gpusInUse": 4, "pending": 1, "running": 1, "message": message}
    done = harness.server.writes("PATCH").count(paths.dlqueues(SPACE, "default") + "/status")
    await harness.turn(3)
    assert harness.server.writes("PATCH").count(paths.dlqueues(SPACE, "default") + "/status") == done


async def test_queue_message_alone_is_rewritten_at_leisure(harness: OperatorHarness) -> None:
    def message() -> str:
        return str(harness.server.of("dlqueues")[0]["status"]["message"])

    queue(harness, "default", 8)
    harness.submit("a", roles=WHOLE)
    harness.submit("b", roles=WHOLE)
    harness.submit("c", roles=WHOLE)
    await harness.turn(4)
    assert message() == "vision/c: needs 4 GPUs; queue vision/default uses 8 of 8 GPUs"
    harness.server.put(paths.dlqueues(SPACE), {**harness.server.of("dlqueues")[0], "spec": {"gpus": 7}})
    await harness.turn(2)
    assert "8 of 8" in message()
    await harness.turn(2, seconds=SAME_COUNTS_SECONDS)
    assert message() == "vision/c: needs 4 GPUs; queue vision/default uses 8 of 7 GPUs"
    harness.server.drop(paths.dljobs(SPACE, "c"))
    await harness.turn(3)
    assert message() == ""


async def test_waiting_jobs_know_their_position_in_their_queue(harness: OperatorHarness) -> None:
    for name in ("a", "b", "first", "second", "other"):
        harness.submit(name, roles=WHOLE, queue="else" if name == "other" else "default")
        await harness.turn(2)
    await harness.turn(3, seconds=1)
    assert [harness.status(name).get("position") for name in ("a", "first", "second", "other")] == [None, 1, 2, 1]
    harness.server.drop(paths.dljobs(SPACE, "first"))
    await harness.turn(4, seconds=SAME_REASON_SECONDS)
    assert harness.status("second")["position"] == 1
