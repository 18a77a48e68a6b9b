"""What users ask for by field and by annotation, and how a gang is stopped: a notice first, then deletion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from builders.dljobs import NOW, Json, after, changed, job, placed, pod_of, pods_of, roles, started, time
from builders.steps import look, step_of
from muster.api import names
from muster.kube.objects import Pod
from muster_operator.dljob.job import Job
from muster_operator.dljob.lifecycle import STOPPING_SECONDS
from muster_operator.dljob.status import Record

W0, W1 = "vgg16-worker-0", "vgg16-worker-1"
STAYS: Json = {"service": True}
NOTICE = {names.SUSPEND: "true", names.STOP_AT: time(NOW + 1)}
"""To be read by the program of a pod that has to stop."""


def again(one: Job, **fields: Any) -> Job:
    """The job with its status, its other fields told anew: what a user's change makes of it."""
    now = job(**fields)
    return replace(now, status=one.status)


def noted(pods: Mapping[str, Pod], **annotations: str) -> dict[str, Pod]:
    """The pods, one of them annotated by a user."""
    real = {getattr(names, key.upper()): value for key, value in annotations.items()}
    return {**pods, W1: changed(pods[W1], annotations=real)}


# Suspending


@pytest.mark.parametrize(
    ("field", "annotation", "suspended"),
    [
        (False, None, False),
        (True, None, True),
        (False, "true", True),
        (True, "false", False),
        (False, "false", False),
        (True, "perhaps", True),
        (False, "True", False),
    ],
)
def test_suspend_annotation_outweighs_the_field(field: bool, annotation: str | None, suspended: bool) -> None:
    annotations = {names.SUSPEND: annotation} if annotation is not None else {}
    wanted: Json = {"suspend": field, "annotations": annotations}
    new = look(job(**wanted))
    assert new == {"service": False} | ({"status": ("Suspended", "Suspended", "Suspended")} if suspended else {})
    gang = again(started(job()), **wanted)
    assert look(gang, pods_of(gang)) == ({"status": ("Suspending", "Suspending", "Suspended")} if suspended else STAYS)


def test_suspension_gives_the_gpus_up_before_the_pods_are_gone() -> None:
    gang = again(started(job()), suspend=True)
    step = step_of(gang, pods_of(gang))
    assert step.status is not None
    assert (step.status.status.placement, step.status.status.message) == ([], "suspending: 2 pods to stop")


def test_suspended_gang_gets_a_notice_then_is_deleted_then_suspended() -> None:
    gang = again(after(started(job()), lambda record: record.stop("suspending")), suspend=True)
    pods = pods_of(started(job()))
    assert look(gang, pods, now=NOW) == {"service": False, "notice": {W0: NOTICE, W1: NOTICE}}
    told = {name: changed(pod, annotations=NOTICE) for name, pod in pods.items()}
    assert look(gang, told, now=NOW + 0.5) == {"service": False, "wake": NOW + 1}
    assert look(gang, told, now=NOW + 1) == {"service": False, "delete": [W0, W1]}
    leaving = {name: changed(pod, leaving=True) for name, pod in told.items()}
    assert look(gang, leaving, now=NOW + 2) == {"service": False, "wake": NOW + STOPPING_SECONDS}
    assert look(gang, now=NOW + 3) == {"service": False, "status": ("Suspended", "Suspended", "Suspended")}


def test_finished_pods_do_not_hold_suspension_up() -> None:
    before = started(job())
    gang = again(after(before, lambda record: record.stop("suspending")), suspend=True)
    assert look(gang, pods_of(before, "Succeeded")) == {"service": False, "status": ("Suspended", "Suspended", "Suspended")}


def test_suspended_job_needs_no_step() -> None:
    gang = after(job(suspend=True), Record.suspend)
    assert look(gang) == {"service": False}


def test_resumed_job_is_queued_again() -> None:
    gang = again(after(job(suspend=True), Record.suspend), suspend=False)
    assert look(gang) == {"service": False, "status": ("Queued", "Resumed", "Resumed")}


def test_job_resumed_while_its_pods_stop_is_queued_again() -> None:
    before = started(job())
    gang = after(before, lambda record: record.stop("suspending"))
    queued: Json = {"service": False, "status": ("Queued", "Resumed", "Resumed")}
    assert look(gang, pods_of(before)) == queued | {"notice": {W0: NOTICE, W1: NOTICE}}
    assert look(gang) == queued


# The notice


@pytest.mark.parametrize(("at", "text"), [(0.0, 1), (0.001, 2), (0.5, 2), (0.999, 2)])
def test_notice_gives_at_least_a_second(at: float, text: int) -> None:
    before = started(job())
    gang = again(after(before, lambda record: record.stop("suspending")), suspend=True)
    answer = look(gang, pods_of(before), now=NOW + at)
    assert answer["notice"][W0][names.STOP_AT] == time(NOW + text)


@pytest.mark.parametrize("text", ["", "soon", "1970-01-01", "2001-01-01T00:00:00Z"])
def test_unreadable_notice_counts_as_expired(text: str) -> None:
    before = started(job())
    gang = again(after(before, lambda record: record.stop("suspending")), suspend=True)
    pods = {W0: changed(pods_of(before)[W0], annotations={names.STOP_AT: text})}
    assert look(gang, pods) == {"service": False, "delete": [W0]}


@pytest.mark.parametrize("phase", ["Pending", "Unknown"])
def test_pod_that_does_not_run_is_deleted_without_notice(phase: str) -> None:
    before = started(job())
    gang = again(after(before, lambda record: record.stop("suspending")), suspend=True)
    assert look(gang, pods_of(before, phase)) == {"service": False, "delete": [W0, W1]}


def test_pods_of_a_lost_node_are_destroyed() -> None:
    before = started(job())
    gang = again(after(before, lambda record: record.stop("suspending")), suspend=True)
    pods = pods_of(before)
    assert look(gang, pods, dead={"n1"}) == {"service": False, "destroy": [W0], "notice": {W1: NOTICE}}
    pods[W0] = changed(pods[W0], leaving=True)
    assert look(gang, pods, dead={"n1"}) == {"service": False, "destroy": [W0], "notice": {W1: NOTICE}}
    assert look(gang, pods) == {"service": False, "notice": {W1: NOTICE}, "wake": NOW + STOPPING_SECONDS}


def test_pod_that_was_never_bound_is_deleted_as_any_other() -> None:
    before = placed(job())
    gang = after(before, lambda record: record.preempt("gave way"))
    unbound = pods_of(before, "Pending", bound=False)
    assert look(gang, unbound, dead={"n1", "n2"}) == {"service": False, "delete": [W0, W1]}
    leaving = {name: changed(pod, leaving=True) for name, pod in unbound.items()}
    assert look(gang, leaving, dead={"n1", "n2"}) == {"service": False}


# Wishes on pods


@pytest.mark.parametrize(
    ("wish", "written"),
    [
        ({"suspend": "true"}, {names.SUSPEND: "true"}),
        ({"suspend": "false"}, None),
        ({"suspend": "yes"}, None),
        ({"migrate": ""}, {names.MIGRATE: ""}),
        ({"migrate": "n2"}, {names.MIGRATE: "n2"}),
        ({"migrate": "r1", "suspend": "true"}, {names.MIGRATE: "r1", names.SUSPEND: "true"}),
    ],
)
def test_wish_on_a_pod_is_copied_to_the_job(wish: Mapping[str, str], written: Json | None) -> None:
    gang = started(job())
    answer = look(gang, noted(pods_of(gang), **wish))
    assert answer == ({"job": written} if written else STAYS)


def test_musters_own_notice_is_no_wish() -> None:
    gang = started(job())
    told = {name: changed(pod, annotations={**NOTICE, names.MIGRATE: ""}) for name, pod in pods_of(gang).items()}
    assert look(gang, told) == STAYS


def test_wish_on_a_terminating_pod_is_ignored() -> None:
    gang = started(job())
    pods = noted(pods_of(gang), suspend="true")
    pods[W1] = changed(pods[W1], leaving=True)
    assert look(gang, pods) == {"status": ("Queued", "Requeued", "PodDisrupted")}


def test_wish_on_a_pod_of_an_earlier_placement_is_ignored() -> None:
    before = started(job())
    gang = placed(after(before, lambda record: record.preempt("gave way")))
    answer = look(gang, noted(pods_of(before), suspend="true", migrate=""))
    assert "job" not in answer


def test_wish_that_the_job_has_already_is_not_copied() -> None:
    gang = again(started(job()), annotations={names.MIGRATE: "n1"})
    assert look(gang, noted(pods_of(gang), migrate="n2")) == STAYS
    gang = again(started(job()), suspend=True)
    assert look(gang, noted(pods_of(gang), suspend="true")) == {"status": ("Suspending", "Suspending", "Suspended")}


def test_wish_on_a_pod_outweighs_a_resumed_job() -> None:
    gang = again(started(job()), annotations={names.SUSPEND: "false"})
    assert look(gang, noted(pods_of(gang), suspend="true")) == {"job": {names.SUSPEND: "true"}}


def test_wish_to_move_a_job_without_a_placement_is_dropped() -> None:
    dropped = {"service": False, "job": {names.MIGRATE: None}}
    assert look(job(annotations={names.MIGRATE: "n1"})) == dropped
    assert look(job(annotations={names.MIGRATE: ""})) == dropped


def test_moved_gang_starts_when_its_old_pods_are_gone() -> None:
    before = started(job())
    gang = placed(before, ["n3"])
    pods = pods_of(before)
    moves = {names.MIGRATE: "", names.STOP_AT: time(NOW + 1)}
    assert look(gang, pods) == {"notice": {W0: moves, W1: moves}}
    told = {name: changed(pod, annotations=moves) for name, pod in pods.items()}
    assert look(gang, told, now=NOW + 1) == {"delete": [W0, W1]}
    assert look(gang, now=NOW + 2) == {"create": [W0, W1], "service": True}


def test_smaller_gang_has_fewer_pods() -> None:
    before = started(job(roles=roles(workers=3)))
    gang = placed(again(before, roles=roles(workers=2)), ["n1"])
    ended = {p.pod: pod_of(before, p, "Succeeded") for p in before.status.placement}
    assert look(gang, ended) == {"delete": [W0, W1, "vgg16-worker-2"]}
    assert look(gang) == {"create": [W0, W1], "service": True}


def test_pod_that_the_placement_does_not_name_is_left_over() -> None:
    """Of this very attempt, yet not of the gang: it wishes nothing, and goes before anything is created."""
    three = started(job(roles=roles(workers=3)))
    gang = after(three, lambda record: record.status.placement.pop())
    odd = "vgg16-worker-2"
    pods = pods_of(three)
    moves = {names.MIGRATE: "", names.STOP_AT: time(NOW + 1)}
    assert look(gang, pods) == {"notice": {odd: moves}}
    pods[odd] = changed(pods[odd], annotations={names.SUSPEND: "true"})
    assert "job" not in look(gang, pods)
    del pods[odd]
    assert look(gang, pods) == STAYS
