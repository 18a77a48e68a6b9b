"""The gate on older API servers: without MutatingAdmissionPolicy, and with its beta."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.chart import CHART, NAMESPACE, RELEASE, Helm, HelmFailed, Parts
from builders.installed import bare_pod
from builders.live import Live
from muster.api import names
from muster_dev.local.cluster import LocalCluster, Options

pytestmark = pytest.mark.cluster

GROUP = "admissionregistration.k8s.io"
INSTALL = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s")
POLICIES = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings")


@pytest.fixture
def old() -> Iterator[LocalCluster]:
    """A cluster whose API server has no MutatingAdmissionPolicy."""
    options = Options(
        apiserver_args=("--disable-admission-plugins=MutatingAdmissionPolicy",),
        runtime_config={f"{GROUP}/v1/{kind}": False for kind in POLICIES},
    )
    with LocalCluster(nodes="pcie-8:1", options=options) as running:
        yield running


def test_install_without_the_policy_has_no_gate(old: LocalCluster, tmp_path: Path) -> None:
    helm = Helm(tmp_path, old.kubeconfig)
    with pytest.raises(HelmFailed, match=r"has no MutatingAdmissionPolicy.*set gate.enabled=auto or false"):
        helm("install", RELEASE, CHART, *INSTALL, "--set", "gate.enabled=true")
    assert "are placed one by one, not as gangs: this Kubernetes" in helm("install", RELEASE, CHART, *INSTALL)
    parts = Parts(old)
    parts.start_extender()
    parts.start_scheduler()
    parts.start_operator()
    live = Live(old, "team")
    old.create_namespace(live.namespace)

    live.job("job", 2, 1)
    live.wait_running("job", 2)
    live.create("pods", bare_pod("free"))
    gated = bare_pod("gated")
    live.create("pods", gated | {"spec": gated["spec"] | {"schedulingGates": [{"name": names.GATE}]}})
    for pod, planned in (("free", False), ("gated", True)):
        live.wait(lambda pod=pod: live.get("pods", pod)["status"]["phase"] == "Running", f"{pod} runs")  # type: ignore[misc]
        assert (names.GPUS in live.get("pods", pod)["metadata"].get("annotations", {})) is planned


def test_beta_of_the_policy_gates_pods(helm: Helm) -> None:
    beta = ("--api-versions", f"{GROUP}/v1beta1/MutatingAdmissionPolicy")
    gate = [item for item in helm.template(*beta, version="v1.35.2") if item["apiVersion"] == f"{GROUP}/v1beta1"]
    with LocalCluster(nodes="pcie-8:1", options=Options(runtime_config={f"{GROUP}/v1beta1": True})) as cluster:
        cluster.apply(gate)
        cluster.create_namespace("team")
        pods = "/api/v1/namespaces/team/pods"
        gates = [{"name": names.GATE}]
        cluster.wait(
            lambda: cluster.api.create(pods, bare_pod("asks"), dry_run=True)["spec"].get("schedulingGates") == gates,
            "it is gated",
        )
        unrelated = bare_pod("unrelated")
        unrelated["spec"]["schedulerName"] = "default-scheduler"
        assert "schedulingGates" not in cluster.api.create(pods, unrelated, dry_run=True)["spec"]
