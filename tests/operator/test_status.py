"""Edits of a job's status: what is kept, what is bounded, and what is sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from builders.dljobs import BORN, NOW, after, job, placed, roles, spots, started, time
from muster.api.status import TIMELINE_LIMIT, Condition, DLJobStatus
from muster_operator.backoff import FAILURE_BACKOFF, FIRST_BACKOFF, LONGEST_BACKOFF
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record
from muster_operator.timestamps import moment, stamp


def told(one: Job, kind: str) -> Condition:
    return next(condition for condition in one.status.conditions if condition.type == kind)


def events(one: Job) -> list[tuple[str, str]]:
    return [(event.event, event.reason) for event in one.status.timeline]


def requeued(one: Job, at: float = NOW, **fields: Any) -> Job:
    return after(one, lambda record: record.requeue("PodDisrupted", "a pod was taken away", **fields), at)


def test_job_goes_through_its_whole_life() -> None:
    one = after(job(), lambda record: record.wait("InsufficientGPUs", "needs 4 GPUs"), NOW)
    one = placed(one, at=NOW + 1)
    one = after(one, Record.run, NOW + 2)
    one = after(one, lambda record: record.finish(True, "Completed", "the gang ran to its end"), NOW + 3)
    assert events(one) == [
        ("Queued", "InsufficientGPUs"),
        ("Admitted", "Placed"),
        ("Running", "GangRunning"),
        ("Succeeded", "Completed"),
    ]
    assert [stamp(event.time) for event in one.status.timeline] == [BORN, NOW + 1, NOW + 2, NOW + 3]
    status = one.status
    assert (status.phase, status.message, status.placement, status.replicas) == ("Succeeded", "the gang ran to its end", [], 0)
    assert (stamp(status.started_at), stamp(status.finished_at)) == (NOW + 2, NOW + 3)
    found = {c.type: (c.status, c.reason, stamp(c.last_transition_time) - NOW) for c in status.conditions}
    assert found == {
        "Admitted": ("False", "Finished", 3),
        "Running": ("False", "Completed", 3),
        "Succeeded": ("True", "Completed", 3),
        "Suspended": ("False", "Admitted", 1),
    }
    assert [condition.type for condition in status.conditions] == sorted(found)


def test_failed_job_says_so() -> None:
    one = after(started(job()), lambda record: record.finish(False, "DeadlineExceeded", "ran longer than 9 s"))
    assert (one.status.phase, told(one, "Failed").status, told(one, "Running").status) == ("Failed", "True", "False")
    assert events(one)[-1] == ("Failed", "DeadlineExceeded")


# Admission


def test_admission_writes_the_reservation() -> None:
    status = placed(job(roles=roles(workers=3, ps=1))).status
    shown = [(p.pod, p.role, p.index, p.rank, p.node, p.gpus) for p in status.placement]
    assert shown == [
        ("vgg16-worker-0", "worker", 0, 0, "n1", [0, 1]),
        ("vgg16-worker-1", "worker", 1, 1, "n2", [0, 1]),
        ("vgg16-worker-2", "worker", 2, 2, "n1", [2, 3]),
        ("vgg16-ps-0", "ps", 0, 3, "n2", []),
    ]
    assert (status.phase, status.attempt, status.replicas, status.wanted_replicas, status.gpus) == ("Admitted", 1, 3, 3, 6)
    assert status.selector == "muster.dev/job=vgg16,muster.dev/role=worker"
    assert told(placed(job()), "Running").reason == "Starting"


def test_replicas_are_the_workers() -> None:
    assert placed(job(roles=roles(workers=2, chief=1, ps=1, evaluator=1), rendezvous="ParameterServer")).status.replicas == 2


def test_elastic_gang_may_have_fewer_workers_than_it_wants() -> None:
    one = job(roles=roles(workers=3), elastic={"minReplicas": 1, "maxReplicas": 4})
    status = after(one, lambda record: record.admit(spots(one)[:2], "Placed", "")).status
    assert (status.replicas, status.wanted_replicas) == (2, 3)


def test_each_placement_counts_up_and_starts_anew() -> None:
    one = started(job())
    moved = after(one, lambda record: record.admit(spots(one, ["n3"]), "Migrated", "moves to n3"), NOW + 9)
    assert (moved.status.attempt, moved.status.started_at, moved.status.phase) == (2, None, "Admitted")
    assert events(moved)[-1] == ("Migrated", "Migrated")
    back = placed(requeued(moved), at=NOW + 20)
    assert (back.status.attempt, back.status.not_before) == (3, None)
    assert events(back)[-1] == ("Admitted", "Placed")


def test_running_gang_avoids_no_nodes_any_more() -> None:
    one = requeued(started(job()), avoid=["n2", "n1"])
    assert one.status.avoid == ["n1", "n2"]
    assert placed(one).status.avoid == ["n1", "n2"]
    assert started(one).status.avoid == []
    assert requeued(one).status.avoid == []


# The queue


def there_and_back(record: Record) -> None:
    record.stop("stop")
    record.suspend()
    record.resume()


ENDS: dict[str, Callable[[Record], None]] = {
    "requeued": lambda record: record.requeue("NodeLost", "gone"),
    "failed": lambda record: record.requeue("PodFailed", "gone", failed=True),
    "preempted": lambda record: record.preempt("gave way"),
    "suspended": there_and_back,
    "waits": lambda record: record.wait("InsufficientGPUs", "needs 4 GPUs"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_place_in_the_queue_is_kept(end: Callable[[Record], None]) -> None:
    one = after(started(job()), end, NOW + 500)
    assert (one.status.phase, stamp(one.status.queued_at)) == ("Queued", BORN)
    assert (events(one)[0], stamp(one.status.timeline[0].time)) == (("Queued", "Submitted"), BORN)


def test_first_arrival_is_creation_or_else_now() -> None:
    one = after(job(metadata={"creationTimestamp": None}), Record.suspend, NOW + 5.7)
    assert stamp(one.status.queued_at) == NOW + 5
    assert events(one) == [("Queued", "Submitted"), ("Suspended", "Suspended")]


def test_preemption_has_no_back_off() -> None:
    one = after(started(job()), lambda record: record.preempt("gave way to b"))
    status = one.status
    assert (status.not_before, status.requeues, status.restarts, status.placement, status.replicas) == (None, 1, 0, [], 0)
    assert (told(one, "Admitted").status, told(one, "Running").status) == ("False", "False")
    assert (status.message, told(one, "Admitted").message) == ("gave way to b", "gave way to b")


@pytest.mark.parametrize(
    "end", [lambda r: r.preempt("gave way"), lambda r: r.requeue("PodDisrupted", "lost"), lambda r: r.stop("stop")]
)
def test_service_of_a_placement_is_counted_when_it_ends(end: Callable[[Record], None]) -> None:
    one = after(started(job(), at=NOW), end, NOW + 60)
    gpus = sum(len(place.gpus) for place in started(job()).status.placement)
    assert one.status.gpu_seconds == 60 * gpus > 0
    assert stamp(one.status.released_at) == NOW + 60
    again = after(started(one, at=NOW + 100), end, NOW + 110)
    assert again.status.gpu_seconds == 70 * gpus


@pytest.mark.parametrize(
    "end", [lambda r: r.preempt("gave way"), lambda r: r.requeue("PodDisrupted", "lost"), lambda r: r.stop("stop")]
)
def test_gang_off_its_gpus_has_neither_start_nor_gpus_nor_nodes(end: Callable[[Record], None]) -> None:
    one = started(job())
    assert (one.status.gpus, one.status.wanted_gpus, one.status.nodes) == (4, 4, "n1,n2")
    gone = after(one, end)
    assert (gone.status.started_at, gone.status.gpus, gone.status.wanted_gpus, gone.status.nodes) == (None, 0, 4, "")


def test_finished_job_keeps_its_start() -> None:
    one = started(job(), at=NOW)
    ended = after(one, lambda record: record.finish(True, "Completed", "done"), NOW + 60)
    assert (ended.status.started_at, ended.status.gpus, ended.status.nodes) == (one.status.started_at, 0, "")


def test_many_nodes_are_named_in_part() -> None:
    one = job(roles=roles(workers=6))
    nodes = placed(one, nodes=[f"n{index}" for index in range(6)]).status.nodes
    assert nodes == "n0,n1,n2,n3,+2"


def test_placement_in_which_the_gang_never_ran_counts_nothing() -> None:
    assert after(placed(job()), lambda record: record.preempt("gave way"), NOW + 60).status.gpu_seconds == 0


def test_move_counts_what_the_gang_had_before_it() -> None:
    one = started(job(), at=NOW)
    moved = after(one, lambda record: record.admit(spots(one), "Migrated", "moves"), NOW + 30)
    assert moved.status.gpu_seconds == 30 * sum(len(place.gpus) for place in one.status.placement)


def test_resuming_forgets_the_back_off() -> None:
    one = after(requeued(started(job())), Record.suspend)
    assert one.status.not_before is not None
    one = after(one, Record.resume, NOW + 1)
    assert (one.status.phase, one.status.not_before) == ("Queued", None)
    assert (told(one, "Suspended").status, told(one, "Admitted").reason) == ("False", "Resumed")


def test_suspension_takes_two_steps() -> None:
    one = after(started(job()), lambda record: record.stop("suspending: 2 pods to stop"))
    assert (one.status.phase, one.status.placement, told(one, "Running").status) == ("Suspending", [], "False")
    one = after(one, Record.suspend)
    assert (one.status.phase, told(one, "Suspended").status, told(one, "Admitted").status) == ("Suspended", "True", "False")
    assert one.status.message == "suspended; annotate it with muster.dev/suspend=false to queue it again"


# Back-off


def pause(one: Job, at: float = NOW) -> float:
    """Seconds until the job may be placed again."""
    assert one.status.not_before is not None
    return stamp(one.status.not_before) - at


def test_back_off_doubles_for_troubles_in_a_row() -> None:
    one, pauses = job(), []
    for _ in range(11):
        one = requeued(placed(one))
        pauses.append(pause(one))
    assert pauses == [min(FIRST_BACKOFF * 2**n, LONGEST_BACKOFF) for n in range(11)]
    assert (pauses[-1], one.status.requeues, one.status.restarts) == (LONGEST_BACKOFF, 11, 0)


def test_gang_that_ran_in_between_starts_at_the_shortest_pause() -> None:
    one = requeued(placed(requeued(placed(job()))))
    assert pause(one) == 2
    assert pause(requeued(started(one))) == 1


def test_back_off_of_failures_doubles_and_is_not_forgiven() -> None:
    one, pauses = job(), []
    for _ in range(7):
        one = requeued(started(one), failed=True)
        pauses.append(pause(one))
    assert pauses == [min(FAILURE_BACKOFF * 2**n, LONGEST_BACKOFF) for n in range(7)]
    assert (one.status.restarts, one.status.requeues) == (7, 0)
    assert events(one)[-1] == ("Restarting", "PodDisrupted")


def test_back_off_stays_finite_for_ever() -> None:
    one = after(job(), lambda record: setattr(record.status, "restarts", 5000))
    assert pause(requeued(one, failed=True)) == LONGEST_BACKOFF


def test_back_off_is_rounded_up_to_the_seconds_of_the_api() -> None:
    assert stamp(requeued(started(job()), NOW + 0.25).status.not_before) == NOW + 2


# Conditions and timeline


def test_condition_keeps_its_time_until_it_changes() -> None:
    one = after(job(), lambda record: record.wait("InsufficientGPUs", "needs 4 GPUs; 1 free"), NOW)
    one = after(one, lambda record: record.wait("BehindInQueue", "comes after b"), NOW + 50)
    found = told(one, "Admitted")
    assert (found.reason, found.message, stamp(found.last_transition_time)) == ("BehindInQueue", "comes after b", NOW)
    found = told(placed(one, at=NOW + 60), "Admitted")
    assert (found.status, stamp(found.last_transition_time)) == ("True", NOW + 60)
    found = told(requeued(placed(one, at=NOW + 60), NOW + 70), "Admitted")
    assert (found.status, stamp(found.last_transition_time), found.observed_generation) == ("False", NOW + 70, 1)


def test_timeline_is_bounded_and_keeps_its_first() -> None:
    one = job()
    for number in range(60):
        one = requeued(placed(one, at=NOW + number), NOW + number)
    assert len(one.status.timeline) == TIMELINE_LIMIT
    assert events(one)[0] == ("Queued", "Submitted")
    assert [stamp(e.time) - NOW for e in one.status.timeline[-2:]] == [59, 59]
    assert [stamp(e.time) - NOW for e in one.status.timeline[1:3]] == [35, 36]
    DLJobStatus.model_validate_json(one.status.model_dump_json(by_alias=True))


def test_full_timeline_is_not_cut() -> None:
    one = job()
    for number in range(TIMELINE_LIMIT):
        one = after(one, lambda record, n=number: record.note("ChangePending", "NoOtherPlace", f"for {n}"))  # type: ignore[misc]
    assert [event.message for event in one.status.timeline] == [f"for {n}" for n in range(TIMELINE_LIMIT)]


def test_same_event_twice_in_a_row_counts_once() -> None:
    one = started(job())
    for at in (NOW, NOW + 10):
        one = after(one, lambda record: record.note("ChangePending", "NoOtherPlace", "stays where it is"), at)
    assert events(one)[-2:] == [("Running", "GangRunning"), ("ChangePending", "NoOtherPlace")]
    assert (one.status.phase, one.status.message) == ("Running", "stays where it is")
    for words in (("ChangePending", "NoOtherPlace", "other"), ("ChangePending", "Quota", "other"), ("Moves", "Quota", "other")):
        one = after(one, lambda record, words=words: record.note(*words))  # type: ignore[misc]
    assert len(events(one)) == 3 + 1 + 3


def test_waiting_for_another_reason_is_no_event() -> None:
    one = after(job(), lambda record: record.wait("InsufficientGPUs", "needs 4 GPUs"))
    assert events(after(one, lambda record: record.wait("QuotaExhausted", "no quota"))) == events(one)


# The patch


def test_unchanged_status_has_an_empty_patch() -> None:
    one = started(job())
    assert Record(one, NOW + 9).patch() == {}
    waits = after(job(), lambda record: record.wait("InsufficientGPUs", "needs 4 GPUs"))
    record = Record(waits, NOW + 9)
    record.wait("InsufficientGPUs", "needs 4 GPUs")
    assert record.patch() == {}


def test_patch_has_what_changed_alone() -> None:
    record = Record(started(job()), NOW + 9)
    record.note("ChangePending", "NoOtherPlace", "stays where it is")
    patch = record.patch()
    assert set(patch) == {"message", "timeline"}
    assert patch["timeline"][-1] == {
        "time": time(NOW + 9),
        "event": "ChangePending",
        "reason": "NoOtherPlace",
        "message": "stays where it is",
    }


def test_removed_field_is_null_in_the_patch() -> None:
    record = Record(started(job()), NOW + 30)
    record.requeue("NodeLost", "gone")
    assert record.patch()["startedAt"] is None
    one = requeued(started(job()))
    record = Record(one, NOW + 30)
    record.admit(spots(one), "Placed", "GPUs found")
    patch = record.patch()
    assert patch["notBefore"] is None
    assert (patch["phase"], patch["attempt"]) == ("Admitted", 2)
    assert "queuedAt" not in patch


def test_released_placement_is_an_empty_list() -> None:
    record = Record(started(job()), NOW)
    record.preempt("gave way")
    assert record.patch()["placement"] == []


def test_first_patch_brings_generation_and_size() -> None:
    record = Record(job(metadata={"generation": 7}), NOW)
    assert record.patch() == {"observedGeneration": 7, "gpus": 0, "wantedGpus": 4}


def test_record_leaves_the_job_alone() -> None:
    one = started(job())
    before = one.status.model_copy(deep=True)
    Record(one, NOW).requeue("NodeLost", "gone", avoid=["n1"])
    assert one.status == before


def test_times_are_whole_seconds_in_utc() -> None:
    assert moment(NOW + 0.99) == datetime.fromtimestamp(NOW, UTC)
    assert stamp(None) == 0.0
