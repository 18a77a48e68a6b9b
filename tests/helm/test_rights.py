"""Least rights: with what the chart gives everything works, and each right that it gives is used.

The chart is installed; operator, extender, kube-scheduler and agent run with its arguments and the tokens of its pods. What
they ask of the API server is read from its audit log. test_rights_missing has the reverse.
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

ASKED_WITHIN: set[Right] = {("muster.dev", "dljobs/finalizers", "update")}
"""An admission plugin asks whether one has this right: there is no request to see in the audit log."""


@dataclass(frozen=True)
class Record:
    """What was asked of the API server, and what was logged, while everything was done once."""

    requests: list[dict[str, Any]]
    logs: dict[str, str]


@pytest.fixture(scope="module")
def record(world: World) -> Record:
    """Do everything once, with the rights of the chart."""
    for scene in (
        topologies_are_published,
        a_job_runs_to_its_end,
        a_job_is_removed_after_its_time,
        a_gated_pod_is_let_go,
        a_bare_pod_is_queued_again,
        a_job_is_suspended_and_resumed,
        a_name_is_taken,
        a_pod_is_woken,
    ):
        scene(world)
    return Record(world.cluster.requests(), {name: world.parts.log(name) for name in PARTS})


def topologies_are_published(world: World) -> None:
    def shown(node: str) -> bool:
        annotations = world.cluster.api.get(f"/api/v1/nodes/{node}")["metadata"].get("annotations", {})
        return names.TOPOLOGY in annotations

    world.cluster.wait(lambda: all(map(shown, NODES)), "the nodes show their topology")


def a_job_runs_to_its_end(world: World) -> None:
    queue = {"apiVersion": names.API_VERSION, "kind": "DLQueue", "metadata": {"name": "research"}, "spec": {"gpus": 64}}
    world.cluster.api.create(world.path("dlqueues"), queue)
    world.submit("short", queue="research", template={"annotations": {names.RUN_SECONDS: "1"}})
    world.await_phase("short", "Succeeded")
    about = f"{world.path('events')}?fieldSelector=involvedObject.name=short"
    world.cluster.wait(lambda: world.cluster.api.get(about)["items"], "its events are recorded")
    world.remove("dljobs", "short")


def a_job_is_removed_after_its_time(world: World) -> None:
    world.submit("brief", ttlSecondsAfterFinished=0, template={"annotations": {names.RUN_SECONDS: "1"}})
    world.cluster.wait(lambda: not world.cluster.exists(world.path("dljobs", "brief")), "brief is removed")


def a_gated_pod_is_let_go(world: World) -> None:
    def held() -> bool:
        gates = world.cluster.api.create(world.path("pods"), bare_pod("gated"), dry_run=True)["spec"]
        return bool(gates.get("schedulingGates"))

    world.cluster.wait(held, "the admission policy is in force")
    world.cluster.api.create(world.path("pods"), bare_pod("gated"))
    world.cluster.wait(lambda: phase(world, "gated") == "Running", "the gated pod runs")
    assert world.cluster.api.get(world.path("pods", "gated"))["metadata"]["annotations"][names.GPUS]
    world.remove("pods", "gated")


def a_bare_pod_is_queued_again(world: World) -> None:
    before = rob(world, "robbed")
    robbed = world.path("pods", "robbed")

    def again() -> bool:
        return world.cluster.exists(robbed) and uid(world, "robbed") != before and not kept(world)

    world.cluster.wait(again, "the pod is created again, and its template deleted")
    world.remove("pods", "robbed")
    world.remove("pods", "robber")


def a_job_is_suspended_and_resumed(world: World) -> None:
    world.submit("long")
    world.await_phase("long", "Running")
    world.cluster.kubectl("annotate", "dljob", "long", f"{names.SUSPEND}=true", "-n", TEAM)
    world.await_phase("long", "Suspended")
    world.cluster.wait(lambda: not world.pods("long"), "the last of its pods, which had ended, are gone")
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
    world.cluster.wait(lambda: "is not this job's" in str(world.job("taken")), "the job says whose name it has")
    world.remove("dljobs", "taken")
    world.remove("services", "taken")


def a_pod_is_woken(world: World) -> None:
    """The pods of the gang that goes may wake the pod by their own going; in one of a few rounds the extender is first."""
    assert any(was_woken(world) for _ in range(10))


def was_woken(world: World) -> bool:
    refuse_and_make_room(world)
    world.cluster.wait(lambda: phase(world, "late") == "Running", "the pod that was refused runs")
    woken = names.WAKE in world.cluster.api.get(world.path("pods", "late"))["metadata"].get("annotations", {})
    world.remove("pods", "late")
    return woken


def test_nothing_is_refused(record: Record) -> None:
    refused = [each for each in record.requests if each["responseStatus"]["code"] == 403]
    assert not [(each["user"]["username"], each["verb"], each["requestURI"]) for each in refused]
    assert not [name for name, log in record.logs.items() if "forbidden" in log.lower()]


@pytest.mark.parametrize("part", ["operator", "scheduler", "agent"])
def test_each_right_is_used(world: World, record: Record, part: str) -> None:
    given = rights(world.cluster, f"{RBAC}/clusterroles/{RELEASE}-{part}")
    assert given - used(record, part, by_kube_scheduler=False) == ASKED_WITHIN & given


@pytest.mark.parametrize("part", ["operator", "scheduler"])
def test_who_decides_holds_a_lease_of_its_own(world: World, record: Record, part: str) -> None:
    given = rights(world.cluster, f"{RBAC}/namespaces/{NAMESPACE}/roles/{RELEASE}-{part}")
    assert given <= used(record, part, by_kube_scheduler=part == "scheduler")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{RELEASE}-{part}"
    assert world.cluster.api.get(lease)["spec"]["holderIdentity"]


def used(record: Record, part: str, *, by_kube_scheduler: bool) -> set[Right]:
    """Return the rights that a service account has made use of; its pod's kube-scheduler is told by its user agent."""
    events = [each for each in record.requests if each["user"]["username"] == ACCOUNT + part and "objectRef" in each]
    mine = [each for each in events if ("kube-scheduler" in each["userAgent"]) == by_kube_scheduler]
    return {(each["objectRef"].get("apiGroup", ""), resource_of(each["objectRef"]), each["verb"]) for each in mine}


def resource_of(reference: dict[str, str]) -> str:
    sub = reference.get("subresource")
    return f"{reference['resource']}/{sub}" if sub else reference["resource"]


@pytest.mark.parametrize(
    ("node", "change", "says"),
    [
        ("pcie-8-0", ["annotate", "node", "pcie-8-0", f"{names.TOPOLOGY}={{}}"], "may not change node pcie-8-0"),
        ("dgx-a100-0", ["annotate", "node", "dgx-a100-0", "other=1"], "and nothing else"),
        ("dgx-a100-0", ["label", "node", "dgx-a100-0", f"{names.RACK}=elsewhere"], "and nothing else"),
        ("dgx-a100-0", ["taint", "node", "dgx-a100-0", "mine=true:NoSchedule"], "and nothing else"),
    ],
)
def test_an_agent_changes_its_node_and_there_its_annotation_only(world: World, node: str, change: list[str], says: str) -> None:
    config = world.parts.kubeconfig("agent", "dgx-a100-0")
    before = owned_by_others(world, node)
    with pytest.raises(LocalError, match=says):
        world.cluster.kubectl(f"--kubeconfig={config}", *change, "--overwrite")
    assert owned_by_others(world, node) == before


def owned_by_others(world: World, node: str) -> tuple[Any, ...]:
    """Return what none of the refused changes may have touched."""
    found = world.cluster.api.get(f"/api/v1/nodes/{node}")
    annotations = dict(found["metadata"].get("annotations", {}))
    return found["metadata"]["labels"], annotations, found["spec"]
