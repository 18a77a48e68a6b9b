"""Resource quotas of a namespace: evaluated for the whole gang before it is admitted, or others make way for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from builders.cluster import decide, gang, node, placed, reasons, running, tasks, world
from muster.scheduling.decisions import Decision, Reason, Resize
from muster.scheduling.gang import Gang
from muster.scheduling.resource_quota import Charge, ResourceQuota, Scope, quantity
from muster.scheduling.snapshot import Queue, Snapshot

GPU = "requests.nvidia.com/gpu"
ONE_GPU = Charge(((GPU, 1), ("pods", 1), ("requests.cpu", 500)))


def quota(hard: Mapping[str, int], used: Mapping[str, int] | None = None, *scopes: Scope) -> ResourceQuota:
    return ResourceQuota("team/limits", "team", tuple(hard.items()), tuple((used or {}).items()), scopes)


def job(name: str, count: int, charge: Charge = ONE_GPU, **fields: Any) -> Gang:
    """A waiting gang of the namespace `team`, of pods of one GPU."""
    return gang(name, count, namespace="team", queue="team/q", charges=(("worker", charge),), **fields)


def decided(snapshot: Snapshot, *quotas: ResourceQuota) -> dict[str, Decision]:
    return decide(replace(snapshot, resource_quotas=quotas))


def test_gang_over_a_resource_quota_waits_as_a_whole() -> None:
    decisions = decided(world([node("n1")], [job("a", 4)]), quota({GPU: 6}, {GPU: 3}))
    assert reasons(decisions) == {"a": Reason.RESOURCE_QUOTA}
    assert decisions["a"].message == f"needs 4 {GPU}; ResourceQuota team/limits has 3 of 6 left"


def test_gang_that_uses_a_resource_quota_up_is_placed() -> None:
    assert reasons(decided(world([node("n1")], [job("a", 3)]), quota({GPU: 6}, {GPU: 3}))) == {"a": Reason.PLACED}


def test_gang_larger_than_a_resource_quota_is_told_so() -> None:
    decision = decided(world([node("n1")], [job("a", 8)]), quota({"requests.cpu": 3500}))["a"]
    assert decision.message == "needs 4 requests.cpu; ResourceQuota team/limits allows no more than 3500m"


def test_gang_over_a_resource_quota_preempts_nobody_and_reserves_nothing() -> None:
    held = running("low", ("n1", range(4)))
    snapshot = world([node("n1", 8)], [held, job("high", 6, priority=9), gang("next", 4, arrived=1.0)])
    assert reasons(decided(snapshot, quota({"pods": 5}))) == {"high": Reason.RESOURCE_QUOTA, "next": Reason.PLACED}


def test_gang_over_a_resource_quota_preempts_nobody_within_a_full_quota_of_its_queue() -> None:
    held = running("low", ("n1", range(4)), queue="team/q", namespace="team")
    snapshot = world([node("n1", 8)], [held, job("high", 4, priority=9)], {"team/q": 4})
    assert reasons(decided(snapshot, quota({"pods": 3}))) == {"high": Reason.RESOURCE_QUOTA}


def test_gangs_of_one_pass_count_together() -> None:
    waiting = [job("a", 3), job("b", 2, arrived=1.0), job("c", 1, arrived=2.0)]
    decisions = decided(world([node("n1")], waiting), quota({"pods": 4}))
    assert reasons(decisions) == {"a": Reason.PLACED, "b": Reason.RESOURCE_QUOTA, "c": Reason.PLACED}


def test_other_namespaces_are_not_counted() -> None:
    other = replace(job("a", 8), namespace="other")
    assert reasons(decided(world([node("n1")], [other]), quota({"pods": 1}))) == {"a": Reason.PLACED}


def test_elastic_gang_takes_no_more_than_a_resource_quota_has_left() -> None:
    chief = Charge((("pods", 1), ("requests.cpu", 2000)))
    members = tasks("a", 1, 1, "chief") + tasks("a", 6)
    elastic = replace(job("a", 1, tasks=members, fewest=2), charges=(("worker", ONE_GPU), ("chief", chief)))
    decision = decided(world([node("n1")], [elastic]), quota({"requests.cpu": 3900}))["a"]
    assert [place.task.name for place in placed(decision)] == ["a-chief-0", *(f"a-worker-{i}" for i in range(3))]
    short = decided(world([node("n1")], [elastic]), quota({"requests.cpu": 2900}))["a"]
    assert short.message == "needs 3 requests.cpu; ResourceQuota team/limits allows no more than 2900m"


@pytest.mark.parametrize(("hard", "decision"), [(4, "Resize"), (3, "Wait")])
def test_growing_gang_needs_resource_quota_for_its_further_pods_only(hard: int, decision: str) -> None:
    grows = running("a", ("n1", [0]), ("n1", [1]), namespace="team", charges=(("worker", ONE_GPU),), resize=True)
    grows = replace(grows, tasks=tasks("a", 4))
    found = decided(world([node("n1", 8)], [grows]), quota({"pods": hard}, {"pods": 2}))["a"]
    assert type(found).__name__ == decision
    assert isinstance(found, Resize) or found.message.startswith(
        "stays as it is: needs 2 pods; ResourceQuota team/limits has 1"
    )


def test_service_counts_once_for_the_whole_gang_and_in_no_scope() -> None:
    one, two = job("a", 2, service=True), job("b", 2, arrived=1.0, service=True)
    snapshot = world([node("n1")], [one, two])
    assert reasons(decided(snapshot, quota({"services": 1}))) == {"a": Reason.PLACED, "b": Reason.RESOURCE_QUOTA}
    for scope in ("NotTerminating", "NotBestEffort", "PriorityClass"):
        assert set(reasons(decided(snapshot, quota({"services": 0}, {}, Scope(scope)))).values()) == {Reason.PLACED}


def test_growing_gang_needs_no_further_service() -> None:
    grows = running("a", ("n1", [0]), namespace="team", charges=(("worker", ONE_GPU),), service=True, resize=True)
    grows = replace(grows, tasks=tasks("a", 2))
    assert type(decided(world([node("n1", 8)], [grows]), quota({"services": 1}, {"services": 1}))["a"]).__name__ == "Resize"


BEST_EFFORT = Charge((("pods", 1),), best_effort=True)
CLASSED = Charge((("pods", 1),), priority_class="urgent", terminating=True)


@pytest.mark.parametrize(
    ("scope", "counted"),
    [
        (Scope("PriorityClass", "In", ("urgent", "high")), [CLASSED]),
        (Scope("PriorityClass", "NotIn", ("urgent",)), [BEST_EFFORT]),
        (Scope("PriorityClass", "Exists"), [CLASSED]),
        (Scope("PriorityClass", "DoesNotExist"), [BEST_EFFORT]),
        (Scope("Terminating"), [CLASSED]),
        (Scope("NotTerminating"), [BEST_EFFORT]),
        (Scope("BestEffort"), [BEST_EFFORT]),
        (Scope("NotBestEffort"), [CLASSED]),
        (Scope("CrossNamespacePodAffinity"), []),
    ],
)
def test_resource_quota_counts_the_pods_of_its_scopes(scope: Scope, counted: list[Charge]) -> None:
    for charge in (BEST_EFFORT, CLASSED):
        expected = Reason.RESOURCE_QUOTA if charge in counted else Reason.PLACED
        decisions = decided(world([node("n1")], [job("a", 1, charge)]), quota({"pods": 0}, {}, scope))
        assert reasons(decisions) == {"a": expected}


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        ("requests.cpu", 4000, "4"),
        ("cpu", 1500, "1500m"),
        ("limits.memory", 64 << 30, "64Gi"),
        ("memory", 1536 << 20, "1.5Gi"),
        ("pods", 2000, "2000"),
    ],
)
def test_amount_is_written_as_people_write_it(resource: str, amount: int, text: str) -> None:
    assert quantity(resource, amount) == text


def test_gang_of_a_queue_that_does_not_exist_waits_where_its_namespace_has_queues() -> None:
    queues = {name: Queue(name, None, name.partition("/")[0]) for name in ("team/prod", "team/research", "else/q")}
    strange = gang("a", 1, namespace="team", queue="team/reserach", priority=9)
    without = gang("b", 1, namespace="none", queue="none/default")
    decisions = decide(replace(world([node("n1")], [strange, without]), queues=queues))
    assert reasons(decisions) == {"a": Reason.QUEUE_NOT_FOUND, "b": Reason.PLACED}
    assert decisions["a"].message == "queue team/reserach does not exist; there are team/prod, team/research"


def test_gang_of_a_deleted_queue_runs_on_and_does_not_grow() -> None:
    grows = replace(running("a", ("n1", [0]), namespace="team", queue="team/gone", resize=True), tasks=tasks("a", 2))
    snapshot = replace(world([node("n1", 4)], [grows]), queues={"team/prod": Queue("team/prod", 1, "team")})
    decision = decide(snapshot)["a"]
    assert (decision.reason, type(decision).__name__) == (Reason.QUEUE_NOT_FOUND, "Wait")


def test_gpus_of_pods_that_no_plan_named_count_in_their_queue() -> None:
    queues = {"team/q": Queue("team/q", 4, "team", others=2)}
    decisions = decide(replace(world([node("n1")], [job("a", 3)]), queues=queues))
    assert decisions["a"].message == "needs 3 GPUs; queue team/q uses 2 of 4 GPUs"


def test_gang_that_refers_to_something_missing_waits_and_says_so() -> None:
    decisions = decide(world([node("n1")], [gang("a", 1, missing="PriorityClass urgent does not exist"), gang("b", 8)]))
    assert reasons(decisions) == {"a": Reason.NOT_FOUND, "b": Reason.PLACED}
    assert decisions["a"].message == "PriorityClass urgent does not exist"
