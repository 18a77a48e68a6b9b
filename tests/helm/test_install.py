"""The chart on a real cluster: validation, installation, upgrade, and complete removal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from builders.chart import CHART, NAMESPACE, RELEASE, Helm, HelmFailed, containers, find
from muster.api import crd
from muster.kube.errors import Forbidden
from muster_dev.local import stack
from muster_dev.local.errors import LocalError
from muster_dev.local.waiting import WaitTimeout

if TYPE_CHECKING:
    from helm.conftest import AuditedCluster

pytestmark = pytest.mark.cluster

INSTALL = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s")
# Kinds that change without helm; kube-scheduler creates its lease itself.
VOLATILE = {"events", "events.events.k8s.io", "leases.coordination.k8s.io", "endpointslices.discovery.k8s.io", "endpoints"}
DEFINITIONS = {
    "apiservice.apiregistration.k8s.io/v1alpha1.muster.dev",
    "customresourcedefinition.apiextensions.k8s.io/dljobs.muster.dev",
    "customresourcedefinition.apiextensions.k8s.io/dlqueues.muster.dev",
}


@pytest.fixture
def namespace(audited: AuditedCluster) -> str:
    """The namespace of muster, kept for other tests."""
    if not audited.exists(f"/api/v1/namespaces/{NAMESPACE}"):
        audited.create_namespace(NAMESPACE)
    return NAMESPACE


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["--set", "gate.enabled=false,userRoles.enabled=false,agent.enabled=false,runAsUser=null"],
        ["--set", "agent.hostSys=false,agent.runtimeClassName=nvidia,imagePullSecrets[0].name=regcred"],
        ["--set-json", 'operator.tolerations=[{"key":"infra","operator":"Exists","effect":"NoSchedule"}]'],
        ["--set-json", 'scheduler.nodeSelector={"infra":"yes"}', "--set", "metrics.annotations=null"],
        ["--set", "fakeGpus.enabled=true,metrics.dashboard.enabled=true"],
        ["--set-json", 'networkPolicy={"apiServer":[{"cidr":"10.0.0.1/32","port":6443}],"metricsFrom":[{"podSelector":{}}]}'],
    ],
)
def test_api_server_accepts_every_object_and_field(
    audited: AuditedCluster, helm: Helm, namespace: str, settings: list[str]
) -> None:
    objects = helm.template("--namespace", namespace, *settings)
    find(objects, "Pod", "muster-test")["spec"]["serviceAccountName"] = "default"  # its own account does not exist in a dry run
    accepted = dry_run(audited, objects)
    assert accepted.count("serverside-applied (server dry run)") == len(objects) > 10


def test_dry_run_detects_an_unknown_field(audited: AuditedCluster, helm: Helm, namespace: str) -> None:
    (deployment, *_) = (item for item in helm.template("--namespace", namespace) if item["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(LocalError, match="livenessProb"):
        dry_run(audited, [deployment])


def dry_run(cluster: AuditedCluster, objects: list[dict[str, Any]]) -> str:
    options = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts")
    return cluster.kubectl("apply", *options, "-f", "-", stdin=yaml.safe_dump_all(objects))


@pytest.mark.parametrize(
    ("workload", "settings", "violations"),
    [
        ("muster-operator", "", set()),
        ("muster-scheduler", "", set()),
        ("muster-agent", "agent.hostSys=false", set()),
        ("muster-agent", "fakeGpus.enabled=true", set()),
        ("muster-agent", "", {"hostPath"}),
        ("muster-fake-gpus", "fakeGpus.enabled=true", {"hostPath", "runAsUser"}),
        ("muster-test", "", set()),
    ],
)
def test_pod_security_violations_of_a_workload(
    audited: AuditedCluster, helm: Helm, workload: str, settings: str, violations: set[str]
) -> None:
    objects = helm.template("--set", settings) if settings else helm.template()
    (template,) = (pod_of(item) for item in objects if is_workload(item, workload))
    path = restricted_namespace(audited)
    pod = {"metadata": {"generateName": "x-", "labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    pod["spec"]["serviceAccountName"] = "default"
    rules = {"hostPath", "runAsNonRoot", "runAsUser", "allowPrivilegeEscalation", "capabilities", "seccompProfile"}
    message = ""
    try:
        audited.api.create(f"{path}/pods", pod, dry_run=True)
    except Forbidden as refusal:
        message = refusal.message
    assert bool(message) == bool(violations), message
    assert {rule for rule in rules if rule in message} - {"runAsNonRoot"} == violations, message


def is_workload(item: dict[str, Any], name: str) -> bool:
    return item["kind"] in ("Deployment", "DaemonSet", "Pod") and item["metadata"]["name"] == name


def pod_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return the pod template of a workload, or the pod itself."""
    pod: dict[str, Any] = item if item["kind"] == "Pod" else item["spec"]["template"]
    return pod


def restricted_namespace(cluster: AuditedCluster) -> str:
    path = "/api/v1/namespaces/restricted"
    if not cluster.exists(path):
        cluster.create_namespace("restricted")
        cluster.api.patch(path, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    return path


def test_install_upgrade_rollback_and_uninstall(audited: AuditedCluster, cluster_helm: Helm, namespace: str) -> None:
    before = inventory(audited)
    notes = cluster_helm("install", RELEASE, CHART, *INSTALL)
    assert f"installed in namespace {namespace}" in notes
    assert running(audited) == {"operator": 2, "scheduler": 1, "agent": 2}

    changed = ("--set", "operator.preemption=false,agent.enabled=false,gate.enabled=false", "--set", "image.tag=next")
    notes = cluster_helm("upgrade", RELEASE, CHART, *INSTALL, *changed)
    assert "gate.enabled is false" in notes
    deployment = audited.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/muster-operator")
    assert "--no-preemption" in containers(deployment)["operator"]["args"]
    assert containers(deployment)["operator"]["image"] == "muster-operator:next"
    audited.wait(
        lambda: running(audited) == {"operator": 2, "scheduler": 1}, "the agents are removed and the other pods replaced"
    )
    assert not {name for name in inventory(audited) if "gang-gate" in name}

    cluster_helm("rollback", RELEASE, "1", "--namespace", namespace, "--wait", "--timeout", "120s")
    assert any("gang-gate" in name for name in inventory(audited))

    cluster_helm("uninstall", RELEASE, "--namespace", namespace, "--wait", "--timeout", "120s")
    with suppress(WaitTimeout):  # the assertion below shows what is left
        audited.wait(lambda: inventory(audited) - before == DEFINITIONS, "only the definitions are left")
    assert inventory(audited) - before == DEFINITIONS
    assert before <= inventory(audited)


def pods(cluster: AuditedCluster) -> list[dict[str, Any]]:
    """Return the pods of the release."""
    selector = f"labelSelector=app.kubernetes.io/instance={RELEASE}"
    items: list[dict[str, Any]] = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}")["items"]
    return items


def running(cluster: AuditedCluster) -> dict[str, int]:
    """Return the number of running pods of the release by component."""
    counts: dict[str, int] = {}
    for pod in pods(cluster):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        if pod["status"]["phase"] == "Running":
            counts[component] = counts.get(component, 0) + 1
    return counts


def inventory(cluster: AuditedCluster) -> set[str]:
    """Return the names of all objects in the cluster, except volatile kinds."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--output=name").split()
    stable_kinds = ",".join(sorted(set(kinds) - VOLATILE))
    lines = cluster.kubectl("get", stable_kinds, "--all-namespaces", "--ignore-not-found", "--output=name").split()
    return set(lines)


def test_edit_role_covers_jobs_but_neither_status_nor_queues(
    audited: AuditedCluster, cluster_helm: Helm, namespace: str
) -> None:
    cluster_helm("install", RELEASE, CHART, *INSTALL)
    try:
        audited.kubectl("create", "rolebinding", "dev", "--clusterrole=edit", "--user=dev", "-n", namespace)

        def may(verb: str, resource: str) -> bool:
            reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            review = audited.api.create(reviews, access_review("dev", verb, resource))
            return bool(review["status"]["allowed"])

        audited.wait(lambda: may("create", "dljobs"), "the roles are aggregated")
        assert may("get", "dlqueues")
        assert not may("patch", "dljobs/status")
        assert not may("create", "dlqueues")
    finally:
        cluster_helm("uninstall", RELEASE, "--namespace", namespace, "--wait")


def access_review(user: str, verb: str, resource: str) -> dict[str, Any]:
    resource, _, sub = resource.partition("/")
    attributes = {"namespace": NAMESPACE, "verb": verb, "group": "muster.dev", "resource": resource, "subresource": sub}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }


@pytest.fixture
def other(audited: AuditedCluster) -> Iterator[str]:
    """Another namespace without a release."""
    audited.create_namespace("other")
    yield "other"
    audited.api.delete("/api/v1/namespaces/other")
    audited.wait(lambda: not audited.exists("/api/v1/namespaces/other"), "the namespace is deleted")


def test_second_release_is_rejected(cluster_helm: Helm, namespace: str, other: str) -> None:
    cluster_helm("install", RELEASE, CHART, *INSTALL)
    try:
        for name in (RELEASE, "second"):
            with pytest.raises(HelmFailed, match=f"in this cluster already, as release {RELEASE} in namespace {namespace}"):
                cluster_helm("install", name, CHART, "--namespace", other, "--set", "gate.enabled=false,crds.enabled=false")
        cluster_helm("upgrade", RELEASE, CHART, *INSTALL)
    finally:
        cluster_helm("uninstall", RELEASE, "--namespace", namespace, "--wait")


def test_definitions_of_another_release_can_be_handed_over(
    audited: AuditedCluster, cluster_helm: Helm, namespace: str, other: str
) -> None:
    """Definitions outlive their release; the error of another release contains working commands."""
    cluster_helm("install", RELEASE, CHART, *INSTALL)
    cluster_helm("uninstall", RELEASE, "--namespace", namespace, "--wait")
    with pytest.raises(HelmFailed) as failure:
        cluster_helm("install", "second", CHART, "--namespace", other, "--wait")
    remedy = str(failure.value).partition("hand it over (")[2].partition(")")[0]
    for command in remedy.split(" && "):
        audited.kubectl(*command.split()[1:])
    cluster_helm("install", "second", CHART, "--namespace", other, "--wait", "--timeout", "120s")
    cluster_helm("uninstall", "second", "--namespace", other, "--wait")
    remove_definitions(audited)


def test_manually_installed_definitions_are_unchanged(audited: AuditedCluster, cluster_helm: Helm, namespace: str) -> None:
    """crds.enabled=false: manually installed definitions are not changed."""
    stack.define_resources(audited)
    cluster_helm("install", RELEASE, CHART, *INSTALL, "--set", "crds.enabled=false")
    try:
        definition = audited.api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/dljobs.muster.dev")
        assert "helm.sh/resource-policy" not in definition["metadata"].get("annotations", {})
    finally:
        cluster_helm("uninstall", RELEASE, "--namespace", namespace, "--wait")
        remove_definitions(audited)


def test_install_fails_while_definitions_are_being_deleted(audited: AuditedCluster, cluster_helm: Helm) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/dljobs.muster.dev"
    stack.define_resources(audited)
    audited.api.patch(path, {"metadata": {"finalizers": ["test.muster.dev/held"]}})
    try:
        audited.api.delete(path)
        with pytest.raises(HelmFailed, match=r"definition dljobs\.muster\.dev is being deleted, .* --for=delete crd/dljobs"):
            cluster_helm("install", RELEASE, CHART, *INSTALL)
    finally:
        audited.api.patch(path, {"metadata": {"finalizers": []}})
        audited.wait(partial(_is_gone, audited, path), "the definition is gone")
        remove_definitions(audited)


def remove_definitions(cluster: AuditedCluster) -> None:
    """Remove muster's definitions and wait, since the API server takes some seconds."""
    for definition in crd.manifests():
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}"
        if cluster.exists(path):
            cluster.api.delete(path)
        cluster.wait(partial(_is_gone, cluster, path), f"{definition['metadata']['name']} is gone")


def _is_gone(cluster: AuditedCluster, path: str) -> bool:
    return not cluster.exists(path)
