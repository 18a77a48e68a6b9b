"""What a user with the role edit can say of priorities, quotas and queues, and what it does to others: nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from builders.live import Live
from muster.api import names
from muster.kube.errors import Forbidden, Invalid
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
FOREIGN = "a gang of another namespace"
GPU = f"requests.{names.GPU}"


@pytest.fixture
def other(cluster: LocalCluster, namespace: str) -> Iterator[Live]:
    """The namespace of another team. The cluster has 16 GPUs, on two nodes."""
    name = f"other-than-{namespace}"
    cluster.create_namespace(name)
    live = Live(cluster, name)
    yield live
    live.clear()
    cluster.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def administrator(cluster: LocalCluster, user: Live) -> Live:
    """The user's namespace as an administrator writes to it."""
    return Live(cluster, user.namespace)


@pytest.fixture
def urgent(cluster: LocalCluster) -> Iterator[str]:
    """A PriorityClass."""
    cluster.api.create(CLASSES, {"metadata": {"name": "urgent"}, "value": 1000})
    yield "urgent"
    cluster.api.delete(f"{CLASSES}/urgent")


def queue(administrator: Live, name: str, gpus: int) -> None:
    administrator.create("dlqueues", {"metadata": {"name": name}, "spec": {"gpus": gpus}})


def uids(live: Live) -> set[str]:
    return {pod["metadata"]["uid"] for pod in live.pods()}


def test_integer_takes_no_gpus_and_no_position_of_another_team(user: Live, other: Live) -> None:
    """Seen: `priority: 1000000000`, which anybody may write, took 16 running GPUs of another team."""
    other.job("runs", 2, 8)
    other.wait_running("runs", 2)
    before = uids(other)
    other.job("next", 2, 8)
    other.wait_reason("next", "InsufficientGPUs")
    user.job("greedy", 2, 8, priority=10**9)
    assert user.wait_reason("greedy", "BehindInQueue") == f"needs 16 GPUs; comes after {FOREIGN}, which waits for GPUs"
    assert (uids(other), other.status("runs")["attempt"]) == (before, 1)
    other.delete("dljobs", "runs", propagation="Background")
    other.wait_running("next", 2)


def test_priority_class_takes_gpus_of_another_team_and_names_nobody(user: Live, other: Live, urgent: str) -> None:
    other.job("secret", 2, 8)
    other.wait_running("secret", 2)
    user.job("boss", 2, 8, priorityClassName=urgent)
    user.wait_running("boss", 2)
    preempted = next(event for event in other.status("secret")["timeline"] if event["event"] == "Preempted")
    assert preempted["message"] == f"preempted by {FOREIGN}, which has priority 1000"
    assert "secret" not in str(user.get("dljobs", "boss")) + str(user.items("events"))
    assert "boss" not in str(other.get("dljobs", "secret")) + str(other.items("events"))


def test_running_job_whose_priority_class_is_deleted_is_not_preempted(
    user: Live, other: Live, administrator: Live, urgent: str
) -> None:
    administrator.api.create(CLASSES, {"metadata": {"name": "fleeting"}, "value": 2000})
    user.job("runs", 2, 8, priorityClassName="fleeting")
    user.wait_running("runs", 2)
    before = uids(user)
    administrator.api.delete(f"{CLASSES}/fleeting")
    other.job("boss", 2, 8, priorityClassName=urgent)
    assert other.wait_reason("boss", "InsufficientGPUs")
    assert (uids(user), user.status("runs")["attempt"]) == (before, 1)


def test_quota_without_room_for_a_service_is_seen_before_anybody_is_preempted(user: Live, administrator: Live) -> None:
    user.job("runs", 2, 8, rendezvous="None")
    user.wait_running("runs", 2)
    administrator.create("resourcequotas", {"metadata": {"name": "few"}, "spec": {"hard": {"services": "0"}}})
    administrator.wait(lambda: administrator.get("resourcequotas", "few").get("status", {}).get("hard"), "it is in force")
    user.job("boss", 2, 8, priority=5)
    told = user.wait_reason("boss", "ExceedsResourceQuota")
    assert told == f"needs 1 services; ResourceQuota {user.namespace}/few allows no more than 0"
    assert user.status("runs")["attempt"] == 1
    administrator.patch("resourcequotas", "few", {"spec": {"hard": {"services": "1"}}})
    user.wait_running("boss", 2)


def test_quota_of_a_priority_class_is_evaluated_before_anybody_is_preempted(
    user: Live, other: Live, administrator: Live, urgent: str
) -> None:
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [urgent]}]}
    spec = {"hard": {GPU: "8"}, "scopeSelector": selector}
    administrator.create("resourcequotas", {"metadata": {"name": urgent}, "spec": spec})
    administrator.wait(lambda: administrator.get("resourcequotas", urgent).get("status", {}).get("hard"), "it is in force")
    other.job("runs", 2, 8)
    other.wait_running("runs", 2)
    before = uids(other)
    user.job("boss", 2, 8, priorityClassName=urgent)
    told = user.wait_reason("boss", "ExceedsResourceQuota")
    assert told == f"needs 16 {GPU}; ResourceQuota {user.namespace}/{urgent} allows no more than 8"
    assert (uids(other), other.status("runs")["attempt"]) == (before, 1)
    administrator.patch("resourcequotas", urgent, {"spec": {"hard": {GPU: "16"}}})
    user.wait_running("boss", 2)


def test_job_that_waits_for_its_own_quota_leaves_idle_gpus_to_others(user: Live, other: Live, administrator: Live) -> None:
    """Seen: such a job kept 95 of 96 GPUs from every other team."""
    queue(administrator, "small", 15)
    user.job("first", 1, 1, queue="small")
    user.wait_running("first", 1)
    user.job("greedy", 15, 1, queue="small")
    told = user.wait_reason("greedy", "QuotaExhausted")
    assert told == f"needs 15 GPUs; queue {user.namespace}/small uses 1 of 15 GPUs"
    user.wait_past("greedy")
    other.job("others", 15, 1)
    other.wait_running("others", 15)


def test_higher_priority_preempts_a_lower_one_within_a_full_quota(user: Live, administrator: Live) -> None:
    queue(administrator, "small", 2)
    user.job("low", 2, 1, queue="small")
    user.wait_running("low", 2)
    user.job("high", 2, 1, queue="small", priority=1)
    user.wait_running("high", 2)
    assert user.status("low")["phase"] == "Queued"


def test_job_of_a_queue_that_does_not_exist_waits_and_is_told_which_do(user: Live, administrator: Live) -> None:
    queue(administrator, "research", 2)
    user.job("astray", 2, 1, queue="reserach")
    where = user.namespace
    told = user.wait_reason("astray", "QueueNotFound")
    assert told == f"queue {where}/reserach does not exist; there are {where}/research"
    queue(administrator, "reserach", 2)
    user.wait_running("astray", 2)
    administrator.delete("dlqueues", "reserach")
    user.job("later", 1, 1, queue="reserach")
    user.wait_reason("later", "QueueNotFound")
    assert user.status("astray")["phase"] == "Running"


def test_gpus_of_pods_beside_muster_count_in_their_queue(user: Live, administrator: Live) -> None:
    queue(administrator, "default", 2)
    user.pod("beside", 2, scheduler="default-scheduler")
    user.wait(lambda: user.get("pods", "beside")["spec"].get("nodeName"), "it is bound")
    user.job("within", 1, 1)
    told = user.wait_reason("within", "QuotaExhausted")
    assert told == f"needs 1 GPU; queue {user.namespace}/default uses 2 of 2 GPUs"
    user.delete("pods", "beside")
    user.wait_running("within", 1)


def test_running_job_stays_in_the_queue_in_which_its_gpus_count(user: Live, administrator: Live) -> None:
    """Seen: a job that ran was moved to a queue that does not exist, and the quota that it had used up was free again."""
    queue(administrator, "small", 1)
    user.job("first", 1, 1, queue="small")
    user.wait_running("first", 1)
    with pytest.raises(Invalid, match=r"spec\.queue cannot change while the job holds GPUs"):
        user.patch("dljobs", "first", {"spec": {"queue": "bogus"}})
    user.job("second", 1, 1, queue="small")
    user.wait_reason("second", "QuotaExhausted")
    user.patch("dljobs", "second", {"spec": {"queue": "default"}})
    user.wait_reason("second", "QueueNotFound")


def test_running_pod_stays_in_the_queue_in_which_its_gpus_count(user: Live, administrator: Live) -> None:
    queue(administrator, "small", 1)
    user.pod("first", 1, labels={names.QUEUE: "small"})
    user.wait(lambda: user.get("pods", "first")["spec"].get("nodeName"), "the first runs")
    for text in ("bogus", None):
        with pytest.raises(Forbidden, match="cannot change once a pod is held no more"):
            user.patch("pods", "first", {"metadata": {"labels": {names.QUEUE: text}}})
    user.pod("second", 1, labels={names.QUEUE: "small"})
    user.wait(lambda: names.WAITING in user.get("pods", "second")["metadata"].get("annotations", {}), "the second waits")
    user.patch("pods", "second", {"metadata": {"labels": {names.QUEUE: "other"}}})


def test_job_that_a_finalizer_keeps_holds_nothing_beyond_its_quota(user: Live, administrator: Live) -> None:
    """Seen: deleted jobs with a finalizer counted in no queue, and kept their GPUs: the whole cluster on a quota of one."""
    queue(administrator, "default", 1)
    user.job("kept", 1, 1, meta={"finalizers": ["example.com/kept"]})
    user.wait_running("kept", 1)
    user.delete("dljobs", "kept")
    user.wait(lambda: not user.pods(), "the pods of the deleted job have gone")
    assert "placement" not in user.get("dljobs", "kept")["status"] or not user.get("dljobs", "kept")["status"]["placement"]
    user.patch("dljobs", "kept", {"metadata": {"finalizers": None}})
