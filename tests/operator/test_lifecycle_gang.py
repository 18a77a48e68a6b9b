"""A placed gang: its pods come all together, run together, end together, and are requeued together."""

from __future__ import annotations

from typing import Any

import pytest

from builders.dljobs import NOW, Json, after, changed, condition, container, job, placed, pod_of, pods_of, roles, started, time
from builders.steps import look, step_of
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record
from muster_operator.pinning import UNSCHEDULABLE_SECONDS
from muster_operator.pod_faults import CANNOT_START, REJECTIONS, TAKEN_AWAY

W0, W1 = "vgg16-worker-0", "vgg16-worker-1"
STAYS: Json = {"service": True}
REQUEUED = ("Queued", "Requeued")


def one(pods: Any, job_: Job, index: int, phase: str, **status: Any) -> Any:
    """The pods with another state of one of them."""
    place = job_.status.placement[index]
    return {**pods, place.pod: pod_of(job_, place, phase, **status)}


def test_all_pods_are_created_at_once() -> None:
    assert look(placed(job())) == {"create": [W0, W1], "service": True}


def test_only_missing_pods_are_created() -> None:
    gang = placed(job())
    pods = pods_of(gang, "Pending")
    del pods[W0]
    assert look(gang, pods) == {"create": [W0], "service": True}


def test_job_without_rendezvous_has_no_service() -> None:
    assert look(placed(job(rendezvous="None"))) == {"create": [W0, W1], "service": False}


@pytest.mark.parametrize(("phases", "runs"), [("RR", True), ("RS", True), ("RP", False), ("PP", False)])
def test_gang_runs_when_its_last_pod_runs(phases: str, runs: bool) -> None:
    gang, words = placed(job()), {"R": "Running", "S": "Succeeded", "P": "Pending"}
    pods = {place.pod: pod_of(gang, place, words[p]) for place, p in zip(gang.status.placement, phases, strict=True)}
    assert look(gang, pods) == STAYS | ({"status": ("Running", "Running", "GangRunning")} if runs else {})


def test_running_gang_is_left_alone() -> None:
    gang = started(job())
    assert look(gang, pods_of(gang)) == STAYS


def test_incomplete_gang_does_not_run() -> None:
    gang = placed(job())
    pods = pods_of(gang)
    del pods[W1]
    assert look(gang, pods) == {"create": [W1], "service": True}


# The end

DONE = ("Succeeded", "Succeeded", "Completed")
PS = {"rendezvous": "ParameterServer", "roles": roles(chief=1, ps=1, evaluator=1)}


@pytest.mark.parametrize(
    ("fields", "over", "ends"),
    [
        ({}, {W0, W1}, True),
        ({}, {W0}, False),
        (PS, {"vgg16-chief-0"}, True),
        (PS, {W0, W1}, False),
        (PS, {"vgg16-ps-0", "vgg16-evaluator-0"}, False),
        ({**PS, "roles": roles(ps=2)}, {W0, W1}, True),
        ({**PS, "roles": roles(ps=2)}, {W0, "vgg16-ps-0", "vgg16-ps-1"}, False),
    ],
    ids=["workers", "one worker", "chief", "workers but not the chief", "neither", "workers, ps runs", "ps, not all workers"],
)
def test_job_ends_with_its_chief_or_its_workers(fields: Json, over: set[str], ends: bool) -> None:
    gang = started(job(**fields))
    pods = {p.pod: pod_of(gang, p, "Succeeded" if p.pod in over else "Running") for p in gang.status.placement}
    goes_on = STAYS | {"status": ("Running", "Running", "GangRunning")}  # and is told how many of its pods have ended
    assert look(gang, pods) == ({"status": DONE} if ends else goes_on)


def test_gang_may_succeed_before_it_was_seen_running() -> None:
    gang = placed(job())
    assert look(gang, pods_of(gang, "Succeeded")) == {"status": DONE}


def test_success_of_the_workers_outweighs_a_failed_server() -> None:
    gang = started(job(rendezvous="ParameterServer", roles=roles(ps=1)))
    pods = one(pods_of(gang, "Succeeded"), gang, 2, "Failed")
    assert look(gang, pods) == {"status": DONE}


# Failures of its own


def failed(gang: Job, index: int = 0, **status: Any) -> Any:
    ended = container(terminated={"exitCode": 137, "reason": "OOMKilled"})
    return one(pods_of(gang), gang, index, "Failed", **({"containerStatuses": [ended]} | status))


def test_failed_pod_restarts_the_gang() -> None:
    gang = started(job())
    step = step_of(gang, failed(gang))
    assert step.status is not None
    assert step.status.status.message == f"pod {W0} failed on node n1: container train exited with 137 OOMKilled"
    assert (step.status.status.restarts, step.status.status.requeues, step.status.status.avoid) == (1, 0, [])
    assert look(gang, failed(gang)) == {"status": ("Queued", "Restarting", "PodFailed")}


@pytest.mark.parametrize(
    ("limit", "restarts", "ends"), [(0, 0, True), (1, 0, False), (1, 1, True), (3, 2, False), (3, 3, True), (3, 4, True)]
)
def test_job_fails_at_its_backoff_limit(limit: int, restarts: int, ends: bool) -> None:
    gang = after(started(job(backoffLimit=limit)), lambda record: setattr(record.status, "restarts", restarts))
    step = step_of(gang, failed(gang))
    assert step.status is not None
    if ends:
        assert (step.status.status.phase, step.status.status.timeline[-1].reason) == ("Failed", "BackoffLimitExceeded")
        assert step.status.status.message.endswith(f"OOMKilled; {restarts} of {limit} restart{'' if limit == 1 else 's'} used")
    else:
        assert (step.status.status.phase, step.status.status.restarts) == ("Queued", restarts + 1)


@pytest.mark.parametrize("reason", sorted(REJECTIONS | TAKEN_AWAY))
def test_failure_caused_by_the_node_costs_no_restart(reason: str) -> None:
    gang = started(job())
    pods = failed(gang, 1, reason=reason, containerStatuses=None, message="as the kubelet says")
    step = step_of(gang, pods)
    assert look(gang, pods) == {"status": (*REQUEUED, "PodDisrupted")}
    assert step.status is not None
    assert (step.status.status.avoid, step.status.status.restarts, step.status.status.requeues) == (["n2"], 0, 1)
    assert step.status.status.message == f"pod {W1} on node n2 was taken away: as the kubelet says"


@pytest.mark.parametrize(("status", "blamed"), [("True", False), ("False", True), ("Unknown", True)])
def test_disrupted_pod_costs_no_restart(status: str, blamed: bool) -> None:
    gang = started(job())
    disrupted = condition("DisruptionTarget", status, reason="EvictionByEvictionAPI", message="Eviction API: evicting")
    pods = failed(gang, containerStatuses=None, conditions=[disrupted])
    assert look(gang, pods) == {"status": ("Queued", "Restarting", "PodFailed") if blamed else (*REQUEUED, "PodDisrupted")}


@pytest.mark.parametrize(
    "reason", ["OutOfcpu", "OutOfpods", "OutOfnvidia.com/gpu", "TopologyAffinityError", "AppArmor", "Novel"]
)
def test_pod_that_the_kubelet_rejected_costs_no_restart(reason: str) -> None:
    """It failed before any of its containers ran, whatever the kubelet's word for that is."""
    gang = started(job(backoffLimit=0))
    waiting = [container(waiting={"reason": "ContainerCreating"})]
    for statuses in (None, waiting):
        pods = failed(gang, 1, reason=reason, message="Pod was rejected", containerStatuses=statuses)
        step = step_of(gang, pods)
        assert look(gang, pods) == {"status": (*REQUEUED, "PodDisrupted")}
        assert step.status is not None
        assert (step.status.status.avoid, step.status.status.restarts) == (["n2"], 0)


def test_program_that_failed_is_to_blame_whatever_else_is_said_of_its_pod() -> None:
    gang = started(job())
    pods = failed(gang, reason="Novel")
    assert look(gang, pods) == {"status": ("Queued", "Restarting", "PodFailed")}


@pytest.mark.parametrize(("others", "blamed"), [([], False), ([("Completed", 0)], False), ([("Error", 1)], True)])
def test_container_that_its_node_lost_costs_no_restart(others: list[tuple[str, int]], blamed: bool) -> None:
    """After a reboot the kubelet says so of what ran before; a container beside it may have failed by itself."""
    gang = started(job())
    ends = [("ContainerStatusUnknown", 137), *others]
    statuses = [container(f"c{n}", terminated={"exitCode": code, "reason": why}) for n, (why, code) in enumerate(ends)]
    pods = failed(gang, containerStatuses=statuses)
    assert look(gang, pods) == {"status": ("Queued", "Restarting", "PodFailed") if blamed else (*REQUEUED, "PodDisrupted")}


WROTE = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "


@pytest.mark.parametrize(
    ("message", "blamed"),
    [
        (WROTE, True),
        ('Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". ', True),
        ('Container train exceeded its local ephemeral storage limit "1Gi". ', True),
        ("The node was low on resource: ephemeral-storage. Container train was using 9Gi, request is 0. ", False),
    ],
)
def test_pod_that_was_evicted_for_its_own_limit_is_to_blame(message: str, blamed: bool) -> None:
    """As one that is killed for its memory is: it would fill its volume again, wherever it goes."""
    gang = started(job())
    killed = [container(terminated={"exitCode": 137, "reason": "Error"})]
    for statuses in (None, killed):
        pods = failed(gang, reason="Evicted", message=message, containerStatuses=statuses)
        assert look(gang, pods) == {"status": ("Queued", "Restarting", "PodFailed") if blamed else (*REQUEUED, "PodDisrupted")}
    if blamed:
        step = step_of(gang, pods)
        assert step.status is not None
        assert step.status.status.message == f"pod {W0} failed on node n1: {message.strip().rstrip('.')}"


def ended(at: float, **status: Any) -> Json:
    return {"containerStatuses": [container(terminated={"exitCode": 1, "reason": "Error", "finishedAt": time(at)})], **status}


@pytest.mark.parametrize(("evicted_at", "blamed"), [(NOW - 9, False), (NOW, False), (NOW + 9, True)])
def test_program_that_fails_because_another_pod_was_taken_away_is_not_to_blame(evicted_at: float, blamed: bool) -> None:
    """The others lose their peer, and end with an error."""
    gang = started(job(backoffLimit=0))
    drained = condition("DisruptionTarget", reason="EvictionByEvictionAPI", since=evicted_at)
    pods = one(failed(gang, 0, **ended(NOW)), gang, 1, "Failed", **ended(NOW + 30, conditions=[drained]))
    assert look(gang, pods)["status"][2] == ("BackoffLimitExceeded" if blamed else "PodDisrupted")


def test_program_that_fails_where_another_pod_or_its_node_is_gone_is_not_to_blame() -> None:
    gang = started(job(backoffLimit=0))
    pods = failed(gang, 0)
    assert look(gang, pods, dead={"n2"}) == {"status": (*REQUEUED, "NodeLost")}
    assert look(gang, {**pods, W1: changed(pods[W1], leaving=True)}) == {"status": (*REQUEUED, "PodDisrupted")}
    del pods[W1]
    assert look(gang, pods) == {"status": (*REQUEUED, "PodDeleted")}


def test_failed_pod_that_is_leaving_or_never_bound_is_not_to_blame() -> None:
    gang = started(job())
    leaving = {name: changed(pod, leaving=True) if name == W0 else pod for name, pod in failed(gang).items()}
    unbound = {**pods_of(gang), W0: pod_of(gang, gang.status.placement[0], "Failed", bound=False)}
    for pods in (leaving, unbound):
        assert look(gang, pods) == {"status": (*REQUEUED, "PodDisrupted")}


def test_pod_that_failed_with_its_node_is_not_to_blame() -> None:
    gang = started(job())
    assert look(gang, failed(gang), dead={"n1"}) == {"status": (*REQUEUED, "NodeLost")}


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ({"message": "Pod was active too long", "reason": "DeadlineExceeded"}, "Pod was active too long"),
        ({"reason": "DeadlineExceeded"}, "DeadlineExceeded"),
        ({"conditions": [condition("DisruptionTarget", "False", message="by a taint")]}, "by a taint"),
        ({}, "no reason given"),
        ({"containerStatuses": [container(terminated={"exitCode": 0, "reason": "Completed"})]}, "no reason given"),
        (
            {"initContainerStatuses": [container("fetch", terminated={"exitCode": 2, "message": "no\nroute"})]},
            "container fetch exited with 2 no route",
        ),
    ],
)
def test_message_has_the_cause_of_a_failure(status: Json, cause: str) -> None:
    gang = started(job())
    bare: Json = {"containerStatuses": None}
    step = step_of(gang, failed(gang, **(bare | status)))
    assert step.status is not None
    assert step.status.status.message == f"pod {W0} failed on node n1: {cause}"


# Trouble that is not its own


def test_gang_with_a_lost_node_is_requeued() -> None:
    for gang in (placed(job()), started(job())):
        step = step_of(gang, pods_of(gang, "Pending"), dead={"n2"})
        assert step.status is not None
        assert step.status.status.message == f"node n2 of pod {W1} is gone or not ready"
        assert (step.status.status.avoid, step.status.status.placement) == (["n2"], [])
        pods = pods_of(gang)
        del pods[W1]
        assert look(gang, pods, dead={"n2"}) == {"status": (*REQUEUED, "NodeLost")}


def test_running_gang_with_a_deleted_pod_is_requeued() -> None:
    gang = started(job())
    pods = pods_of(gang)
    del pods[W1]
    step = step_of(gang, pods)
    assert look(gang, pods) == {"status": (*REQUEUED, "PodDeleted")}
    assert step.status is not None
    assert (step.status.status.message, step.status.status.avoid) == (f"pod {W1} on node n2 was deleted", [])


def test_gang_with_a_terminating_pod_is_requeued() -> None:
    for gang in (placed(job()), started(job())):
        pods = pods_of(gang)
        pods[W0] = changed(pods[W0], leaving=True)
        assert look(gang, pods) == {"status": (*REQUEUED, "PodDisrupted")}


@pytest.mark.parametrize("reason", sorted(CANNOT_START))
@pytest.mark.parametrize("where", ["containerStatuses", "initContainerStatuses"])
def test_gang_with_a_container_that_cannot_start_is_requeued(reason: str, where: str) -> None:
    gang = placed(job())
    statuses = {where: [container("a"), container("b", waiting={"reason": reason, "message": "no such image"})]}
    pods = one(pods_of(gang), gang, 1, "Pending", **statuses)
    step = step_of(gang, pods)
    assert step.status is not None
    assert step.status.status.message == f"pod {W1} on node n2: container b: {reason} no such image"
    assert step.status.status.avoid == []
    assert look(gang, pods) == {"status": (*REQUEUED, "PodStartFailed")}


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", "ErrImagePull", "CrashLoopBackOff"])
def test_gang_with_a_container_that_may_still_start_waits(reason: str) -> None:
    gang = placed(job())
    pods = one(pods_of(gang), gang, 1, "Pending", containerStatuses=[container(waiting={"reason": reason})])
    assert look(gang, pods) == STAYS


@pytest.mark.parametrize(
    ("status", "reason", "age", "answer"),
    [
        ("False", "Unschedulable", UNSCHEDULABLE_SECONDS - 1, STAYS | {"wake": NOW + 1}),
        ("False", "Unschedulable", UNSCHEDULABLE_SECONDS, {"status": (*REQUEUED, "PodUnschedulable")}),
        ("False", "Unschedulable", 600, {"status": (*REQUEUED, "PodUnschedulable")}),
        ("False", "SchedulerError", 600, STAYS),
        ("True", "Unschedulable", 600, STAYS),
    ],
)
def test_gang_with_an_unschedulable_pod_is_requeued_after_a_while(status: str, reason: str, age: float, answer: Json) -> None:
    gang = placed(job())
    refused = condition("PodScheduled", status, reason=reason, message="0/2 nodes: 1 Insufficient memory", since=NOW - age)
    pods = one(pods_of(gang), gang, 1, "Pending", bound=False, conditions=[refused])
    assert look(gang, pods) == answer
    step = step_of(gang, pods)
    if step.status is not None:
        assert step.status.status.message == f"pod {W1} on node n2: 0/2 nodes: 1 Insufficient memory"
        assert step.status.status.avoid == ["n2"]


def test_left_over_pods_keep_new_ones_back() -> None:
    """Pods of an earlier placement go first: a notice, a second, and deletion; then the names are free."""
    before = started(job())
    gang = placed(after(before, lambda record: record.preempt("gave way")))
    pods = pods_of(before)
    assert set(look(gang, pods)) == {"notice"}
    pods[W0] = pod_of(before, before.status.placement[0], "Succeeded")
    assert look(gang, {W0: pods[W0]}) == {"delete": [W0]}
    assert look(gang, {}) == {"create": [W0, W1], "service": True}


def test_trouble_is_noticed_while_left_over_pods_stop() -> None:
    before = started(job())
    gang = placed(after(before, lambda record: record.preempt("gave way")), ["n2"])
    answer = look(gang, pods_of(before), dead={"n2"})
    assert answer["status"] == (*REQUEUED, "NodeLost")


def test_restart_keeps_the_rest_of_the_status() -> None:
    gang = started(job())
    step = step_of(gang, failed(gang))
    assert isinstance(step.status, Record)
    assert step.status.status.queued_at == gang.status.queued_at
    assert step.status.status.attempt == gang.status.attempt
