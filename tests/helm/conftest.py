"""A cluster for the chart with an audit log of muster's service accounts, and helm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.chart import CHART, NAMESPACE, RELEASE, Helm, Parts
from builders.installed import NODES, PARTS, TEAM, World
from muster_dev.local.cluster import LocalCluster, Options

AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": [f"system:serviceaccounts:{NAMESPACE}"]}, {"level": "None"}],
}


class AuditedCluster(LocalCluster):
    """A local cluster with an audit log and OpenShift's admission plugin for owner references."""

    def __init__(self, home: Path) -> None:
        self.audit_log = home / "audit.log"
        policy = home / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        arguments = (
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        )
        super().__init__(nodes="dgx-a100:1,pcie-8:1", options=Options(apiserver_args=arguments))

    def requests(self) -> list[dict[str, Any]]:
        """Return the audit events of the service accounts in muster's namespace."""
        lines = self.audit_log.read_text().splitlines() if self.audit_log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditedCluster]:
    """The cluster for the chart: one DGX A100 and one machine with 8 GPUs on PCIe."""
    with AuditedCluster(tmp_path_factory.mktemp("audit")) as running:
        yield running


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster."""
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def cluster_helm(audited: AuditedCluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm with administrator rights on the cluster."""
    return Helm(tmp_path_factory.mktemp("helm"), audited.kubeconfig)


@pytest.fixture(scope="module")
def world(audited: AuditedCluster, cluster_helm: Helm) -> Iterator[World]:
    """The installed chart with its programs running under its rights; uninstalled at the end."""
    options = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s")
    cluster_helm("install", RELEASE, CHART, *options)
    audited.create_namespace(TEAM)
    parts = Parts(audited)
    parts.start_extender()
    parts.start_scheduler()
    parts.start_operator()
    for number, (node, machine) in enumerate(NODES.items()):
        parts.start_agent(node, machine, f"agent-{number}")
    yield World(audited, parts)
    for name in PARTS:
        audited.processes.stop(name)
    cluster_helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s")
    audited.api.delete(f"/api/v1/namespaces/{TEAM}")
    audited.wait(lambda: not audited.exists(f"/api/v1/namespaces/{TEAM}"), "the namespace is gone")
