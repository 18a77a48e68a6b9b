"""Extender and operator: no other pod gets what is reserved for a gang, whatever the pod says of itself.

The API server refuses most of what these pods say, so they are written with the operator's account (tests/attacks).
"""

from __future__ import annotations

import pytest

from builders.live import POOL, Json, Live
from muster.api import names

pytestmark = pytest.mark.cluster


@pytest.fixture
def node(live: Live) -> str:
    """A node all of whose GPUs are reserved for a gang that has not started."""
    (node,) = live.add_nodes(1)
    live.job("owner", 2, 4, pool=live.namespace, hold=True)
    live.wait_pods(2, "Pending", "owner")
    return node


def owner(live: Live, uid: str | None = None) -> Json:
    job = live.get("dljobs", "owner")
    found = {"apiVersion": names.API_VERSION, "kind": "DLJob", "name": "owner", "uid": uid or job["metadata"]["uid"]}
    return found | {"controller": True}


def check_owner_runs(live: Live) -> None:
    live.let_run("owner")
    live.wait_running("owner", 2)


def take_gate_off(live: Live, pod: str) -> None:
    """Do by hand what the operator would do, but without being asked."""
    live.wait(lambda: names.WAITING in live.get("pods", pod)["metadata"].get("annotations", {}), "it is told to wait")
    live.by_muster().patch("pods", pod, {"spec": {"schedulingGates": []}})


def never_bound(live: Live, pod: str) -> bool:
    return not live.told(pod, "Successfully assigned")


@pytest.mark.usefixtures("node")
def test_pod_whose_user_takes_its_gate_off_gets_no_reserved_gpu(live: Live) -> None:
    live.pod("forged", 2, pool=live.namespace)
    take_gate_off(live, "forged")
    reserved = f"needs 2 GPUs: 0 of 8 free, 8 reserved for {live.namespace}/owner"
    live.wait(lambda: live.told("forged", reserved), "an event says why")
    assert never_bound(live, "forged")
    check_owner_runs(live)


@pytest.mark.usefixtures("node")
def test_pod_that_only_bears_the_label_gets_nothing(live: Live) -> None:
    live.by_muster().pod("forged", 1, labels={names.JOB: "owner"}, pool=live.namespace)
    live.wait(lambda: live.told("forged", f"the label {names.JOB} is for pods of DLJobs"), "an event says why")
    assert never_bound(live, "forged")
    check_owner_runs(live)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("attempt", ["1", "7"])
def test_pod_forged_down_to_the_attempt_neither_runs_nor_hinders_the_gang(live: Live, attempt: str) -> None:
    """It has all that the operator's own pods have, but a name that the placement does not know."""
    annotations = {names.ATTEMPT: attempt, names.GPUS: "0,1", names.RANK: "0"}
    live.by_muster().pod(
        "owner-worker-9",
        2,
        owners=[owner(live)],
        labels={names.JOB: "owner", names.ROLE: "worker", names.INDEX: "9"},
        annotations=annotations,
        nodeSelector={POOL: live.namespace},
    )
    live.wait(lambda: not live.exists("pods", "owner-worker-9"), "the pod that the placement does not know is deleted")
    check_owner_runs(live)
    assert {event["reason"] for event in live.items("events") if event["involvedObject"]["name"] == "owner-worker-9"} <= {
        "FailedScheduling"
    }


@pytest.mark.usefixtures("node")
def test_pod_of_another_jobs_uid_is_never_let_in(live: Live) -> None:
    live.by_muster().pod(
        "forged",
        2,
        owners=[owner(live, "00000000-0000-0000-0000-000000000000")],
        labels={names.JOB: "owner"},
        annotations={names.ATTEMPT: "1", names.GPUS: "0,1"},
        nodeSelector={POOL: live.namespace},
    )
    # The garbage collector deletes a pod whose owner is not there; until then the extender keeps it out.
    live.wait(lambda: live.told("forged", "no GPUs are reserved for this pod") or not live.exists("pods", "forged"), "refused")
    live.wait(lambda: not live.exists("pods", "forged"), "the pod is gone")
    check_owner_runs(live)


def test_pod_that_pins_itself_gets_no_reserved_gpu(live: Live, node: str) -> None:
    """Node and GPUs as the operator would write them: a claim, and not a right."""
    pin = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [pin]}}}
    live.by_muster().pod("claims", 2, annotations={names.GPUS: "0,1"}, affinity=affinity)
    take_gate_off(live, "claims")
    live.wait(
        lambda: live.told("claims", f"GPUs 0,1 of node {node}, given to this pod, held by {live.namespace}/owner"), "told"
    )
    assert never_bound(live, "claims")
    check_owner_runs(live)


def test_ungated_pod_is_woken_when_the_reservation_goes(live: Live, node: str) -> None:
    live.pod("guest", 2, pool=live.namespace)
    take_gate_off(live, "guest")
    live.wait(lambda: live.told("guest", "reserved for"), "it is refused first")
    live.annotate("dljobs", "owner", suspend="true")
    live.wait(lambda: live.get("pods", "guest")["spec"].get("nodeName") == node, "it gets in when the reservation is given up")
