"""The end of a job: its deadline, what is left to clear away, its time to live, its deletion."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.dljobs import NOW, Json, after, changed, job, placed, pod_of, pods_of, roles, started, time
from builders.steps import look, step_of
from muster.api import names
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record

W0, W1 = "vgg16-worker-0", "vgg16-worker-1"
PS0 = "vgg16-ps-0"
STAYS: Json = {"service": True}


def over(one: Job, at: float = NOW, succeeded: bool = True) -> Job:
    return after(one, lambda record: record.finish(succeeded, "Completed", "the gang ran to its end"), at)


@pytest.mark.parametrize(("age", "answer"), [(99, STAYS | {"wake": NOW + 100}), (100, None), (5000, None)])
def test_job_fails_at_its_deadline(age: float, answer: Json | None) -> None:
    gang = started(job(activeDeadlineSeconds=100))
    answer = answer or {"status": ("Failed", "Failed", "DeadlineExceeded")}
    assert look(gang, pods_of(gang), now=NOW + age) == answer
    step = step_of(gang, pods_of(gang), now=NOW + 200)
    assert step.status is not None
    assert step.status.status.message == "ran longer than 100 s, over all attempts"


def test_deadline_counts_from_the_start_of_the_whole_gang() -> None:
    waits = job(activeDeadlineSeconds=1)
    gang = placed(waits)
    assert look(waits, now=NOW + 9) == {"service": False}
    assert look(gang, pods_of(gang, "Pending"), now=NOW + 9) == STAYS


def test_deadline_does_not_count_time_in_the_queue() -> None:
    gang = after(started(job(activeDeadlineSeconds=1)), lambda record: record.preempt("gave way"))
    assert look(gang, now=NOW + 9) == {"service": False}


def test_deadline_counts_what_earlier_attempts_ran() -> None:
    gang = after(started(job(activeDeadlineSeconds=100)), lambda record: record.preempt("gave way"), NOW + 60)
    again = started(gang, at=NOW + 500)
    assert look(again, pods_of(again), now=NOW + 539)["wake"] == NOW + 540
    assert look(again, pods_of(again), now=NOW + 540) == {"status": ("Failed", "Failed", "DeadlineExceeded")}


def test_earlier_of_two_times_is_checked_first() -> None:
    for deadline, notice, requeue_at in ((100, 3, 3), (2, 3, 2)):
        gang = started(job(activeDeadlineSeconds=deadline))
        ran = after(placed(gang, ["n3"]), Record.run)
        old = {name: changed(pod, annotations={names.STOP_AT: time(NOW + notice)}) for name, pod in pods_of(gang).items()}
        assert look(ran, old)["wake"] == NOW + requeue_at


@pytest.mark.parametrize("succeeded", [True, False])
def test_finished_job_stops_running_pods_and_keeps_finished_ones(succeeded: bool) -> None:
    gang = started(job(rendezvous="ParameterServer", roles=roles(ps=1)))
    pods = {p.pod: pod_of(gang, p, "Running" if p.role == "ps" else "Succeeded") for p in gang.status.placement}
    notice = {names.SUSPEND: "true", names.STOP_AT: time(NOW + 1)}
    assert look(over(gang, succeeded=succeeded), pods) == {"service": False, "notice": {PS0: notice}}
    pods[PS0] = changed(pods[PS0], annotations=notice)
    assert look(over(gang), pods, now=NOW + 1) == {"service": False, "delete": [PS0]}
    assert look(over(gang), pods, dead={"n1"}) == {"service": False, "destroy": [PS0]}
    del pods[PS0]
    assert look(over(gang), pods, now=NOW + 9) == {"service": False}


@pytest.mark.parametrize(
    ("ttl", "now", "answer"),
    [(None, 1e6, {}), (0, 0, {"remove": True}), (60, 59, {"wake": NOW + 60}), (60, 60, {"remove": True})],
)
def test_job_is_removed_after_its_time_to_live(ttl: int | None, now: float, answer: Json) -> None:
    fields: Json = {} if ttl is None else {"ttlSecondsAfterFinished": ttl}
    gang = over(started(job(**fields)))
    assert look(gang, now=NOW + now) == {"service": False} | answer


@pytest.mark.parametrize("wish", [{"suspend": True}, {"annotations": {names.MIGRATE: ""}}, {"activeDeadlineSeconds": 1}])
def test_finished_job_ignores_wishes(wish: Json) -> None:
    done = over(started(job()))
    now = job(**wish)
    assert look(replace(now, status=done.status), now=NOW + 9) == {"service": False}


DELETED: Json = {"metadata": {"deletionTimestamp": time(NOW)}}


def test_job_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    for shape in (job(**DELETED), over(started(job(ttlSecondsAfterFinished=0, **DELETED)))):
        assert look(shape) == {}


def test_job_that_is_being_deleted_gives_its_gpus_up_and_stops_its_pods() -> None:
    """A finalizer may keep it for ever."""
    gang = started(job(**DELETED))
    pods = pods_of(gang)
    answer = look(gang, pods)
    assert (answer["status"], list(answer["notice"])) == (("Suspending", "Suspending", "Suspended"), [W0, W1])
    step = step_of(gang, pods)
    assert step.status is not None
    assert (step.status.status.placement, step.status.status.message) == ([], "is being deleted: 2 pods to stop")
    waiting = look(replace(gang, status=step.status.status), pods_of(gang, "Pending"))
    assert waiting == {"delete": [W0, W1]}


def test_pods_that_are_to_be_orphaned_are_not_stopped() -> None:
    gang = started(job(metadata={"deletionTimestamp": time(NOW), "finalizers": ["x/y", "orphan"]}))
    assert look(gang, pods_of(gang)) == {}


def test_deleted_jobs_pods_on_lost_nodes_are_destroyed() -> None:
    gang = started(job(**DELETED))
    pods = {name: changed(pod, leaving=True) for name, pod in pods_of(gang).items()}
    assert "destroy" not in look(gang, pods)
    assert look(gang, pods, dead={"n2"})["destroy"] == [W1]
