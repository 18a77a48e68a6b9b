"""The chart installed, with its parts running by its rights, and a user's namespace, as tests of the rights see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from builders.chart import NAMESPACE, RELEASE, Parts
from muster import machines
from muster.api import names
from muster_dev.local import nodes
from muster_dev.local.api import Api

if TYPE_CHECKING:
    from helm.conftest import AuditedCluster

TEAM = "team"
NODES = {"dgx-a100-0": "dgx-a100", "pcie-8-0": "pcie-8"}
PARTS = ("operator", "scheduler", "extender", "agent-0", "agent-1")
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
Right = tuple[str, str, str]
"""API group, resource (with subresource), verb."""


@dataclass(frozen=True)
class World:
    """The cluster, with the installed chart's parts running, and a user's namespace."""

    cluster: AuditedCluster
    parts: Parts

    @cached_property
    def operator(self) -> Api:
        """The API server as the operator's account writes to it, who alone may remove the gate."""
        return self.cluster.api_for(f"{ACCOUNT}operator", "system:masters")

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


def rights(cluster: AuditedCluster, role: str) -> set[Right]:
    """Return what a role gives, right by right."""
    rules = cluster.api.get(role)["rules"]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def rob(world: World, name: str) -> str:
    """Create a bare pod that is let go, and then finds a foreign pod on its GPUs; return its uid.

    kube-scheduler is stopped meanwhile, so that the foreign pod, which names its node, is there first.
    """
    world.parts.stop("scheduler")
    path = world.path("pods", name)
    world.cluster.api.create(world.path("pods"), bare_pod(name, 8))
    world.cluster.wait(lambda: names.GPUS in world.cluster.api.get(path)["metadata"].get("annotations", {}), "it is let go")
    required = world.cluster.api.get(path)["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    node = required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
    robber = template(8, schedulerName="default-scheduler", nodeName=node) | {"metadata": {"name": "robber"}}
    before = uid(world, name)
    world.cluster.api.create(world.path("pods"), robber)
    world.cluster.wait(lambda: phase(world, "robber") == "Running", "the foreign pod runs")
    world.parts.start_scheduler()
    return before


def hang(world: World, job: str) -> None:
    """Have a job given up that hangs on a node without kubelet: why, only Events could tell."""
    mute = nodes.node(machines.machine("pcie-8"), "mute", "rack", "block", kwok=False)
    world.cluster.api.create("/api/v1/nodes", mute)
    on_it = template(2, nodeSelector={"kubernetes.io/hostname": "mute"})
    spec = {"roles": {"worker": {"template": on_it}}, "startDeadlineSeconds": 3, "startRetries": 0}
    body = {"apiVersion": names.API_VERSION, "kind": "DLJob", "metadata": {"name": job}, "spec": spec}
    world.cluster.api.create(world.path("dljobs"), body)
    world.cluster.wait(lambda: "has not started within" in str(world.job(job).get("status")), f"{job} is given up")
    world.cluster.api.delete("/api/v1/nodes/mute")
    world.await_phase(job, "Suspended")


def uid(world: World, pod: str) -> str:
    return str(world.cluster.api.get(world.path("pods", pod))["metadata"]["uid"])


def kept(world: World) -> list[Any]:
    """Return the PodTemplates that keep bare pods."""
    found: list[Any] = world.cluster.api.get(world.path("podtemplates"))["items"]
    return found


def phase(world: World, pod: str) -> str:
    return str(world.cluster.api.get(world.path("pods", pod))["status"]["phase"])


def refuse_and_make_room(world: World) -> None:
    """Have the extender refuse the pod "late", for a reservation whose own pods have a gate; then take the reservation away."""
    world.submit("held", template={"gpus": 8, "schedulingGates": [{"name": "example.com/hold"}]})
    world.await_phase("held", "Admitted")
    world.cluster.api.create(world.path("pods"), bare_pod("late", 8))
    late = world.path("pods", "late")
    world.operator.patch(late, {"spec": {"schedulingGates": []}})
    world.cluster.wait(lambda: "held" in str(world.cluster.api.get(late)["status"]), "the extender refuses the pod")
    world.remove("dljobs", "held")
