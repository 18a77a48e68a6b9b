"""Least privilege: everything works with the chart's rights, and each right is used.

The chart is installed; operator, extender, kube-scheduler and agent run with its arguments and the tokens of its pods. The API
server's audit log has their requests. test_rights_missing tests the absence of each right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from builders.chart import NAMESPACE, RELEASE
from builders.installed import (
    ACCOUNT,
    NODES,
    PARTS,
    RBAC,
    TEAM,
    Right,
    World,
    bare_pod,
    hang,
    kept,
    phase,
    refuse_and_make_room,
    rights,
    rob,
    uid,
)
from muster.api import names
from muster_dev.local.errors import LocalError

pytestmark = pytest.mark.cluster

CHECKED_INTERNALLY: set[Right] = {("muster.dev", "dljobs/finalizers", "update")}
"""Rights that an admission plugin checks, without a request in the audit log."""


@dataclass(frozen=True)
class Record:
    """The audit events and the logs of one run through all scenes."""

    requests: list[dict[str, Any]]
    logs: dict[str, str]


@pytest.fixture(scope="module")
def record(world: World) -> Record:
    """Run all scenes once with the chart's rights."""
    for scene in (
        topologies_are_published,
        a_job_runs_to_its_end,
        a_job_is_removed_after_its_time,
        a_gated_pod_is_ungated,
        a_bare_pod_is_requeued,
        a_job_is_suspended_and_resumed,
        a_name_is_taken,
        a_pod_is_woken,
        a_start_is_given_up,
    ):
        scene(world)
    return Record(world.cluster.requests(), {name: world.parts.log(name) for name in PARTS})


def topologies_are_published(world: World) -> None:
    def published(node: str) -> bool:
        annotations = world.cluster.api.get(f"/api/v1/nodes/{node}")["metadata"].get("annotations", {})
        return names.TOPOLOGY in annotations

    world.cluster.wait(lambda: all(map(published, NODES)), "the nodes have their topology")


def a_job_runs_to_its_end(world: World) -> None:
    queue = {"apiVersion": names.API_VERSION, "kind": "DLQueue", "metadata": {"name": "research"}, "spec": {"gpus": 64}}
    world.cluster.api.create(world.path("dlqueues"), queue)
    world.submit("short", queue="research", template={"annotations": {names.RUN_SECONDS: "1"}})
    world.await_phase("short", "Succeeded")
    events = f"{world.path('events')}?fieldSelector=involvedObject.name=short"
    world.cluster.wait(lambda: world.cluster.api.get(events)["items"], "its Events are recorded")
    world.remove("dljobs", "short")
    world.remove("dlqueues", "research")  # other jobs name none


def a_job_is_removed_after_its_time(world: World) -> None:
    world.submit("brief", ttlSecondsAfterFinished=0, template={"annotations": {names.RUN_SECONDS: "1"}})
    world.cluster.wait(lambda: not world.cluster.exists(world.path("dljobs", "brief")), "brief is removed")


def a_gated_pod_is_ungated(world: World) -> None:
    def gated() -> bool:
        gates = world.cluster.api.create(world.path("pods"), bare_pod("gated"), dry_run=True)["spec"]
        return bool(gates.get("schedulingGates"))

    world.cluster.wait(gated, "the admission policy is in force")
    world.cluster.api.create(world.path("pods"), bare_pod("gated"))
    world.cluster.wait(lambda: phase(world, "gated") == "Running", "the gated pod runs")
    assert world.cluster.api.get(world.path("pods", "gated"))["metadata"]["annotations"][names.GPUS]
    world.remove("pods", "gated")


def a_bare_pod_is_requeued(world: World) -> None:
    before = rob(world, "robbed")

    def recreated() -> bool:
        return uid(world, "robbed") != before and not kept(world)

    world.cluster.wait(recreated, "the pod is created again, and its template deleted")
    world.remove("pods", "robbed")
    world.remove("pods", "robber")


def a_job_is_suspended_and_resumed(world: World) -> None:
    world.submit("long")
    world.await_phase("long", "Running")
    world.cluster.kubectl("annotate", "dljob", "long", f"{names.SUSPEND}=true", "-n", TEAM)
    world.await_phase("long", "Suspended")
    world.cluster.wait(lambda: not world.pods("long"), "its ended pods are removed")
    world.cluster.kubectl("annotate", "dljob", "long", f"{names.SUSPEND}=false", "--overwrite", "-n", TEAM)
    world.await_phase("long", "Running")
    before = attempt(world)
    world.cluster.kubectl("annotate", "pod", "long-worker-0", f"{names.MIGRATE}=", "-n", TEAM)
    world.cluster.wait(lambda: attempt(world) > before, "the gang moves")
    world.await_phase("long", "Running")
    world.remove("dljobs", "long")
    assert not world.cluster.exists(world.path("services", "long"))


def attempt(world: World) -> int:
    return int(world.job("long")["status"].get("attempt", 0))


def a_name_is_taken(world: World) -> None:
    service = {"metadata": {"name": "taken"}, "spec": {"clusterIP": "None"}}
    world.cluster.api.create(world.path("services"), service)
    world.submit("taken")
    world.cluster.wait(lambda: "is not this job's" in str(world.job("taken")), "the job reports the conflicting Service")
    world.remove("dljobs", "taken")
    world.remove("services", "taken")


def a_pod_is_woken(world: World) -> None:
    """The end of the gang's pods may also wake the pod; in one of several rounds the extender does so first."""
    assert any(was_woken(world) for _ in range(10))


def a_start_is_given_up(world: World) -> None:
    hang(world, "hangs")
    world.remove("dljobs", "hangs")


def was_woken(world: World) -> bool:
    refuse_and_make_room(world)
    world.cluster.wait(lambda: phase(world, "late") == "Running", "the rejected pod runs")
    woken = names.WAKE in world.cluster.api.get(world.path("pods", "late"))["metadata"].get("annotations", {})
    world.remove("pods", "late")
    return woken


def test_no_request_is_forbidden(record: Record) -> None:
    forbidden = [event for event in record.requests if event["responseStatus"]["code"] == 403]
    assert not [(event["user"]["username"], event["verb"], event["requestURI"]) for event in forbidden]
    assert not [name for name, log in record.logs.items() if "forbidden" in log.lower()]


@pytest.mark.parametrize("part", ["operator", "scheduler", "agent"])
def test_granted_rights_are_used(world: World, record: Record, part: str) -> None:
    given = rights(world.cluster, f"{RBAC}/clusterroles/{RELEASE}-{part}")
    assert given - used(record, part, by_kube_scheduler=False) == CHECKED_INTERNALLY & given


@pytest.mark.parametrize("part", ["operator", "scheduler"])
def test_leader_holds_its_lease(world: World, record: Record, part: str) -> None:
    given = rights(world.cluster, f"{RBAC}/namespaces/{NAMESPACE}/roles/{RELEASE}-{part}")
    assert given <= used(record, part, by_kube_scheduler=part == "scheduler")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{RELEASE}-{part}"
    assert world.cluster.api.get(lease)["spec"]["holderIdentity"]


def used(record: Record, part: str, *, by_kube_scheduler: bool) -> set[Right]:
    """Return the rights that a service account has used; the user agent distinguishes kube-scheduler from the extender."""
    of_account = [event for event in record.requests if event["user"]["username"] == ACCOUNT + part and "objectRef" in event]
    events = [event for event in of_account if ("kube-scheduler" in event["userAgent"]) == by_kube_scheduler]
    return {(event["objectRef"].get("apiGroup", ""), resource_of(event["objectRef"]), event["verb"]) for event in events}


def resource_of(reference: dict[str, str]) -> str:
    sub = reference.get("subresource")
    return f"{reference['resource']}/{sub}" if sub else reference["resource"]


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        ("pcie-8-0", ["annotate", "node", "pcie-8-0", f"{names.TOPOLOGY}={{}}"], "may not change node pcie-8-0"),
        ("dgx-a100-0", ["annotate", "node", "dgx-a100-0", "other=1"], "and nothing else"),
        ("dgx-a100-0", ["label", "node", "dgx-a100-0", f"{names.RACK}=elsewhere"], "and nothing else"),
        ("dgx-a100-0", ["taint", "node", "dgx-a100-0", "mine=true:NoSchedule"], "and nothing else"),
    ],
)
def test_agent_cannot_change_other_nodes_or_fields(world: World, node: str, change: list[str], message: str) -> None:
    config = world.parts.kubeconfig("agent", "dgx-a100-0")
    before = protected_fields(world, node)
    with pytest.raises(LocalError, match=message):
        world.cluster.kubectl(f"--kubeconfig={config}", *change, "--overwrite")
    assert protected_fields(world, node) == before


def protected_fields(world: World, node: str) -> tuple[Any, ...]:
    """Return the fields that a rejected change must not alter."""
    current = world.cluster.api.get(f"/api/v1/nodes/{node}")
    annotations = dict(current["metadata"].get("annotations", {}))
    return current["metadata"]["labels"], annotations, current["spec"]
