"""Pods that are to be apart, together or spread out are, among themselves and with others."""

from __future__ import annotations

from typing import Any

import pytest

from builders.dljobs import Json, template
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths

HOST = "kubernetes.io/hostname"


def apart(app: str, kind: str = "podAntiAffinity") -> Json:
    term = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": app}}}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def spread(app: str) -> Json:
    selector = {"matchLabels": {"app": app}}
    constraint = {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}
    return {"topologySpreadConstraints": [constraint]}


def workers(count: int, app: str, **spec: Any) -> Json:
    """Roles of a job whose workers have a label app and 2 GPUs each."""
    one = template(2, **spec)
    return {"worker": {"replicas": count, "template": {**one, "metadata": {"labels": {"app": app}}}}}


def with_nodes(harness: OperatorHarness, *more: str) -> None:
    for name in ("n1", "n2", *more):
        harness.node(name, labels={HOST: name})


def where(harness: OperatorHarness, job: str) -> list[str]:
    return sorted(place["node"] for place in harness.status(job).get("placement", []))


@pytest.mark.parametrize("rule", [apart("c02"), spread("c02")], ids=["podAntiAffinity", "topologySpreadConstraints"])
async def test_workers_that_are_to_be_apart_get_a_node_each(harness: OperatorHarness, rule: Json) -> None:
    with_nodes(harness)
    harness.submit("c02", roles=workers(2, "c02", **rule))
    await harness.turn(3)
    assert where(harness, "c02") == ["n1", "n2"]


async def test_least_number_of_domains_is_kept_by_muster_alone(harness: OperatorHarness) -> None:
    """kube-scheduler sees but one domain of a pinned pod, and with too few of them it lets one pod onto each node."""
    with_nodes(harness)
    [constraint] = spread("c02")["topologySpreadConstraints"]
    harness.submit("c02", roles=workers(4, "c02", topologySpreadConstraints=[{**constraint, "minDomains": 2}]))
    await harness.turn(3)
    assert where(harness, "c02") == ["n1", "n1", "n2", "n2"]
    assert all(pod["spec"]["topologySpreadConstraints"] == [constraint] for pod in harness.server.of("pods"))


async def test_job_with_more_workers_than_nodes_says_which_rule_keeps_it(harness: OperatorHarness) -> None:
    with_nodes(harness)
    harness.submit("c02", roles=workers(3, "c02", **apart("c02")))
    await harness.turn(3)
    reason, message = harness.admitted("c02")
    assert (reason, "anti-affinity by kubernetes.io/hostname to pods with app=c02" in message) == ("NeverFits", True)


async def test_job_that_is_to_be_near_its_own_role_is(harness: OperatorHarness) -> None:
    with_nodes(harness)
    near = apart("x", "podAffinity")
    term = near["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    term["labelSelector"] = {"matchLabels": {names.JOB: "c02"}}
    harness.submit("c02", roles=workers(2, "a", **near))
    await harness.turn(3)
    assert where(harness, "c02") in (["n1", "n1"], ["n2", "n2"])


async def test_pod_of_another_scheduler_keeps_a_job_away_until_it_ends(harness: OperatorHarness) -> None:
    with_nodes(harness)
    body = {"schedulerName": "default-scheduler", **apart("train")}
    for node in ("n1", "n2"):
        harness.pod(f"guard-{node}", 0, gated=False, node=node, spec=body, metadata={"labels": {"app": "guard"}})
    harness.submit("c02", roles=workers(1, "train"))
    await harness.turn(3)
    assert where(harness, "c02") == []
    assert "anti-affinity by kubernetes.io/hostname to pods with app=train of other pods" in harness.admitted("c02")[1]
    harness.server.drop(paths.pods(SPACE, "guard-n2"))
    await harness.turn(2)
    assert where(harness, "c02") == ["n2"]


async def test_labelled_gang_is_apart_from_a_job_that_runs(harness: OperatorHarness) -> None:
    with_nodes(harness)
    harness.submit("c02", roles=workers(1, "train"))
    await harness.turn(3)
    harness.run_pods()
    for number in range(2):
        metadata = {"labels": {names.GANG: "g", "app": "other"}}
        harness.pod(f"p{number}", 1, gang="g", size=2, spec=apart("train"), metadata=metadata)
    await harness.turn(2)
    [busy] = where(harness, "c02")
    pins = [
        term["matchFields"][-1]["values"]
        for pod in harness.server.of("pods")
        if pod["metadata"]["name"].startswith("p")
        for term in pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
    ]
    assert pins == [[{"n1": "n2", "n2": "n1"}[busy]]] * 2
