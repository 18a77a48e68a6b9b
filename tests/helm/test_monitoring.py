"""Dashboard and alerts use existing metrics and labels of operator, extender and agent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from builders.chart import CHART, Helm, HelmFailed, find
from muster.allocation.view import ClusterView
from muster_agent.metrics import Gauges
from muster_agent.reading import Sample
from muster_extender import rules
from muster_extender.metrics import Metrics
from muster_extender.waking import Waking
from muster_operator import metrics as operator

PROMETHEUS_API = ("--api-versions", "monitoring.coreos.com/v1")


async def _never(*_: object) -> None:
    raise AssertionError("no pod is woken in this test")


def exported() -> dict[str, set[str]]:
    """Return the exported metrics of the three programs with their labels."""
    operator.WATCH_FAILED.labels("pods").set(0)
    operator.DECISIONS.labels("Place", "Placed")
    operator.SET_ASIDE.labels("gang")
    operator.FAILING_GANGS.labels("n1")
    operator.JOBS.labels("Running")
    cluster = rules.cluster(ClusterView())
    extender = Metrics(cluster, Waking(cluster, _never), {})
    extender.requests.labels("filter", "passed")
    extender.seconds.labels("filter")
    gauges = Gauges("n1", patience=60)
    gauges.show([Sample(0, "GPU-0", True, 0.5, 1, 2, 40, 300)])
    text = generate_latest() + extender.text() + generate_latest(gauges.registry)
    labels_of: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(muster_\w+)(?:\{(.*?)\})? ", text.decode(), re.MULTILINE):
        labels_of.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return labels_of


def expressions(tree: Any) -> Iterator[str]:
    """Yield every PromQL expression of a dashboard or a rule file."""
    if isinstance(tree, dict):
        if isinstance(tree.get("expr"), str):
            yield tree["expr"]
        for child in tree.values():
            yield from expressions(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from expressions(child)


@pytest.mark.parametrize("file", ["dashboard.json", "alerts.yaml"])
def test_expressions_use_existing_metrics_and_labels(file: str) -> None:
    labels_of = exported()
    used = list(expressions(yaml.safe_load((CHART / "files" / file).read_text())))
    assert len(used) > 5
    for expression in used:
        names = re.findall(r"\bmuster_\w+", expression)
        assert names, expression
        assert set(names) <= labels_of.keys(), expression
        for labels in re.findall(r"by \((.*?)\)", expression):
            assert set(labels.split(", ")) <= set().union(*(labels_of[name] for name in names)), expression


def test_alert_texts_use_existing_labels() -> None:
    labels_of = exported()
    for rule in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"][0]["rules"]:
        names = re.findall(r"\bmuster_\w+", rule["expr"])
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert any(label in labels_of[name] for name in names), rule["alert"]


@pytest.mark.cluster
def test_monitoring_objects_are_rendered_unchanged(helm: Helm) -> None:
    enabled = "metrics.serviceMonitor.enabled=true,metrics.alerts.enabled=true,metrics.dashboard.enabled=true"
    objects = helm.template("--set", enabled, "--set", "metrics.alerts.labels.release=prom", *PROMETHEUS_API)
    rule = find(objects, "PrometheusRule", "muster")
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prom"
    dashboard = find(objects, "ConfigMap", "muster-dashboard")
    assert json.loads(dashboard["data"]["muster.json"]) == json.loads((CHART / "files" / "dashboard.json").read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    monitor = find(objects, "ServiceMonitor", "muster")
    (endpoint,) = monitor["spec"]["endpoints"]
    services = [item for item in objects if item["kind"] == "Service"]
    assert len(services) == 3
    for service in services:
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.cluster
def test_missing_prometheus_operator_is_reported(helm: Helm) -> None:
    with pytest.raises(HelmFailed, match="need the Prometheus operator"):
        helm.template("--set", "metrics.alerts.enabled=true")
    kinds = {item["kind"] for item in helm.template()}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
