"""A gang that does not start gives its GPUs back, learns from refusals, preempts nobody, and is set aside in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from builders.dljobs import NOW, Json, condition, container, job, placed, pod_of, pods_of, started
from builders.steps import look, step_of
from muster.api import names
from muster.api.status import REFUSALS_LIMIT, Refusal
from muster.kube.objects import Node
from muster.kube.objects.pod import Gate
from muster_operator.backoff import FAILURE_BACKOFF
from muster_operator.dljob.gang import gang_of
from muster_operator.dljob.job import Job
from muster_operator.lessons import LONGEST_REFUSED_SECONDS, MOST_WORDS, REFUSED_SECONDS, UNCHANGED, Digest
from muster_operator.node_digest import digest
from muster_operator.timestamps import stamp

W0, W1 = "vgg16-worker-0", "vgg16-worker-1"
CARD = (
    "0/4 nodes are available: 1 Insufficient rdma/hca, 3 node(s) didn't match Pod's node affinity/selector. "
    "preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
)
LATER = NOW + 600


def scheduled(message: str, reason: str = "Unschedulable", since: float = NOW - 60) -> Any:
    return {"conditions": [condition("PodScheduled", "False", reason=reason, message=message, since=since)]}


def unbound(gang: Job, *refused: int, message: str = CARD) -> Any:
    """The pods of a gang, of which kube-scheduler refuses some, and has bound the others."""
    pods = pods_of(gang, "Pending")
    for index in refused:
        place = gang.status.placement[index]
        pods[place.pod] = pod_of(gang, place, "Pending", bound=False, **scheduled(message))
    return pods


def creating(gang: Job, **state: str) -> Any:
    """The pods of a gang, of which the second has not started."""
    waits: Json = {"containerStatuses": [container(waiting=state)]} if state else {}
    return {**pods_of(gang), W1: pod_of(gang, gang.status.placement[1], "Pending", **waits)}


def written(gang: Job, pods: Any, now: float = NOW, digest: Digest = UNCHANGED) -> Job:
    """The job once the status of its next step is written."""
    step = step_of(gang, pods, now=now, digest=digest)
    assert step.status is not None
    return replace(gang, status=step.status.status)


def waiting(gang: Job, now: float = NOW, digest: Digest = UNCHANGED) -> Job:
    """A job without pods, once it has forgotten what does not hold any more."""
    step = step_of(gang, now=now, digest=digest)
    return replace(gang, status=step.status.status) if step.status is not None else gang


# The deadline


def test_gang_has_until_its_deadline_to_start() -> None:
    gang = placed(job())
    assert step_of(gang, creating(gang), now=LATER - 1).check_at == LATER
    assert look(gang, creating(gang), now=LATER - 1) == {"service": True}
    assert look(gang, creating(gang), now=LATER) == {"status": ("Queued", "Requeued", "StartDeadlineExceeded")}


def test_gang_that_runs_has_no_deadline_of_its_start() -> None:
    gang = started(job())
    assert look(gang, creating(gang), now=LATER) == {"service": True}


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"containerStatuses": [container(waiting={"reason": "ContainerCreating"})]}, "container train: ContainerCreating"),
        (
            {"initContainerStatuses": [container("get", waiting={"reason": "Mount", "message": "no\nmap."})]},
            "container get: Mount no map",
        ),
        ({}, "the kubelet says nothing of its containers"),
        ({"bound": False}, "kube-scheduler has not bound it, and does not say why"),
        ({"bound": False} | scheduled("gated", "SchedulingGated"), "gated"),
    ],
)
def test_pod_node_and_cause_of_a_start_that_takes_too_long_are_named(pod: Json, words: str) -> None:
    gang = placed(job(startDeadlineSeconds=20))
    pods = {**pods_of(gang), W1: pod_of(gang, gang.status.placement[1], "Pending", **pod)}
    after = written(gang, pods, NOW + 20)
    message = f"pod {W1} on node n2 has not started within 20 s: {words}"
    assert (after.status.message, after.status.avoid, after.status.placement) == (message, ["n2"], [])
    assert after.status.failed_start is not None
    assert (after.status.failed_start.pod, after.status.failed_start.node) == (W1, "n2")


def test_gate_of_a_template_is_named() -> None:
    gang = placed(job())
    pods = creating(gang)
    spec = msgspec.structs.replace(pods[W1].spec, node_name=None, scheduling_gates=[Gate("a.b/c")])
    pods[W1] = msgspec.structs.replace(pods[W1], spec=spec)
    assert written(gang, pods, LATER).status.message.endswith("within 600 s: it has the scheduling gate a.b/c")


def test_first_of_several_pods_that_do_not_start_is_named() -> None:
    gang = placed(job())
    message = written(gang, pods_of(gang, "Pending"), LATER).status.message
    assert message.startswith(f"pod {W0} on node n1 has not started within 600 s, like 1 other: ")


def test_deadline_of_a_placement_that_an_older_version_wrote_counts_from_its_condition() -> None:
    gang = placed(job())
    gang.status.admitted_at = None
    assert look(gang, creating(gang), now=LATER) == {"status": ("Queued", "Requeued", "StartDeadlineExceeded")}


ERROR = "running Filter: extender: connection refused"


@pytest.mark.parametrize("pod", [{}, scheduled(ERROR, "SchedulerError")])
def test_silence_of_kube_scheduler_is_no_failure_of_the_gang(pod: Json) -> None:
    """It is down, or the extender is: however long that lasts, no gang is set aside for it."""
    gang = job(startRetries=0)
    for _ in range(2):
        gang = placed(gang)
        pods = {**pods_of(gang), W1: pod_of(gang, gang.status.placement[1], "Pending", bound=False, **pod)}
        gang = written(gang, pods, LATER)
    assert (gang.status.phase, gang.lessons.failures, gang.lessons.refusals) == ("Queued", 0, ())
    assert gang_of(gang).start_failed
    assert look(gang) == {"service": False}


# Failed starts in a row

IMAGE = {"reason": "ImagePullBackOff", "message": "no such image"}


def failing(times: int, **fields: Any) -> Job:
    """A job that has failed to start so often."""
    gang = job(**fields)
    for _ in range(times):
        gang = placed(gang)
        gang = written(gang, creating(gang, **IMAGE))
    return gang


def test_gang_that_failed_to_start_preempts_nobody() -> None:
    assert not gang_of(placed(job())).start_failed
    assert gang_of(failing(1)).start_failed
    assert gang_of(placed(failing(1))).start_failed


def test_back_off_doubles_with_each_failed_start() -> None:
    pauses = [stamp(failing(times).status.not_before) - NOW for times in (1, 2, 3)]
    assert pauses == [FAILURE_BACKOFF, 2 * FAILURE_BACKOFF, 4 * FAILURE_BACKOFF]


def test_gang_that_starts_may_preempt_again() -> None:
    gang = placed(failing(3))
    runs = written(gang, pods_of(gang))
    assert (runs.status.phase, runs.status.failed_start) == ("Running", None)
    assert not gang_of(runs).start_failed


def test_gang_is_set_aside_after_too_many_failed_starts_in_a_row() -> None:
    assert look(failing(3)) == {"service": False}
    gang = failing(4)
    assert look(gang) == {"service": False, "job": {names.SUSPEND: "true"}}
    aside = replace(gang, meta=msgspec.structs.replace(gang.meta, annotations={names.SUSPEND: "true"}))
    assert look(aside) == {"service": False, "status": ("Suspended", "SetAside", "StartRetriesExceeded")}
    message = written(aside, {}).status.message
    assert message == (
        f"set aside after 4 starts that failed; the last: pod {W1} on node n2: container train: ImagePullBackOff "
        "no such image; "
        "annotate it with muster.dev/suspend=false to queue it again"
    )
    (suspended,) = (each for each in written(aside, {}).status.conditions if each.type == "Suspended")
    assert (suspended.status, suspended.reason, suspended.message) == ("True", "StartRetriesExceeded", message)


def test_resumed_gang_starts_as_if_it_had_never_failed() -> None:
    gang = failing(4)
    aside = replace(gang, meta=msgspec.structs.replace(gang.meta, annotations={names.SUSPEND: "true"}))
    aside = written(aside, {})
    back = written(replace(aside, meta=msgspec.structs.replace(gang.meta, annotations={names.SUSPEND: "false"})), {})
    assert (back.status.phase, back.status.failed_start, back.status.refusals) == ("Queued", None, [])
    assert not gang_of(back).start_failed


def test_number_of_retries_is_the_users() -> None:
    assert look(failing(1, startRetries=0)) == {"service": False, "job": {names.SUSPEND: "true"}}


def test_job_that_its_user_suspends_after_a_failed_start_is_not_said_to_be_set_aside() -> None:
    gang = failing(1)
    paused = replace(gang, meta=msgspec.structs.replace(gang.meta, annotations={names.SUSPEND: "true"}))
    assert look(paused) == {"service": False, "status": ("Suspended", "Suspended", "Suspended")}


def test_change_of_the_spec_ends_failures_and_refusals() -> None:
    gang = refused_by_all(2)
    changed = waiting(replace(gang, meta=msgspec.structs.replace(gang.meta, generation=2)))
    assert (changed.status.failed_start, changed.status.refusals) == (None, [])
    assert not gang_of(changed).start_failed


def test_node_on_which_a_start_failed_is_avoided_until_the_spec_changes() -> None:
    """It may be the only one that cannot pull the image."""
    gang = placed(failing(1), ["n1", "n3"])
    gang = written(gang, creating(gang, **IMAGE))
    assert (gang_of(gang).avoid, gang_of(gang).refused) == (frozenset({"n2", "n3"}), {})
    again = placed(gang)
    assert gang_of(written(again, unbound(again, 1))).refused == {}, "n2 has refused it once"
    assert gang_of(waiting(replace(gang, meta=msgspec.structs.replace(gang.meta, generation=2)))).avoid == frozenset()


EVICTED: Json = {"reason": "Evicted", "message": "The node was low on resource: memory."}


def disrupted(gang: Job) -> Job:
    """A job that was placed, and of which a pod was evicted."""
    gang = placed(gang)
    return written(gang, {**pods_of(gang, "Pending"), W1: pod_of(gang, gang.status.placement[1], "Failed", **EVICTED)})


def test_gang_whose_starts_end_in_disruptions_preempts_nobody_from_the_second_on() -> None:
    once = disrupted(job())
    assert not gang_of(once).start_failed, "once may be chance"
    twice = disrupted(once)
    assert (gang_of(twice).start_failed, twice.lessons.failures, twice.status.restarts) == (True, 0, 0)
    assert gang_of(disrupted(twice)).start_failed
    assert not gang_of(disrupted(started(once))).start_failed, "it has run in between"


# Refusals


def refused_by_all(times: int, now: float = NOW) -> Job:
    """A job that n1 and n2 have refused so often."""
    gang = job()
    for _ in range(times):
        gang = placed(gang, at=now)
        gang = written(gang, unbound(gang, 0, 1), now)
    return gang


def test_every_node_that_refuses_a_pod_is_learnt_with_its_own_words() -> None:
    gang = placed(job())
    after = written(gang, unbound(gang, 0, 1))
    assert [(each.node, each.message, each.times) for each in after.status.refusals] == [
        ("n1", "Insufficient rdma/hca", 1),
        ("n2", "Insufficient rdma/hca", 1),
    ]
    assert after.status.message == f"pod {W0} on node n1: {CARD.rstrip('.')}"


def test_node_that_refused_once_is_avoided_and_twice_is_left_out() -> None:
    once, twice = gang_of(refused_by_all(1)), gang_of(refused_by_all(2))
    assert (once.avoid, once.refused) == (frozenset({"n1", "n2"}), {})
    assert twice.refused == {"n1": "Insufficient rdma/hca", "n2": "Insufficient rdma/hca"}


def test_nodes_refused_in_a_row_stay_avoided() -> None:
    gang = placed(job())
    gang = placed(written(gang, unbound(gang, 0)), ["n3", "n4"])
    gang = placed(written(gang, unbound(gang, 0)), ["n5", "n6"])
    assert gang_of(written(gang, unbound(gang, 1))).avoid == {"n1", "n3", "n6"}


NO_HELP = "preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
MAKING = (
    f'0/4 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim "a-b". {NO_HELP}'
)
OF_BEFORE = f"0/4 nodes are available: PVC vision/a-b was not created for pod vision/a (pod is not owner). {NO_HELP}"
MISSING = f'0/4 nodes are available: persistentvolumeclaim "data" not found. {NO_HELP}'


@pytest.mark.parametrize("message", [MAKING, OF_BEFORE])
def test_pod_waits_for_the_claims_that_are_made_with_it(message: str) -> None:
    """Kubernetes makes them, or removes those of the pod before, at its own pace: no node has refused the pod."""
    gang = placed(job())
    pods = unbound(gang, 0, 1, message=message)
    assert look(gang, pods) == {"service": True}
    assert look(gang, pods, now=LATER) == {"status": ("Queued", "Requeued", "StartDeadlineExceeded")}
    assert written(gang, pods, LATER).status.message.endswith(message.partition(": ")[2].partition(". ")[0])


def test_word_of_kube_scheduler_about_no_node_is_learnt_of_none() -> None:
    gang = placed(job())
    after = written(gang, unbound(gang, 0, 1, message=MISSING))
    assert (after.status.refusals, after.status.avoid, gang_of(after).start_failed) == ([], [], True)
    assert after.status.message == f"pod {W0} on node n1: {MISSING.rstrip('.')}"


def test_refusal_counts_against_no_limit_but_nobody_is_preempted_after_it() -> None:
    gang = refused_by_all(9)
    assert gang.status.failed_start is not None
    assert (gang.status.failed_start.times, gang.status.restarts) == (0, 0)
    assert gang_of(gang).start_failed


@pytest.mark.parametrize(("times", "seconds"), [(2, 600), (3, 1200), (4, 2400), (5, 3600), (40, 3600)])
def test_node_is_left_out_for_longer_each_time(times: int, seconds: float) -> None:
    gang = refused_by_all(times)
    assert (REFUSED_SECONDS, LONGEST_REFUSED_SECONDS) == (600, 3600)
    assert {stamp(each.until) - NOW for each in gang.status.refusals} == {seconds}
    assert step_of(gang).check_at == NOW + seconds


def test_node_left_out_for_long_enough_is_tried_again_and_nobody_preempted() -> None:
    gang = refused_by_all(2)
    assert gang_of(waiting(gang, LATER - 1)).refused
    again = gang_of(waiting(gang, LATER))
    assert (again.refused, again.avoid, again.start_failed) == ({}, frozenset({"n1", "n2"}), True)
    assert {each.times for each in waiting(gang, LATER).status.refusals} == {2}


def test_change_of_a_node_ends_its_refusal_alone() -> None:
    gang = refused_by_all(2)
    after = waiting(gang, digest=lambda node: "other" if node == "n2" else "")
    assert gang_of(after).refused == {"n1": "Insufficient rdma/hca"}
    assert gang_of(after).start_failed, "the failed start was that on n1"
    assert not gang_of(waiting(gang, digest=lambda node: "other" if node == "n1" else "")).start_failed


@pytest.mark.parametrize(
    "reason", ["OutOfcpu", "TopologyAffinityError", "UnexpectedAdmissionError", "SysctlForbidden", "Novel"]
)
def test_rejection_by_a_kubelet_is_a_refusal_of_its_node(reason: str) -> None:
    gang = placed(job())
    pods = {**pods_of(gang, "Pending"), W1: pod_of(gang, gang.status.placement[1], "Failed", reason=reason, message="no room")}
    after = written(gang, pods)
    assert [(each.node, each.message) for each in after.status.refusals] == [("n2", "no room")]
    assert (after.status.restarts, after.status.message) == (0, f"pod {W1} on node n2 was rejected by its kubelet: no room")


def test_what_is_remembered_is_bounded() -> None:
    gang = job()
    gang.status.refusals = [Refusal(node=f"old{i}", digest="1-") for i in range(REFUSALS_LIMIT)]
    gang = placed(gang)
    after = written(gang, unbound(gang, 0, message="x" * 999))
    assert len(after.status.refusals) == REFUSALS_LIMIT
    assert (after.status.refusals[-1].node, len(after.status.refusals[-1].message)) == ("n1", MOST_WORDS)


def test_gang_that_runs_keeps_what_nodes_refused_it_again_and_again() -> None:
    gang = placed(refused_by_all(2), ["n3", "n4"])
    runs = written(gang, pods_of(gang))
    assert [each.node for each in runs.status.refusals] == ["n1", "n2"]
    gang = placed(refused_by_all(1), ["n3", "n4"])
    assert written(gang, pods_of(gang)).status.refusals == []


# Whether a node is as it was


def node(**fields: Any) -> Node:
    whole = {
        "metadata": {"name": "n1", "labels": fields.pop("labels", {"a": "1"})},
        "spec": {"taints": fields.pop("taints", []), "unschedulable": fields.pop("unschedulable", False)},
        "status": {"allocatable": fields.pop("allocatable", {"cpu": "8"}), **fields},
    }
    return msgspec.convert(whole, Node)


TAINT = {"key": "only", "value": "me", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    "change",
    [{"labels": {"a": "2"}}, {"taints": [TAINT]}, {"unschedulable": True}, {"allocatable": {"cpu": "8", "rdma/hca": "1"}}],
)
def test_node_has_changed_where_that_decides_which_pods_it_takes(change: Json) -> None:
    assert digest(node(**change)) != digest(node())


def test_conditions_of_a_node_are_no_change_of_it() -> None:
    ready = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    not_ready = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
    assert digest(node(conditions=ready, taints=[not_ready])) == digest(node())
    assert digest(node(labels={"b": "1", "a": "1"})) == digest(node(labels={"a": "1", "b": "1"}))


# A program that the kubelet starts again and again


def crashing(times: int, waits: bool = True) -> Json:
    state: Json = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}} if waits else {"running": {}}
    ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
    return {"containerStatuses": [{"name": "train", "state": state, "lastState": ended, "restartCount": times}]}


@pytest.mark.parametrize("phase", [placed, started])
def test_crash_loop_counts_against_the_backoff_limit(phase: Any) -> None:
    gang = phase(job(backoffLimit=3))
    pods = {**pods_of(gang), W1: pod_of(gang, gang.status.placement[1], "Running", **crashing(2))}
    after = written(gang, pods)
    words = f"pod {W1} failed on node n2: container train exited with 1 Error and was started again 2 times"
    assert (after.status.phase, after.status.restarts, after.status.message) == ("Queued", 1, words)


@pytest.mark.parametrize("waits", [True, False])
def test_job_whose_program_the_kubelet_started_too_often_fails(waits: bool) -> None:
    gang = started(job(backoffLimit=1))
    pods = {**pods_of(gang), W1: pod_of(gang, gang.status.placement[1], "Running", **crashing(12, waits))}
    after = written(gang, pods)
    assert after.status.phase == "Failed"
    assert after.status.message.endswith("started again 12 times; 12 of 1 restart used")


def test_program_that_the_kubelet_started_again_within_the_limit_goes_on() -> None:
    gang = started(job(backoffLimit=1))
    pods = {**pods_of(gang), W1: pod_of(gang, gang.status.placement[1], "Running", **crashing(1, waits=False))}
    assert look(gang, pods) == {"service": True}


def test_sidecar_that_ends_well_and_is_started_again_is_no_failure() -> None:
    ended = {"name": "sync", "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 0}}, "restartCount": 99}
    gang = started(job())
    pods = {**pods_of(gang), W1: pod_of(gang, gang.status.placement[1], "Running", initContainerStatuses=[ended])}
    assert look(gang, pods) == {"service": True}
