"""What the chart renders, by the real helm: strict about its values, true to its settings, the same as its sources."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders.chart import CHART, Helm, HelmFailed, containers, find

pytestmark = pytest.mark.cluster

VALUES = CHART / "values.yaml"
CRDS = CHART.parents[1] / "crds"
FREE_FORM = ("resources", "annotations", "nodeSelector")


def test_lint_has_nothing_to_say(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


@pytest.mark.parametrize(
    ("setting", "field", "says"),
    [
        ("operator.preemption=maybe", "/operator/preemption", "want boolean"),
        ("gate.enabeld=true", "/gate", "'enabeld' not allowed"),
        ("operatr.logLevel=INFO", "''", "'operatr' not allowed"),
        ("operator.logLevel=info", "/operator/logLevel", "'DEBUG', 'INFO'"),
        ("scheduler.policy=packed", "/scheduler/policy", "'pack', 'spread'"),
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
def test_a_wrong_value_is_refused_by_its_name(helm: Helm, setting: str, field: str, says: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.template("--set", setting)
    (line,) = {line for line in str(refused.value).splitlines() if f"at '{field.strip(chr(39))}'" in line and says in line}
    assert line.startswith("- at ")


def test_the_schema_knows_each_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    del schema["properties"]["global"]
    assert _names(schema) == _values(yaml.safe_load(VALUES.read_text()))


def test_each_value_has_a_comment() -> None:
    lines = VALUES.read_text().splitlines()
    leaves = {name.rpartition(".")[2] for name in _values(yaml.safe_load(VALUES.read_text()))}
    without = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line.strip().partition(":")[0] in leaves
        and not line.lstrip().startswith("#")
        and not before.lstrip().startswith("#")
    ]
    assert not without


@pytest.mark.parametrize("path", sorted((CHART / "templates").glob("*rbac.yaml")), ids=lambda path: path.name)
def test_each_rule_says_what_needs_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("- {apiGroups:")]
    assert rules
    for number in rules:
        said = next(line for line in reversed(lines[:number]) if not line.startswith("- {apiGroups: [coordination"))
        assert said.startswith("# "), f"{path.name}:{number + 1} has no comment"


def _values(tree: dict[str, Any], path: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in tree.items():
        inner = isinstance(value, dict) and key not in FREE_FORM
        found |= _values(value, f"{path}{key}.") if inner else {path + key}
    return found


def _names(schema: dict[str, Any], path: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in schema["properties"].items():
        found |= _names(value, f"{path}{key}.") if "properties" in value else {path + key}
    return found


@pytest.mark.parametrize(
    ("module", "file"),
    [("muster.local.chart", "scheduler-config.yaml"), ("muster.api.admission", "admission-policy.yaml")],
)
def test_generated_files_are_up_to_date(module: str, file: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-P", "-m", module, tmp_path / file], check=True)
    there = CHART / "files" / file
    assert there.read_text() == (tmp_path / file).read_text(), f"run `python -m {module} helm/muster/files/{file}`"


def test_a_package_has_the_definitions_themselves(helm: Helm, tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.glob("muster-*.tgz")
    with tarfile.open(archive) as package:
        for path in CRDS.glob("*.yaml"):
            packed = package.extractfile(f"muster/crds/{path.name}")
            assert packed is not None
            assert packed.read() == path.read_bytes()


def test_kube_scheduler_asks_the_extender_where_it_listens(helm: Helm) -> None:
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
def test_kube_scheduler_is_as_old_as_the_api_server(helm: Helm, version: str, image: str) -> None:
    pod = containers(find(helm.template(version=version), "Deployment", "muster-scheduler"))
    assert pod["kube-scheduler"]["image"] == f"registry.k8s.io/kube-scheduler:{image}"


def test_a_server_without_the_policy_is_told_what_to_set(helm: Helm) -> None:
    with pytest.raises(HelmFailed, match=r"needs Kubernetes 1\.36.*this is v1\.35\.2: set gate\.enabled=false"):
        helm.template(version="v1.35.2")
    kinds = {each["kind"] for each in helm.template("--set", "gate.enabled=false", version="v1.35.2")}
    assert "Deployment" in kinds
    assert "MutatingAdmissionPolicy" not in kinds


@pytest.mark.parametrize(
    ("setting", "kind", "workload", "container", "argument"),
    [
        ("operator.preemption=false", "Deployment", "operator", "operator", "--no-preemption"),
        ("operator.logLevel=DEBUG", "Deployment", "operator", "operator", "--log-level=DEBUG"),
        ("scheduler.policy=spread", "Deployment", "scheduler", "extender", "--policy=spread"),
        ("scheduler.logLevel=debug", "Deployment", "scheduler", "extender", "--log-level=debug"),
        ("agent.interval=7", "DaemonSet", "agent", "agent", "--interval=7"),
        ("agent.hostSys=true", "DaemonSet", "agent", "agent", "--sysfs=/host/sys"),
    ],
)
def test_a_setting_becomes_an_argument(
    helm: Helm, setting: str, kind: str, workload: str, container: str, argument: str
) -> None:
    name, _, value = setting.partition("=")
    other = {"true": "false", "false": "true"}.get(value)
    workload = f"muster-{workload}"
    assert argument in containers(find(helm.template("--set", setting), kind, workload))[container]["args"]
    default = helm.template(*(["--set", f"{name}={other}"] if other else []))
    assert argument not in containers(find(default, kind, workload))[container]["args"]


def test_what_is_switched_off_is_not_there(helm: Helm) -> None:
    objects = helm.template("--set", "agent.enabled=false,userRoles.enabled=false")
    names = {each["metadata"]["name"] for each in objects}
    assert "muster-operator" in names
    assert not names & {"muster-agent", "muster-view", "muster-edit"}


def test_the_platform_may_choose_the_user(helm: Helm) -> None:
    for objects, expected in ((helm.template(), 65532), (helm.template("--set", "runAsUser=null"), None)):
        context = find(objects, "Deployment", "muster-operator")["spec"]["template"]["spec"]["securityContext"]
        assert context.get("runAsUser") == expected
        assert context["runAsNonRoot"] is True
