"""Rendering of the chart by the real helm: validation of values, effects of settings, generated files."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders.chart import CHART, NAMESPACE, Helm, HelmFailed, containers, find
from muster_dev.local.chart import EXTENDER_PORT

pytestmark = pytest.mark.cluster

VALUES = CHART / "values.yaml"
CRDS = CHART.parents[1] / "crds"
FREE_FORM = ("resources", "annotations", "nodeSelector", "labels")


def test_lint_passes(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


@pytest.mark.parametrize(
    ("setting", "field", "message"),
    [
        ("operator.preemption=maybe", "/operator/preemption", "want boolean"),
        ("gate.enabeld=true", "/gate", "'enabeld' not allowed"),
        ("gate.enabled=perhaps", "/gate/enabled", "'auto', true, false"),
        ("crds.enabled=keep", "/crds/enabled", "want boolean"),
        ("fakeGpus=true", "/fakeGpus", "want object"),
        ("operator.replicas=0", "/operator/replicas", "got 0, want 1"),
        ("operator.replicas=two", "/operator/replicas", "want integer"),
        ("metrics.serviceMonitor.interval=often", "/metrics/serviceMonitor/interval", "does not match"),
        ("metrics.dashboard.labels.a=1,metrics.dashboard.enabled=yes", "/metrics/dashboard/enabled", "want boolean"),
        ("networkPolicy.apiServer[0].cidr=10.0.0.1", "/networkPolicy/apiServer/0", "missing property 'port'"),
        ("networkPolicy.apiServer[0].port=70000", "/networkPolicy/apiServer/0/port", "got 70,000, want 65,535"),
        ("networkPolicy.metricsFrom[0].namespace=x", "/networkPolicy/metricsFrom/0", "'namespace' not allowed"),
        ("operator.nodeLossGraceSeconds=-1", "/operator/nodeLossGraceSeconds", "got -1, want 0"),
        ("operator.nodeLossGraceSeconds=1m", "/operator/nodeLossGraceSeconds", "want number"),
        ("operatr.logLevel=INFO", "''", "'operatr' not allowed"),
        ("operator.logLevel=info", "/operator/logLevel", "'DEBUG', 'INFO'"),
        ("scheduler.policy=packed", "/scheduler/policy", "'pack', 'spread'"),
        ("scheduler.extenderService.clusterIP=extender", "/scheduler/extenderService/clusterIP", "does not match"),
        ("scheduler.extenderService.from[0].cidr=x", "/scheduler/extenderService/from/0", "'cidr' not allowed"),
        ("agent.interval=0", "/agent/interval", "got 0, want 1"),
        ("agent.interval=often", "/agent/interval", "want integer"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy", "'Always'"),
        ("image.repository=", "/image/repository", "does not match"),
        ("image.tag=a tag", "/image/tag", "does not match"),
        ("image=null", "''", "missing property 'image'"),
        ("runAsUser=0", "/runAsUser", "got 0, want 1"),
        ("operator.resources.limits.memory=lots", "/operator/resources/limits/memory", "does not match"),
        ("scheduler.kubeScheduler.resources.limit.cpu=1", "/scheduler/kubeScheduler/resources", "'limit' not allowed"),
        ("agent.tolerations[0].operator=Is", "/agent/tolerations/0/operator", "'Exists'"),
        ("imagePullSecrets[0]=regcred", "/imagePullSecrets/0", "want object"),
    ],
)
def test_invalid_value_is_rejected_with_its_path(helm: Helm, setting: str, field: str, message: str) -> None:
    with pytest.raises(HelmFailed) as failure:
        helm.template("--set", setting)
    (line,) = {line for line in str(failure.value).splitlines() if f"at '{field.strip(chr(39))}'" in line and message in line}
    assert line.startswith("- at ")


def test_schema_has_exactly_the_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    del schema["properties"]["global"]
    assert _names(schema) == _values(yaml.safe_load(VALUES.read_text()))


def test_value_has_a_comment() -> None:
    lines = VALUES.read_text().splitlines()
    leaves = {name.rpartition(".")[2] for name in _values(yaml.safe_load(VALUES.read_text()))}
    uncommented = [
        line
        for previous, line in zip(["", *lines], lines, strict=False)
        if line.strip().partition(":")[0] in leaves
        and not line.lstrip().startswith("#")
        and not previous.lstrip().startswith("#")
    ]
    assert not uncommented


@pytest.mark.parametrize("path", sorted((CHART / "templates").glob("*rbac.yaml")), ids=lambda path: path.name)
def test_rbac_rule_has_a_comment(path: Path) -> None:
    lines = path.read_text().splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("- {apiGroups:")]
    assert rules
    for number in rules:
        comment = next(line for line in reversed(lines[:number]) if not line.startswith("- {apiGroups: [coordination"))
        assert comment.startswith("# "), f"{path.name}:{number + 1} has no comment"


def _values(tree: dict[str, Any], path: str = "") -> set[str]:
    paths: set[str] = set()
    for key, value in tree.items():
        inner = isinstance(value, dict) and key not in FREE_FORM
        paths |= _values(value, f"{path}{key}.") if inner else {path + key}
    return paths


def _names(schema: dict[str, Any], path: str = "") -> set[str]:
    paths: set[str] = set()
    for key, value in schema["properties"].items():
        paths |= _names(value, f"{path}{key}.") if "properties" in value else {path + key}
    return paths


@pytest.mark.parametrize(
    ("module", "files"),
    [
        ("muster_dev.local.chart", ["scheduler-config.yaml"]),
        ("muster.api.gate_policy", ["admission-policy.yaml"]),
        ("muster.api.write_policies", ["pod-policies.yaml", "node-policy.yaml"]),
    ],
)
def test_generated_files_are_up_to_date(module: str, files: list[str], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-P", "-m", module, *(tmp_path / file for file in files)], check=True)
    for file in files:
        assert (CHART / "files" / file).read_text() == (tmp_path / file).read_text(), f"run `make generate` ({module})"


def test_package_contains_the_definitions(helm: Helm, tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.glob("muster-*.tgz")
    with tarfile.open(archive) as package:
        for path in CRDS.glob("*.yaml"):
            packed = package.extractfile(f"muster/files/crds/{path.name}")
            assert packed is not None
            assert packed.read() == path.read_bytes()


def test_kube_scheduler_calls_the_port_of_the_extender(helm: Helm) -> None:
    objects = helm.template()
    config = yaml.safe_load(find(objects, "ConfigMap", "muster-scheduler")["data"]["config.yaml"])
    port = config["extenders"][0]["urlPrefix"].rpartition(":")[2]
    pod = containers(find(objects, "Deployment", "muster-scheduler"))
    assert f"--port={port}" in pod["extender"]["args"]
    assert "kubeconfig" not in config["clientConnection"]


@pytest.mark.parametrize(
    ("version", "image"),
    [("v1.36.3", "v1.36.3"), ("v1.36.2-gke.100", "v1.36.2"), ("v1.37.1+k3s1", "v1.37.1")],
)
def test_kube_scheduler_has_the_version_of_the_api_server(helm: Helm, version: str, image: str) -> None:
    pod = containers(find(helm.template(version=version), "Deployment", "muster-scheduler"))
    assert pod["kube-scheduler"]["image"] == f"registry.k8s.io/kube-scheduler:{image}"


BETA = ("--api-versions", "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy")


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        ("v1.36.3", (), "admissionregistration.k8s.io/v1"),
        ("v1.36.0-gke.1", (), "admissionregistration.k8s.io/v1"),
        ("v1.36.3", ("--set", "gate.enabled=true"), "admissionregistration.k8s.io/v1"),
        ("v1.35.2", BETA, "admissionregistration.k8s.io/v1beta1"),
        ("v1.34.0", (*BETA, "--set", "gate.enabled=true"), "admissionregistration.k8s.io/v1beta1"),
        ("v1.33.5", BETA, None),
        ("v1.35.2", (), None),
        ("v1.36.3", ("--set", "gate.enabled=false"), None),
        ("v1.36.3", ("--api-versions", "v1/Pod"), None),
    ],
)
def test_gate_is_rendered_if_the_server_has_the_policy(
    helm: Helm, version: str, options: tuple[str, ...], expected: str | None
) -> None:
    api_versions = {item["kind"]: item["apiVersion"] for item in helm.template(*options, version=version)}
    for kind in ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"):
        assert api_versions.get(kind) == expected
    assert "Deployment" in api_versions


@pytest.mark.parametrize(("options", "served"), [((), True), (("--api-versions", "v1/Pod"), False)])
def test_policies_are_rendered_with_the_accounts_of_the_release_if_the_server_has_them(
    helm: Helm, options: tuple[str, ...], served: bool
) -> None:
    objects = helm.template(*options)
    policies = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ValidatingAdmissionPolicy"}
    bound = {item["spec"]["policyName"] for item in objects if item["kind"] == "ValidatingAdmissionPolicyBinding"}
    assert set(policies) == bound == ({"muster-pods", "muster-templates", "muster-wake", "muster-nodes"} if served else set())
    accounts = {"muster-pods": ("operator", "scheduler"), "muster-wake": ("scheduler",), "muster-nodes": ("agent",)}
    for name, parts in accounts.items() if served else ():
        text = str(policies[name]["spec"]["matchConditions"])
        assert all(f"'system:serviceaccount:{NAMESPACE}:muster-{part}'" in text for part in parts)


def test_required_gate_without_the_policy_fails_with_a_remedy(helm: Helm) -> None:
    with pytest.raises(
        HelmFailed, match=r"this Kubernetes \(v1\.35\.2\) has no MutatingAdmissionPolicy.*gate\.enabled=auto or f"
    ):
        helm.template("--set", "gate.enabled=true", version="v1.35.2")


@pytest.mark.parametrize(
    ("setting", "kind", "workload", "container", "argument"),
    [
        ("operator.preemption=false", "Deployment", "operator", "operator", "--no-preemption"),
        ("operator.logLevel=DEBUG", "Deployment", "operator", "operator", "--log-level=DEBUG"),
        ("operator.nodeLossGraceSeconds=7", "Deployment", "operator", "operator", "--node-loss-grace-seconds=7"),
        ("scheduler.policy=spread", "Deployment", "scheduler", "extender", "--policy=spread"),
        ("scheduler.logLevel=debug", "Deployment", "scheduler", "extender", "--log-level=debug"),
        ("agent.interval=7", "DaemonSet", "agent", "agent", "--interval=7"),
        ("agent.hostSys=true", "DaemonSet", "agent", "agent", "--sysfs=/host/sys"),
        ("fakeGpus.enabled=true", "DaemonSet", "agent", "agent", "--stand-in"),
    ],
)
def test_setting_becomes_an_argument(helm: Helm, setting: str, kind: str, workload: str, container: str, argument: str) -> None:
    name, _, value = setting.partition("=")
    opposite = {"true": "false", "false": "true"}.get(value)
    workload = f"muster-{workload}"
    assert argument in containers(find(helm.template("--set", setting), kind, workload))[container]["args"]
    default = helm.template(*(["--set", f"{name}={opposite}"] if opposite else []))
    assert argument not in containers(find(default, kind, workload))[container]["args"]


def test_disabled_components_are_not_rendered(helm: Helm) -> None:
    objects = helm.template("--set", "agent.enabled=false,userRoles.enabled=false")
    names = {item["metadata"]["name"] for item in objects}
    assert "muster-operator" in names
    assert not names & {"muster-agent", "muster-view", "muster-edit"}
    assert not any("fake" in name for name in names), "fake GPUs require fakeGpus.enabled"
    kinds = {item["kind"] for item in helm.template("--set", "crds.enabled=false,networkPolicy.enabled=false")}
    assert not kinds & {"CustomResourceDefinition", "NetworkPolicy"}


def test_definitions_match_the_project_and_are_kept_on_uninstall(helm: Helm) -> None:
    rendered = {item["metadata"]["name"]: item for item in helm.template() if item["kind"] == "CustomResourceDefinition"}
    for path in CRDS.glob("*.yaml"):
        own = yaml.safe_load(path.read_text())
        definition = rendered.pop(own["metadata"]["name"])
        assert definition["spec"] == own["spec"]
        assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not rendered


def test_program_has_its_image(helm: Helm) -> None:
    objects = helm.template("--set", "image.repository=registry.example.com/muster,image.tag=next,fakeGpus.enabled=true")
    images = {
        name: container["image"]
        for item in objects
        if item["kind"] in ("Deployment", "DaemonSet")
        for name, container in containers(item).items()
        if name != "kube-scheduler"
    }
    programs = {"operator": "operator", "extender": "extender", "agent": "agent", "fake-gpus": "agent"}
    assert images == {name: f"registry.example.com/muster-{image}:next" for name, image in programs.items()}


def test_image_with_a_digest_has_no_tag(helm: Helm) -> None:
    digests = {name: f"sha256:{number:064x}" for number, name in enumerate(("operator", "extender", "agent", "kube-scheduler"))}
    settings = [f"image.digests.{name}={digests[name]}" for name in ("operator", "extender", "agent")]
    settings.append(f"scheduler.kubeScheduler.image.digest={digests['kube-scheduler']}")
    objects = helm.template(*(part for setting in settings for part in ("--set", setting)))
    images = {
        name: container["image"]
        for item in objects
        if item["kind"] in ("Deployment", "DaemonSet")
        for name, container in containers(item).items()
    }
    repositories = {name: f"muster-{name}" for name in digests} | {"kube-scheduler": "registry.k8s.io/kube-scheduler"}
    assert images == {name: f"{repositories[name]}@{digest}" for name, digest in digests.items()}


def test_fake_gpus_run_on_labelled_nodes_and_change_the_agent(helm: Helm) -> None:
    objects = helm.template("--set", "fakeGpus.enabled=true")
    pod = find(objects, "DaemonSet", "muster-fake-gpus")["spec"]["template"]["spec"]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "muster.dev/machine", "operator": "Exists"}]
    assert [volume["hostPath"]["path"] for volume in pod["volumes"]] == ["/var/lib/kubelet/device-plugins"]
    agent = find(objects, "DaemonSet", "muster-agent")["spec"]["template"]["spec"]
    assert not any("hostPath" in volume for volume in agent["volumes"])


def test_network_policy_restricts_ingress_and_egress(helm: Helm) -> None:
    open_to_all = find(helm.template(), "NetworkPolicy", "muster")["spec"]
    assert open_to_all["policyTypes"] == ["Ingress"]
    assert "from" not in open_to_all["ingress"][0]
    peers = '[{"namespaceSelector":{"matchLabels":{"team":"monitoring"}}}]'
    objects = helm.template(
        "--set-json", f"networkPolicy.metricsFrom={peers}", "--set", "networkPolicy.apiServer[0].cidr=10.0.0.1/32",
        "--set", "networkPolicy.apiServer[0].port=6443",
    )  # fmt: skip
    narrow = find(objects, "NetworkPolicy", "muster")["spec"]
    assert narrow["ingress"][0]["from"][0] == json.loads(peers)[0]
    assert narrow["egress"] == [{"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": 6443}]}]
    named = {port["name"] for item in objects if item["kind"] in ("Deployment", "DaemonSet") for port in ports(item)}
    assert {rule["port"] for rule in narrow["ingress"][0]["ports"]} == named


def test_extender_service_has_the_requested_address(helm: Helm) -> None:
    assert not [item for item in helm.template() if item["metadata"]["name"] == "muster-extender"]
    address = ("--set", "scheduler.extenderService.clusterIP=10.96.0.88")
    objects = helm.template(*address)
    service = find(objects, "Service", "muster-extender")["spec"]
    (port,) = service["ports"]
    pod = find(objects, "Deployment", "muster-scheduler")
    assert service["clusterIP"] == "10.96.0.88"
    assert service["selector"].items() <= pod["spec"]["template"]["metadata"]["labels"].items()
    assert port["port"] == EXTENDER_PORT, "kube-scheduler's configuration names it"
    number = {item["name"]: item["containerPort"] for item in ports(pod)}[port["targetPort"]]
    assert f"--service-port={number}" in containers(pod)["extender"]["args"]
    # With restricted metrics the extender stays reachable for a kube-scheduler on the host network.
    narrow = ("--set-json", 'networkPolicy.metricsFrom=[{"podSelector":{}}]')
    assert _extra_rule(helm.template(*address, *narrow)) == {"ports": [{"port": "extender"}]}
    node = '[{"ipBlock":{"cidr":"10.0.0.10/32"}}]'
    narrower = helm.template(*address, *narrow, "--set-json", f"scheduler.extenderService.from={node}")
    assert _extra_rule(narrower) == {"ports": [{"port": "extender"}], "from": json.loads(node)}


def test_extender_service_has_the_certificates_of_its_secret(helm: Helm) -> None:
    settings = "scheduler.extenderService.clusterIP=10.96.0.88,scheduler.extenderService.tlsSecret=extender-tls"
    workload = find(helm.template("--set", settings), "Deployment", "muster-scheduler")
    extender = containers(workload)["extender"]
    (mount,) = extender["volumeMounts"]
    assert f"--service-tls={mount['mountPath']}" in extender["args"]
    volumes = {volume["name"]: volume for volume in workload["spec"]["template"]["spec"]["volumes"]}
    assert volumes[mount["name"]]["secret"] == {"secretName": "extender-tls"}
    plain = find(helm.template("--set", settings.partition(",")[0]), "Deployment", "muster-scheduler")
    assert not any(argument.startswith("--service-tls") for argument in containers(plain)["extender"]["args"])


def test_extender_is_asked_on_loopback_alone_without_a_service(helm: Helm) -> None:
    objects = helm.template()
    pod = find(objects, "Deployment", "muster-scheduler")
    assert not any(argument.startswith("--service") for argument in containers(pod)["extender"]["args"])
    assert {item["name"] for item in ports(pod)} == {"metrics", "kube-scheduler"}
    assert len(find(objects, "NetworkPolicy", "muster")["spec"]["ingress"]) == 1


def _extra_rule(objects: list[dict[str, Any]]) -> dict[str, Any]:
    _, rule = find(objects, "NetworkPolicy", "muster")["spec"]["ingress"]
    assert isinstance(rule, dict)
    return rule


def ports(workload: dict[str, Any]) -> list[dict[str, Any]]:
    return [port for container in containers(workload).values() for port in container["ports"]]


def test_operators_are_evicted_one_at_a_time(helm: Helm) -> None:
    objects = helm.template()
    deployment, budget = find(objects, "Deployment", "muster-operator"), find(objects, "PodDisruptionBudget", "muster-operator")
    assert deployment["spec"]["replicas"] == 2
    assert "--lease=muster-system/muster-operator" in containers(deployment)["operator"]["args"]
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_pods_are_critical_bounded_and_probed(helm: Helm) -> None:
    workloads = [item for item in helm.template() if item["kind"] in ("Deployment", "DaemonSet")]
    assert len(workloads) == 3
    for workload in workloads:
        assert workload["spec"]["template"]["spec"]["priorityClassName"] == "system-cluster-critical"
        for name, container in containers(workload).items():
            assert {"livenessProbe", "readinessProbe"} <= container.keys(), name
            assert "startupProbe" in container or name == "kube-scheduler", name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert container["resources"]["limits"].keys() == {"memory"}, name
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name


def test_user_id_can_be_left_to_the_platform(helm: Helm) -> None:
    for objects, expected in ((helm.template(), 65532), (helm.template("--set", "runAsUser=null"), None)):
        context = find(objects, "Deployment", "muster-operator")["spec"]["template"]["spec"]["securityContext"]
        assert context.get("runAsUser") == expected
        assert context["runAsNonRoot"] is True


DEAD = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@pytest.mark.parametrize("part", ["operator", "scheduler"])
def test_pod_leaves_a_dead_node_after_half_a_minute(helm: Helm, part: str) -> None:
    """Else the plug-in DefaultTolerationSeconds of the API server would let it stay for five minutes."""
    assert _tolerations(helm, part) == [_leaves(key, 30) for key in DEAD]


def test_tolerations_of_the_values_come_beside_those_of_a_dead_node(helm: Helm) -> None:
    infra = {"key": "infra", "operator": "Exists", "effect": "NoSchedule"}
    assert _tolerations(helm, "scheduler", infra) == [*(_leaves(key, 30) for key in DEAD), infra]


def test_values_may_let_a_pod_leave_a_dead_node_sooner_or_later(helm: Helm) -> None:
    own = _leaves(DEAD[1], 5)
    assert _tolerations(helm, "operator", own) == [_leaves(DEAD[0], 30), own]


def _leaves(key: str, seconds: int) -> dict[str, Any]:
    return {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}


def _tolerations(helm: Helm, part: str, *given: dict[str, Any]) -> list[dict[str, Any]]:
    """The tolerations of a Deployment's pods, with these in the values."""
    objects = helm.template("--set-json", f"{part}.tolerations={json.dumps(given)}")
    tolerations: list[dict[str, Any]] = find(objects, "Deployment", f"muster-{part}")["spec"]["template"]["spec"]["tolerations"]
    return tolerations
