"""Rules between pods as the core sees them, from what the API server says of a pod."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from muster.allocation.bystanders import Bystanders
from muster.allocation.relations import relations_of, untold
from muster.allocation.view import ClusterView
from muster.kube.objects import Pod
from muster.scheduling.relations import Kind, Relations, Rule
from muster.scheduling.residents import Bystander
from muster.scheduling.topology.eligibility import Requirement

WEB = (Requirement("app", "In", ("web",)),)
HOST = "kubernetes.io/hostname"
SELECTOR = {"matchLabels": {"app": "web"}}


def pod(spec: dict[str, Any] | None = None, name: str = "p", **fields: Any) -> Pod:
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": name,
        "resourceVersion": "1",
        "labels": {"app": "web", "rev": "1"},
        **fields,
    }
    return msgspec.convert({"metadata": metadata, "spec": spec or {}}, Pod)


def affinity(kind: str, **term: Any) -> dict[str, Any]:
    term = {"topologyKey": HOST, "labelSelector": SELECTOR, **term}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def spread(**fields: Any) -> dict[str, Any]:
    constraint = {"topologyKey": "zone", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": SELECTOR}
    return {"topologySpreadConstraints": [constraint | fields]}


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        pytest.param(affinity("podAntiAffinity"), Rule(Kind.APART, HOST, WEB, ("ns",)), id="anti-affinity"),
        pytest.param(affinity("podAffinity"), Rule(Kind.TOGETHER, HOST, WEB, ("ns",)), id="affinity"),
        pytest.param(affinity("podAffinity", labelSelector=None), Rule(Kind.TOGETHER, HOST, None, ("ns",)), id="no selector"),
        pytest.param(
            affinity("podAffinity", namespaces=["b", "a"]), Rule(Kind.TOGETHER, HOST, WEB, ("a", "b")), id="namespaces"
        ),
        pytest.param(
            affinity("podAffinity", namespaceSelector={}), Rule(Kind.TOGETHER, HOST, WEB, (), ()), id="every namespace"
        ),
        pytest.param(
            affinity("podAntiAffinity", namespaceSelector={"matchLabels": {"team": "a"}}),
            Rule(Kind.APART, HOST, WEB, (), ()),
            id="namespaces by unknown labels: kept apart from all",
        ),
        pytest.param(
            affinity("podAffinity", namespaceSelector={"matchLabels": {"team": "a"}}),
            Rule(Kind.TOGETHER, HOST, WEB),
            id="namespaces by unknown labels: near to none",
        ),
        pytest.param(
            affinity("podAntiAffinity", matchLabelKeys=["rev", "absent"], mismatchLabelKeys=["app"]),
            Rule(Kind.APART, HOST, (*WEB, Requirement("rev", "In", ("1",)), Requirement("app", "NotIn", ("web",))), ("ns",)),
            id="keys of its own labels",
        ),
        pytest.param(spread(), Rule(Kind.SPREAD, "zone", WEB, ("ns",), max_skew=2), id="spread"),
        pytest.param(
            spread(minDomains=3, nodeAffinityPolicy="Ignore", nodeTaintsPolicy="Honor", matchLabelKeys=["app"]),
            Rule(
                Kind.SPREAD,
                "zone",
                WEB,
                ("ns",),
                max_skew=2,
                min_domains=3,
                honours_affinity=False,
                honours_taints=True,
            ),
            id="spread with policies",
        ),
    ],
)
def test_rule_is_read(spec: dict[str, Any], rule: Rule) -> None:
    assert relations_of(pod(spec)) == Relations("ns", (("app", "web"), ("rev", "1")), (rule,))


def test_pod_that_muster_writes_does_not_tell_its_least_number_of_domains() -> None:
    one = untold(relations_of(pod(spread(minDomains=2))))
    assert [(rule.min_domains, rule.told) for rule in one.rules] == [(2, False)]
    plain = relations_of(pod(spread()))
    assert untold(plain) is plain


def test_preferences_are_no_rules() -> None:
    assert relations_of(pod(spread(whenUnsatisfiable="ScheduleAnyway"))).rules == ()


def test_labels_of_a_pod_are_kept_up_to_a_bound() -> None:
    many = {f"key-{number}": "x" for number in range(1000)} | {"muster.dev/job": "j"}
    kept = pod(labels=many).metadata.labels or {}
    assert (len(kept), kept["muster.dev/job"]) == (65, "j")


def test_bound_pods_are_told_by_node_until_they_end() -> None:
    view = ClusterView()
    left: list[Bystander] = []
    bystanders = Bystanders(view, left.append)
    view.pods.put(pod(name="waits"))
    view.pods.put(pod({"nodeName": "n1"}, name="runs"))
    before = bystanders.by_node()
    assert [(one.name, one.leaving) for one in before["n1"]] == [("ns/runs", False)]
    view.pods.put(pod({"nodeName": "n1"}, name="runs", resourceVersion="2"))
    assert bystanders.by_node()["n1"] is before["n1"]
    view.pods.put(pod({"nodeName": "n1"}, name="runs", resourceVersion="3", deletionTimestamp="2026-01-01T00:00:00Z"))
    assert [(one.name, one.leaving) for one in bystanders.by_node()["n1"]] == [("ns/runs", True)]
    ended = msgspec.structs.replace(pod({"nodeName": "n1"}, name="runs", resourceVersion="4"))
    view.pods.put(msgspec.structs.replace(ended, status=msgspec.structs.replace(ended.status, phase="Succeeded")))
    assert (dict(bystanders.by_node()), [one.name for one in left]) == ({}, ["ns/runs", "ns/runs"])
