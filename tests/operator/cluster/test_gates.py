"""Pods that muster did not create: through the gate, alone or as a gang, and whatever people write on them."""

from __future__ import annotations

import json

import pytest

from builders.live import HOLD, Json, Live, template
from builders.live_processes import Scheduler
from muster.api import names

pytestmark = pytest.mark.cluster


def batch(name: str, pods: int, body: Json) -> Json:
    spec = {"parallelism": pods, "completions": pods, "template": body | {"spec": body["spec"] | {"restartPolicy": "Never"}}}
    return {"metadata": {"name": name}, "spec": spec}


def annotation(pod: Json, name: str) -> str | None:
    found: str | None = pod["metadata"].get("annotations", {}).get(name)
    return found


def test_batch_job_goes_through_the_gate_and_ends(live: Live) -> None:
    live.create("jobs", batch("batch", 3, template(2, run=1, schedulerName=names.SCHEDULER)))
    live.wait(lambda: live.get("jobs", "batch")["status"].get("succeeded") == 3, "the Job has succeeded")
    given = [(pod["spec"]["nodeName"], gpu) for pod in live.pods() for gpu in str(annotation(pod, names.GPUS)).split(",")]
    assert len(given) == 6, "each pod was told its GPUs: it was held, planned, and ungated"
    for pod in live.pods():
        assert not pod["spec"].get("schedulingGates")
        assert annotation(pod, names.WAITING) is None
        assert f'"values": ["{pod["spec"]["nodeName"]}"]' in json.dumps(pod["spec"]["affinity"])


def test_incomplete_gang_says_how_many_pods_are_missing(live: Live) -> None:
    for index in (0, 1):
        live.member(f"g{index}", 4, "x", 3)
    live.wait(
        lambda: [annotation(pod, names.WAITING) for pod in live.pods()] == ["has 2 of 3 pods; 1 not created yet"] * 2, "told"
    )
    assert all({"name": names.GATE} in pod["spec"]["schedulingGates"] for pod in live.pods())
    live.wait(lambda: live.told("g1", "has 2 of 3 pods"), "an event says so too")
    live.member("g2", 4, "x", 3)
    pods = live.wait_pods(3, "Running")
    assert sorted(str(annotation(pod, names.RANK)) for pod in pods) == ["0", "1", "2"]
    live.wait(lambda: not any(annotation(pod, names.RESERVATION) for pod in live.pods()), "the reservation is taken off")


def test_gang_that_does_not_fit_holds_nothing(live: Live) -> None:
    live.add_nodes(1)
    for index in range(3):
        live.member(f"g{index}", 4, "x", 3, pool=None, nodeSelector={"test/pool": live.namespace})
    live.wait(lambda: all("12 GPUs" in (annotation(pod, names.WAITING) or "") for pod in live.pods()), "all are told")
    assert all({"name": names.GATE} in pod["spec"]["schedulingGates"] for pod in live.pods())
    live.add_nodes(1)
    live.wait_pods(3, "Running")


def test_pod_with_another_gate_holds_nothing_until_that_is_gone(live: Live) -> None:
    (node,) = live.add_nodes(1)
    term = {"matchExpressions": [{"key": names.MACHINE, "operator": "In", "values": ["pcie-8"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    live.pod("picky", 8, hold=True, affinity=affinity, pool=live.namespace)
    live.wait(lambda: HOLD in (annotation(live.get("pods", "picky"), names.WAITING) or ""), "it says for what it waits")
    live.job("other", 1, 8, pool=live.namespace)
    live.wait_running("other", 1)
    live.delete("dljobs", "other")
    live.let_run()
    (pod,) = live.wait_pods(1, "Running")
    assert pod["spec"]["nodeName"] == node
    (found,) = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert found["matchExpressions"] == term["matchExpressions"]


def test_pod_whose_node_is_lost_before_it_starts_is_created_again(live: Live, scheduler: Scheduler) -> None:
    live.add_nodes(1)
    scheduler.stop()
    body = template(8, run=0, pool=live.namespace, schedulerName=names.SCHEDULER)
    live.create("jobs", batch("moved", 1, body))
    live.wait(lambda: [annotation(pod, names.GPUS) for pod in live.pods()] == ["0,1,2,3,4,5,6,7"], "it is pinned")
    before = live.pods()[0]["metadata"]["name"]
    live.cluster.api.delete(f"/api/v1/nodes/{live.added[0]}")
    live.wait(lambda: before not in [pod["metadata"]["name"] for pod in live.pods()], "it is requeued")
    (other,) = live.add_nodes(1)
    live.wait(lambda: [annotation(pod, names.GPUS) for pod in live.pods()] == ["0,1,2,3,4,5,6,7"], "its successor is pinned")
    scheduler.start()
    live.wait(lambda: live.get("jobs", "moved")["status"].get("succeeded") == 1, "the Job has succeeded")
    assert live.pods()[0]["spec"]["nodeName"] == other


def test_launcher_without_gpus_starts_with_its_gang(live: Live) -> None:
    live.add_nodes(2)
    launcher = live.member("launcher", 0, "mpi", 3, pool=live.namespace)
    assert {"name": names.GATE} in launcher["spec"]["schedulingGates"]
    live.member("worker-0", 8, "mpi", 3, pool=live.namespace)
    live.wait(lambda: "1 not created yet" in (annotation(live.get("pods", "launcher"), names.WAITING) or ""), "it waits too")
    live.member("worker-1", 8, "mpi", 3, pool=live.namespace)
    live.wait_pods(3, "Running")


def test_pod_of_a_batch_gang_that_is_created_again_runs_beside_those_that_are_done(live: Live) -> None:
    live.add_nodes(1)
    body = template(2, schedulerName=names.SCHEDULER, pool=live.namespace)
    body["metadata"] |= {"labels": {names.GANG: "batch"}}
    body["metadata"]["annotations"][names.GANG_SIZE] = "3"
    live.create("jobs", batch("batch", 3, body))
    first, second, _ = (pod["metadata"]["name"] for pod in live.wait_pods(3, "Running"))
    live.annotate("pods", first, run_seconds="0")
    live.wait(lambda: live.get("pods", first)["status"]["phase"] == "Succeeded", "one is done")
    live.fail(second)
    live.wait(
        lambda: sum(pod["status"]["phase"] == "Running" for pod in live.pods()) == 2, "the other is created again and runs"
    )


BAD = {
    "negative": '{"bad": {"node": "pcie-8-0", "gpus": [-1], "rank": 0}}',
    "astronomic": '{"bad": {"node": "pcie-8-0", "gpus": [999999999999], "rank": 0}}',
    "node-is-no-name": '{"bad": {"node": "no such/node!", "gpus": [0], "rank": 0}}',
    "wrong-count": '{"bad": {"node": "pcie-8-0", "gpus": [0, 1, 2], "rank": 0}}',
    "no-json": "{",
    "other-shape": '["bad"]',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_forged_reservation_holds_up_no_gang(live: Live, text: str) -> None:
    live.by_muster().member("bad", 1, "forged", 1, annotations={names.RESERVATION: text})
    live.member("huge", 1, "huge", 1, annotations={names.GANG_SIZE: "9" * 5000})
    live.job("honest", 2, 1)
    live.wait_running("honest", 2)


def test_forged_reservation_of_gpus_that_are_taken_gets_none_of_them(live: Live) -> None:
    (node,) = live.add_nodes(1)
    live.job("owner", 1, 8, pool=live.namespace, hold=True)
    live.wait_pods(1, "Pending", "owner")
    text = json.dumps({"thief": {"node": node, "gpus": [0, 1], "rank": 0}})
    live.by_muster().member("thief", 2, "forged", 1, annotations={names.RESERVATION: text}, pool=live.namespace)
    live.wait(lambda: "0 free" in (annotation(live.get("pods", "thief"), names.WAITING) or ""), "it waits like any other")
    live.let_run("owner")
    live.wait_running("owner", 1)
    assert {"name": names.GATE} in live.get("pods", "thief")["spec"]["schedulingGates"]
