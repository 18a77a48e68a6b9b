"""ResourceQuotas as planning sees them: pods that exist, pods that are promised, and quota that comes free."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from builders.dljobs import Json, roles
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster_operator.dljob.template_check import QUOTA_EXCEEDED

QUOTAS = f"/api/v1/namespaces/{SPACE}/resourcequotas"
GPU = f"requests.{names.GPU}"


def quota(
    harness: OperatorHarness, hard: Mapping[str, str], used: Mapping[str, str] | None = None, name: str = "team", **spec: Json
) -> None:
    """Write a ResourceQuota as its user and kube-controller-manager do."""
    body = {"metadata": {"name": name, "namespace": SPACE}, "spec": {"hard": hard, **spec}, "status": {"used": used or {}}}
    harness.server.put(QUOTAS, body)


async def test_gang_over_a_quota_waits_with_all_figures_and_preempts_nobody(harness: OperatorHarness) -> None:
    """Its templates pass, since a single pod would fit."""
    harness.submit("low", roles=roles(workers=1, gpus=4))
    await harness.turn(3)
    quota(harness, {GPU: "7"}, {GPU: "4"})
    harness.submit("high", roles=roles(workers=2, gpus=2), priority=5)
    await harness.turn(3)
    assert harness.admitted("high") == ("ExceedsResourceQuota", f"needs 4 {GPU}; ResourceQuota vision/team has 3 of 7 left")
    assert harness.status("low")["phase"] == "Admitted"


async def test_gang_is_planned_when_quota_comes_free(harness: OperatorHarness) -> None:
    quota(harness, {"pods": "2"}, {"pods": "1"})
    harness.submit()
    await harness.turn(3)
    assert harness.admitted()[0] == "ExceedsResourceQuota"
    harness.work_queue.begin_plan()
    quota(harness, {"pods": "2"}, {"pods": "2"})
    harness.sync()
    assert harness.work_queue.plan_at != 0.0
    quota(harness, {"pods": "2"}, {"pods": "0"})
    harness.sync()
    assert harness.work_queue.plan_at == 0.0
    await harness.turn(2)
    assert harness.status()["phase"] == "Admitted"


async def test_admitted_gang_counts_before_its_pods_exist(harness: OperatorHarness) -> None:
    quota(harness, {"pods": "3"})
    harness.submit("first", roles=roles(workers=2, gpus=1))
    harness.sync()
    await harness.look()
    await harness.plan()
    assert (harness.status("first")["phase"], harness.pods()) == ("Admitted", [])
    harness.submit("second", roles=roles(workers=2, gpus=1))
    harness.sync()
    harness.keep_busy("first")
    harness.dljobs.reconcile(f"{SPACE}/second", harness.now)
    await harness.idle()
    await harness.plan()
    await harness.idle()
    assert harness.admitted("second")[1] == "needs 2 pods; ResourceQuota vision/team has 1 of 3 left"


async def test_created_pods_count_before_the_quota_says_so_and_once_it_does(harness: OperatorHarness) -> None:
    quota(harness, {"pods": "4"})
    harness.submit("first", roles=roles(workers=2, gpus=1))
    await harness.turn(3)
    assert len(harness.pods()) == 2
    harness.submit("second", roles=roles(workers=3, gpus=1))
    await harness.turn(3)
    assert harness.admitted("second")[1] == "needs 3 pods; ResourceQuota vision/team has 2 of 4 left"
    quota(harness, {"pods": "5"}, {"pods": "2"})
    await harness.turn(2)
    assert harness.status("second")["phase"] == "Admitted"


async def test_ended_pods_count_as_objects_only(harness: OperatorHarness) -> None:
    harness.submit("first", roles=roles(workers=2, gpus=1))
    await harness.turn(3)
    harness.run_pods()
    await harness.turn(2)
    harness.run_pods("Succeeded")
    await harness.turn(2)
    quota(harness, {"pods": "2", "count/pods": "4"}, {"pods": "0", "count/pods": "2"})
    harness.submit("second", roles=roles(workers=2, gpus=1))
    await harness.turn(3)
    assert harness.status("second")["phase"] == "Admitted"


@pytest.mark.parametrize(("name", "placed"), [("urgent", False), ("plain", True)])
async def test_quota_of_a_priority_class_counts_its_jobs_alone(harness: OperatorHarness, name: str, placed: bool) -> None:
    for each in ("urgent", "plain"):
        harness.server.put(paths.priorityclasses(), {"metadata": {"name": each}, "value": 7})
    selector: Json = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["urgent"]}]}
    quota(harness, {GPU: "0"}, scopeSelector=selector)
    harness.submit(priorityClassName=name)
    await harness.turn(3)
    assert (harness.status()["phase"] == "Admitted") is placed


async def test_quota_that_is_used_up_does_not_reject_a_template(harness: OperatorHarness) -> None:
    """The API server refuses the dry run of even one pod; what counts is said by the plan, for the gang."""
    quota(harness, {"pods": "2"}, {"pods": "2"})
    refusal = f'pods "vgg16-worker-0" is forbidden: {QUOTA_EXCEEDED}team, requested: pods=1, used: pods=2, limited: pods=2'
    harness.server.refuse("POST", "dryRun", 403, refusal)
    harness.submit()
    await harness.turn(3)
    assert harness.admitted() == ("ExceedsResourceQuota", "needs 2 pods; ResourceQuota vision/team has 0 of 2 left")


async def test_pod_that_ends_in_a_namespace_with_quotas_is_planned_after(harness: OperatorHarness) -> None:
    quota(harness, {"pods": "9"})
    harness.pod("other", 0, gated=False, node="n1", phase="Running")
    harness.sync()
    harness.work_queue.begin_plan()
    harness.change(paths.pods(SPACE, "other"), status={"phase": "Succeeded"})
    harness.sync()
    assert harness.work_queue.plan_at == 0.0


async def test_quota_of_other_kinds_of_objects_holds_nobody(harness: OperatorHarness) -> None:
    quota(harness, {"services.nodeports": "0", "count/configmaps": "0", "requests.storage": "1Gi"})
    harness.submit()
    await harness.turn(3)
    assert harness.status()["phase"] == "Admitted"


@pytest.mark.parametrize("name", ["services", "count/services"])
async def test_service_of_a_gang_counts_with_its_pods_from_its_admission_on(harness: OperatorHarness, name: str) -> None:
    """Seen: the Service was refused once others had made way for the gang."""
    quota(harness, {name: "1"})
    harness.submit("low", roles=roles(workers=2, gpus=3), rendezvous="None")
    await harness.turn(3)
    harness.submit("first", roles=roles(workers=1, gpus=1))
    await harness.turn(3)
    harness.submit("second", roles=roles(workers=1, gpus=4), priority=5)
    for used in ("0", "1"):  # the watch may bring the Service later than the quota counts it
        quota(harness, {name: "1"}, {name: used})
        await harness.turn(3)
        assert harness.admitted("second")[0] == "ExceedsResourceQuota"
    assert harness.admitted("second")[1] == f"needs 1 {name}; ResourceQuota vision/team has 0 of 1 left"
    assert [harness.status(job)["phase"] for job in ("low", "first")] == ["Admitted", "Admitted"]
