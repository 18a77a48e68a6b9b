"""What admission plugins add to pods counts before there are pods: defaults of LimitRanges, overhead of RuntimeClasses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from builders.dljobs import Json, roles, template
from builders.operator_harness import SPACE, OperatorHarness
from muster.kube import paths
from muster.kube.objects import Container, Demand, PodSpec, PodToleration
from muster.kube.store import Store
from muster_operator.defaults import LIMIT_RANGES, Added, Defaults, Runtime

LIMITS = f"/api/v1/namespaces/{SPACE}/limitranges"
QUOTAS = f"/api/v1/namespaces/{SPACE}/resourcequotas"
CLASSES = f"{paths.NODE}/runtimeclasses"
ADDED = Added({"cpu": "1", "memory": "1Gi"}, {"cpu": "4"}, {"kata": Runtime({"cpu": "250m"}, {}, ())})


def limit_range(harness: OperatorHarness, requests: Json, limits: Json | None = None) -> None:
    """Write a LimitRange as the API server keeps it: what has a default limit has a default request."""
    item = {"type": "Container", "default": limits or {}, "defaultRequest": requests}
    harness.server.put(LIMITS, {"metadata": {"name": "rule", "namespace": SPACE}, "spec": {"limits": [item]}})


def quota(harness: OperatorHarness, **hard: str) -> None:
    body = {"metadata": {"name": "team", "namespace": SPACE}, "spec": {"hard": {f"requests.{key}": hard[key] for key in hard}}}
    harness.server.put(QUOTAS, body)


def nodes_have(harness: OperatorHarness, cpu: str) -> None:
    for node in harness.server.of("nodes"):
        harness.change(
            paths.nodes(node["metadata"]["name"]), status={"allocatable": {**node["status"]["allocatable"], "cpu": cpu}}
        )


@pytest.mark.parametrize(
    ("own", "requests", "limits"),
    [
        ({}, {"cpu": "1", "memory": "1Gi"}, {"cpu": "4"}),
        ({"requests": {"cpu": "2"}}, {"cpu": "2", "memory": "1Gi"}, {"cpu": "4"}),
        ({"limits": {"cpu": "3"}}, {"cpu": "3", "memory": "1Gi"}, {"cpu": "3"}),
        ({"requests": {"cpu": 0}, "limits": {"memory": 5}}, {"cpu": 0, "memory": 5}, {"cpu": "4", "memory": 5}),
    ],
)
def test_container_gets_what_it_lacks(own: dict[str, Any], requests: Json, limits: Json) -> None:
    one = msgspec.convert({"containers": [{"resources": own}], "initContainers": [{"resources": own}]}, PodSpec)
    spec = ADDED.to(one)
    assert [each.resources for each in (*spec.containers, *(spec.init_containers or ()))] == [Demand(requests, limits)] * 2


def test_pod_gets_the_overhead_of_its_runtime_class_and_keeps_its_own() -> None:
    assert ADDED.to(PodSpec(runtime_class_name="kata")).overhead == {"cpu": "250m"}
    assert ADDED.to(PodSpec(runtime_class_name="kata", overhead={"cpu": "1"})).overhead == {"cpu": "1"}
    assert ADDED.to(PodSpec(runtime_class_name="runc")).overhead is None


def test_default_of_a_container_comes_too_late_for_what_the_pod_requests_as_a_whole() -> None:
    """The API server has made a request of the pod's limit before LimitRanger is asked."""
    one = msgspec.convert({"containers": [{}], "resources": {"limits": {"cpu": "8", "memory": "1Gi"}}}, PodSpec)
    assert ADDED.to(one).resources == Demand({"cpu": "8", "memory": "1Gi"}, {"cpu": "8", "memory": "1Gi"})
    assert ADDED.to(PodSpec(containers=[Container()])).resources is None


def test_pod_gets_selector_and_tolerations_of_its_runtime_class_beside_its_own() -> None:
    theirs, own = PodToleration("kata", "Exists"), PodToleration("gpu", "Exists")
    added = Added({}, {}, {"kata": Runtime({}, {"sandbox": "kata"}, (theirs,))})
    spec = added.to(PodSpec(runtime_class_name="kata", node_selector={"pool": "a"}, tolerations=[own]))
    assert (spec.node_selector, spec.tolerations) == ({"pool": "a", "sandbox": "kata"}, [own, theirs])
    assert added.to(PodSpec(runtime_class_name="runc")).node_selector is None


def test_of_several_limit_ranges_the_largest_default_counts() -> None:
    ranges: Store[Any] = Store()
    defaults = Defaults(ranges, Store())
    told: list[str | None] = []
    defaults.subscribe(told.append)
    for version, (name, cpu) in enumerate((("a", "1"), ("b", "1500m"), ("c", "1.5"), ("d", "lots")), start=1):
        item = {"type": "Container", "default": {"cpu": cpu}, "defaultRequest": {"cpu": cpu}}
        other = {"type": "Pod", "max": {"cpu": "9"}, "default": {"memory": "1"}}
        meta = {"name": name, "namespace": SPACE, "resourceVersion": str(version)}
        ranges.put(LIMIT_RANGES.decode(msgspec.json.encode({"metadata": meta, "spec": {"limits": [item, other]}})))
    assert (defaults.of(SPACE).requests, defaults.of(SPACE).limits) == ({"cpu": "1500m"}, {"cpu": "1500m"})
    assert (told, defaults.of("other").is_something) == ([SPACE, SPACE], False)
    for version, name in enumerate("abcd", start=5):
        ranges.remove(f"{SPACE}/{name}", version)
    assert not defaults.of(SPACE).is_something


async def test_defaults_beyond_a_quota_keep_the_gang_waiting_and_preempt_nobody(harness: OperatorHarness) -> None:
    nodes_have(harness, cpu="4")
    quota(harness, cpu="5")
    harness.submit("low", roles=roles(workers=2, gpus=4))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn(2)
    limit_range(harness, requests={"cpu": "3"})
    harness.submit("high", roles=roles(workers=2, gpus=4), priority=5)
    await harness.turn(3)
    message = "needs 6 requests.cpu; ResourceQuota vision/team allows no more than 5"
    assert harness.admitted("high") == ("ExceedsResourceQuota", message)
    assert (harness.status("low")["phase"], len(harness.pods())) == ("Running", 2)
    limit_range(harness, requests={"cpu": "2"})
    await harness.turn(3)
    assert (harness.status("low")["phase"], harness.status("high")["phase"]) == ("Queued", "Queued")


async def test_change_of_defaults_is_planned_with(harness: OperatorHarness) -> None:
    nodes_have(harness, cpu="4")
    quota(harness, cpu="5")
    limit_range(harness, requests={"cpu": "3"})
    harness.submit()
    await harness.turn(3)
    assert harness.admitted()[0] == "ExceedsResourceQuota"
    harness.server.drop(f"{LIMITS}/rule")
    await harness.turn(3)
    assert harness.status()["phase"] == "Admitted"


async def test_defaults_count_on_nodes(harness: OperatorHarness) -> None:
    nodes_have(harness, cpu="4")
    limit_range(harness, requests={"cpu": "3"})
    harness.submit(roles=roles(workers=2, gpus=1))
    await harness.turn(2)
    assert {place["node"] for place in harness.status()["placement"]} == {"n1", "n2"}


async def test_reservation_counts_with_defaults_before_there_are_pods(harness: OperatorHarness) -> None:
    nodes_have(harness, cpu="4")
    limit_range(harness, requests={"cpu": "3"})
    harness.submit(roles=roles(workers=1, gpus=1))
    harness.sync()
    await harness.look()
    await harness.plan()
    assert harness.pods() == []
    (place,) = harness.status()["placement"]
    reserved = harness.stores.view.reservations.get(f"{SPACE}/{place['pod']}")
    assert reserved is not None
    assert reserved.resources.cpu == 3000


async def test_overhead_of_a_runtime_class_counts_in_a_quota(harness: OperatorHarness) -> None:
    nodes_have(harness, cpu="4")
    quota(harness, cpu="1")
    harness.server.put(CLASSES, {"metadata": {"name": "kata"}, "overhead": {"podFixed": {"cpu": "600m"}}})
    harness.submit(roles={"worker": {"replicas": 2, "template": template(1, runtimeClassName="kata")}})
    await harness.turn(3)
    assert harness.admitted()[1] == "needs 1200m requests.cpu; ResourceQuota vision/team allows no more than 1"


async def test_gang_goes_only_where_its_runtime_class_allows(harness: OperatorHarness) -> None:
    selector, tolerations = {"sandbox": "kata"}, [{"key": "sandbox", "operator": "Exists"}]
    scheduling = {"nodeSelector": selector, "tolerations": tolerations}
    harness.submit(roles={"worker": {"replicas": 1, "template": template(1, runtimeClassName="kata")}})
    harness.server.put(CLASSES, {"metadata": {"name": "kata"}, "scheduling": scheduling})
    await harness.turn(3)
    assert harness.admitted()[0] == "NeverFits"
    assert "sandbox=kata" in harness.admitted()[1]
    taint = {"key": "sandbox", "value": "kata", "effect": "NoSchedule"}
    harness.change(paths.nodes("n2"), metadata={"labels": selector}, spec={"taints": [taint]})
    await harness.turn(3)
    assert [place["node"] for place in harness.status()["placement"]] == ["n2"]
