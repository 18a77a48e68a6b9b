"""Least rights, proved both ways: with what the chart gives everything works, and each right that it gives is used.

The chart is installed; operator, extender, kube-scheduler and agent run with its arguments and the tokens of its pods. What
they ask of the API server is read from its audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from builders.chart import CHART, NAMESPACE, RELEASE, Helm, Parts
from muster.api import names
from muster.local.errors import LocalError

if TYPE_CHECKING:
    from helm.conftest import AuditedCluster

pytestmark = pytest.mark.cluster

TEAM = "team"
NODES = {"dgx-a100-0": "dgx-a100", "pcie-8-0": "pcie-8"}
PARTS = ("operator", "scheduler", "extender", "agent-0", "agent-1")
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
Right = tuple[str, str, str]
"""API group, resource (with subresource), verb."""
ASKED_WITHIN: set[Right] = {("muster.dev", "dljobs/finalizers", "update")}
"""An admission plugin asks whether one has this right: there is no request to see in the audit log."""


@dataclass(frozen=True)
class Record:
    """What was asked of the API server, and what was logged, while everything was done once."""

    requests: list[dict[str, Any]]
    logs: dict[str, str]


@dataclass(frozen=True)
class World:
    """The cluster, with the installed chart's parts running, and a user's namespace."""

    cluster: AuditedCluster
    parts: Parts

    def path(self, plural: str, name: str = "", namespace: str = TEAM) -> str:
        """Return the path of a DLJob, DLQueue, Service or pod, or of all."""
        root = f"/apis/{names.API_VERSION}" if plural.startswith("dl") else "/api/v1"
        return f"{root}/namespaces/{namespace}/{plural}{'/' if name else ''}{name}"

    def submit(self, name: str, **spec: Any) -> None:
        """Create a DLJob of two workers, by default with 2 GPUs each that run until they are stopped."""
        worker = {"replicas": spec.pop("replicas", 2), "template": template(**spec.pop("template", {}))}
        job = {"apiVersion": names.API_VERSION, "kind": "DLJob", "metadata": {"name": name}}
        self.cluster.api.create(self.path("dljobs"), job | {"spec": {"roles": {"worker": worker}, **spec}})

    def job(self, name: str) -> Any:
        """Return a DLJob."""
        return self.cluster.api.get(self.path("dljobs", name))

    def await_phase(self, name: str, phase: str) -> None:
        """Wait until a DLJob is in this phase."""
        self.cluster.wait(lambda: self.job(name).get("status", {}).get("phase") == phase, f"{name} is {phase}")

    def pods(self, job: str) -> list[Any]:
        """Return the pods of a DLJob."""
        found: list[Any] = self.cluster.api.get(f"{self.path('pods')}?labelSelector={names.JOB}={job}")["items"]
        return found

    def remove(self, plural: str, name: str) -> None:
        """Delete an object, and wait until it and, of a DLJob, its pods are gone."""
        self.cluster.api.delete(self.path(plural, name))
        self.cluster.wait(lambda: not self.cluster.exists(self.path(plural, name)), f"{name} is gone")
        if plural == "dljobs":
            self.cluster.wait(lambda: not self.pods(name), f"the pods of {name} are gone")


def template(gpus: int = 2, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """Return the template of a pod that asks for GPUs."""
    container = {"name": "train", "image": "train", "resources": {"limits": {names.GPU: gpus}}}
    return {"metadata": {"annotations": annotations or {}}, "spec": {"containers": [container], **spec}}


def bare_pod(name: str, gpus: int = 1, **metadata: Any) -> dict[str, Any]:
    """Return a pod that names muster's scheduler and is no DLJob's."""
    preferred = {"weight": 1, "preference": {"matchExpressions": [{"key": names.RACK, "operator": "Exists"}]}}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}
    pod = template(gpus, schedulerName=names.SCHEDULER, affinity=affinity)
    return pod | {"metadata": {"name": name, **metadata}}


@pytest.fixture(scope="module")
def world(audited: AuditedCluster, cluster_helm: Helm) -> Iterator[World]:
    """The chart installed, its parts running with its rights; uninstalled in the end."""
    options = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s")
    cluster_helm("install", RELEASE, CHART, *options)
    audited.create_namespace(TEAM)
    parts = Parts(audited)
    parts.start_scheduler(parts.start_extender())
    parts.start_operator()
    for number, (node, machine) in enumerate(NODES.items()):
        parts.start_agent(node, machine, f"agent-{number}")
    yield World(audited, parts)
    for name in PARTS:
        audited.processes.stop(name)
    cluster_helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s")
    audited.api.delete(f"/api/v1/namespaces/{TEAM}")


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
        gates = world.cluster.api.request("POST", f"{world.path('pods')}?dryRun=All", bare_pod("gated"))["spec"]
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


def rob(world: World, name: str) -> str:
    """Create a bare pod that is let go, and then finds a foreign pod on its GPUs; return its uid."""
    pod = bare_pod(name, 8)
    pod["spec"]["schedulingGates"] = [{"name": "example.com/hold"}]
    world.cluster.api.create(world.path("pods"), pod)
    path = world.path("pods", name)
    world.cluster.wait(lambda: names.GPUS in world.cluster.api.get(path)["metadata"].get("annotations", {}), "it is let go")
    required = world.cluster.api.get(path)["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    node = required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
    robber = template(8, schedulerName="default-scheduler", nodeName=node) | {"metadata": {"name": "robber"}}
    world.cluster.api.create(world.path("pods"), robber)
    world.cluster.wait(lambda: phase(world, "robber") == "Running", "the foreign pod runs")
    world.cluster.api.patch(path, {"spec": {"schedulingGates": []}})
    return uid(world, name)


def uid(world: World, pod: str) -> str:
    return str(world.cluster.api.get(world.path("pods", pod))["metadata"]["uid"])


def kept(world: World) -> list[Any]:
    """Return the PodTemplates that keep bare pods."""
    found: list[Any] = world.cluster.api.get(world.path("podtemplates"))["items"]
    return found


def phase(world: World, pod: str) -> str:
    return str(world.cluster.api.get(world.path("pods", pod))["status"]["phase"])


def a_job_is_suspended_and_resumed(world: World) -> None:
    world.submit("long")
    world.await_phase("long", "Running")
    world.cluster.kubectl("annotate", "dljob", "long", f"{names.SUSPEND}=true", "-n", TEAM)
    world.await_phase("long", "Suspended")
    assert not world.pods("long")
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
    """A reservation that lasts: its pods have a gate of their own. A pod that lost its gate finds all GPUs promised."""
    world.submit("held", template={"gpus": 8, "schedulingGates": [{"name": "example.com/hold"}]})
    world.await_phase("held", "Admitted")
    world.cluster.api.create(world.path("pods"), bare_pod("late", 8))
    late = world.path("pods", "late")
    world.cluster.api.patch(late, {"spec": {"schedulingGates": []}})
    world.cluster.wait(lambda: "held" in str(world.cluster.api.get(late)["status"]), "the extender refuses the pod")
    world.remove("dljobs", "held")
    world.cluster.wait(lambda: phase(world, "late") == "Running", "the pod that was refused runs")
    woken = names.WAKE in world.cluster.api.get(late)["metadata"].get("annotations", {})
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


def test_kube_scheduler_holds_a_lease_of_its_own(world: World, record: Record) -> None:
    given = rights(world.cluster, f"{RBAC}/namespaces/{NAMESPACE}/roles/{RELEASE}-scheduler")
    assert given <= used(record, "scheduler", by_kube_scheduler=True)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{RELEASE}-scheduler"
    assert world.cluster.api.get(lease)["spec"]["holderIdentity"]


def rights(cluster: AuditedCluster, role: str) -> set[Right]:
    """Return what a role gives, right by right."""
    rules = cluster.api.get(role)["rules"]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def used(record: Record, part: str, *, by_kube_scheduler: bool) -> set[Right]:
    """Return the rights that a service account has made use of; its pod's kube-scheduler is told by its user agent."""
    events = [each for each in record.requests if each["user"]["username"] == ACCOUNT + part and "objectRef" in each]
    mine = [each for each in events if ("kube-scheduler" in each["userAgent"]) == by_kube_scheduler]
    return {(each["objectRef"].get("apiGroup", ""), resource_of(each["objectRef"]), each["verb"]) for each in mine}


def resource_of(reference: dict[str, str]) -> str:
    sub = reference.get("subresource")
    return f"{reference['resource']}/{sub}" if sub else reference["resource"]


# The reverse: what is seen when one right is taken away


def seen_in_job(world: World) -> str:
    """Submit a job and return what it comes to say about itself."""
    world.submit("poor")
    world.cluster.wait(lambda: "cannot" in str(world.job("poor").get("status")), "the job says what is not allowed")
    return str(world.job("poor")["status"])


def seen_in_log(world: World, name: str, words: str) -> str:
    """Wait until a part has said these words; return what it has said."""
    world.cluster.wait(lambda: words in world.parts.log(name), f"{name} says {words}")
    return world.parts.log(name)


def reserving(world: World) -> str:
    world.submit("poor")
    said = seen_in_log(world, "operator", 'cannot patch resource "dljobs/status"')
    assert not world.pods("poor")
    return said


def recording_an_event(world: World) -> str:
    world.submit("poor", rendezvous="None")
    return seen_in_log(world, "operator", 'cannot create resource "events"')


def letting_go(world: World) -> str:
    world.cluster.api.create(world.path("pods"), bare_pod("gated"))
    said = seen_in_log(world, "operator", 'cannot patch resource "pods"')
    assert world.cluster.api.get(world.path("pods", "gated"))["spec"]["schedulingGates"]
    return said


def keeping_a_pod(world: World) -> str:
    before = rob(world, "gated")
    said = seen_in_log(world, "operator", 'cannot create resource "podtemplates"')
    assert uid(world, "gated") == before, "what could not be written down was not deleted"
    world.remove("pods", "gated")
    world.remove("pods", "robber")
    return said


def stopping(world: World) -> str:
    world.submit("poor")
    world.await_phase("poor", "Running")
    world.cluster.kubectl("annotate", "dljob", "poor", f"{names.SUSPEND}=true", "-n", TEAM)
    said = seen_in_log(world, "operator", 'cannot delete resource "pods"')
    assert world.pods("poor")
    return said


def watching_jobs(world: World) -> str:
    world.parts.start_extender("poor-extender", wait=False)
    try:
        return seen_in_log(world, "poor-extender", 'cannot list resource "dljobs"')
    finally:
        world.cluster.processes.stop("poor-extender")


def publishing(world: World) -> str:
    node = "dgx-a100-0"
    world.cluster.kubectl("annotate", "node", node, f"{names.TOPOLOGY}-")
    world.parts.start_agent(node, NODES[node], "poor-agent")
    try:
        return seen_in_log(world, "poor-agent", 'cannot patch resource "nodes"')
    finally:
        world.cluster.processes.stop("poor-agent")


@pytest.mark.parametrize(
    ("part", "right", "provoke"),
    [
        ("operator", ("", "pods", "create"), seen_in_job),
        ("operator", ("", "pods", "patch"), letting_go),
        ("operator", ("", "pods", "delete"), stopping),
        ("operator", ("", "services", "create"), seen_in_job),
        ("operator", ("", "podtemplates", "create"), keeping_a_pod),
        ("operator", ("", "events", "create"), recording_an_event),
        ("operator", ("muster.dev", "dljobs/status", "patch"), reserving),
        ("operator", ("muster.dev", "dljobs/finalizers", "update"), seen_in_job),
        ("scheduler", ("muster.dev", "dljobs", "list"), watching_jobs),
        ("agent", ("", "nodes", "patch"), publishing),
    ],
)
def test_without_a_right_one_sees_what_is_missing(
    world: World,
    record: Record,  # before: it is of everything allowed
    part: str,
    right: Right,
    provoke: Callable[[World], str],
) -> None:
    assert record.requests
    path = f"{RBAC}/clusterroles/{RELEASE}-{part}"
    rules = world.cluster.api.get(path)["rules"]
    set_rules(world, part, right, [without(rule, right) for rule in rules], allowed=False)
    try:
        said = provoke(world)
    finally:
        set_rules(world, part, right, rules, allowed=True)
    if right in ASKED_WITHIN:
        assert "cannot set blockOwnerDeletion" in said
    else:
        assert f'cannot {right[2]} resource "{right[1]}" in API group "{right[0]}"' in said
    for plural, name in (("dljobs", "poor"), ("pods", "gated")):
        if world.cluster.exists(world.path(plural, name)):
            world.remove(plural, name)


def without(rule: dict[str, Any], right: Right) -> dict[str, Any]:
    """Return a rule without a right; the rules of the chart name one resource each."""
    group, resource, verb = right
    if group not in rule["apiGroups"] or resource not in rule["resources"]:
        return rule
    verbs = [each for each in rule["verbs"] if each != verb]
    return {**rule, "verbs": verbs or ["none"]}  # a rule must have one


def set_rules(world: World, part: str, right: Right, rules: list[dict[str, Any]], *, allowed: bool) -> None:
    """Change a role, and wait until the API server goes by it."""
    world.cluster.api.patch(f"{RBAC}/clusterroles/{RELEASE}-{part}", {"rules": rules})
    group, resource, verb = right
    resource, _, sub = resource.partition("/")
    attributes = {"group": group, "resource": resource, "subresource": sub, "verb": verb, "namespace": TEAM}
    review = {"spec": {"user": ACCOUNT + part, "resourceAttributes": attributes}}

    def answer() -> bool:
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", **review}
        answered = world.cluster.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        return bool(answered["status"]["allowed"])

    world.cluster.wait(lambda: answer() is allowed, f"the role {part} is in force")


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
