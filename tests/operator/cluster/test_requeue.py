"""Bare pods that were let go and cannot start: the gang is requeued, created again as its user made it, and runs whole.

The states in which a killed operator leaves them are written by hand with its own functions while it is down.
"""

from __future__ import annotations

import random
import time

import pytest

from builders.live import Json, Live
from builders.live_processes import Operator, Scheduler
from muster.api import names
from muster_operator.external_pods import templates

pytestmark = pytest.mark.cluster

SIZE = 2
PASSING = (names.WAITING, names.RESERVATION, names.RANK, names.GPUS)


def gang(live: Live, name: str = "g", gpus: int = 8) -> list[Json]:
    """Create a gang of bare pods, wait until they are ungated; return them as they were created."""
    term = {"weight": 1, "preference": {"matchExpressions": [{"key": names.MACHINE, "operator": "Exists"}]}}
    preferred = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}
    made = [
        live.member(f"{name}{index}", gpus, name, SIZE, pool=live.namespace, affinity=preferred, run=None)
        for index in range(SIZE)
    ]
    live.wait(lambda: all(pinned(live, pod["metadata"]["name"]) for pod in made), "the gang is ungated")
    return made


def pinned(live: Live, name: str) -> str | None:
    """The GPUs that a pod was told."""
    found: str | None = live.get("pods", name)["metadata"].get("annotations", {}).get(names.GPUS)
    return found


def uids(live: Live) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in live.pods()}


def node_of(pod: Json) -> str:
    (term,) = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return str(term["matchFields"][0]["values"][0])


def wait_queued_again(live: Live, before: list[Json]) -> None:
    """Wait until every pod is there again, as its user made it and with its first arrival; it may have been ungated since."""
    old = {pod["metadata"]["uid"] for pod in before}
    live.wait(
        lambda: not live.items("podtemplates") and len(live.pods()) == len(before) and not old & set(uids(live).values()),
        "the gang is queued again",
    )
    for first in before:
        again = live.get("pods", first["metadata"]["name"])
        notes = {key: text for key, text in again["metadata"]["annotations"].items() if key not in PASSING}
        arrived = {names.QUEUED_AT: first["metadata"]["creationTimestamp"], names.REQUEUES: "1"}
        assert notes == first["metadata"]["annotations"] | arrived
        assert again["metadata"]["labels"] == first["metadata"]["labels"]


def test_gang_whose_gpus_an_external_pod_takes_is_requeued_and_runs(live: Live, scheduler: Scheduler) -> None:
    scheduler.stop()
    live.add_nodes(SIZE)
    before = gang(live)
    robbed = node_of(live.get("pods", "g1"))
    live.pod("robber", 8, scheduler="default-scheduler", nodeName=robbed)
    live.wait(lambda: live.get("pods", "robber")["status"]["phase"] == "Running", "the external pod runs")
    scheduler.start()

    live.wait(
        lambda: uids(live).items().isdisjoint({(p["metadata"]["name"], p["metadata"]["uid"]) for p in before}), "requeued"
    )
    told = live.told
    live.wait(
        lambda: told("g0", "g1 cannot start") and told("g1", "it cannot start on the node that it is pinned to"),
        "events say why",
    )
    live.wait(lambda: "8 free on 1" in (waiting(live, "g0") or ""), "it waits whole, and says for what")
    assert not live.items("podtemplates")
    for first in before:
        again = live.get("pods", first["metadata"]["name"])
        assert again["spec"].get("nodeName") is None
        assert again["spec"] == first["spec"], "what the API server fills in is there once"
    live.delete("pods", "robber")
    pods = live.wait_pods(SIZE, "Running")
    assert {pod["metadata"]["annotations"][names.QUEUED_AT] for pod in pods} == {
        pod["metadata"]["creationTimestamp"] for pod in before
    }


def waiting(live: Live, name: str) -> str | None:
    found: str | None = live.get("pods", name)["metadata"].get("annotations", {}).get(names.WAITING)
    return found


@pytest.mark.parametrize("last", ["template-of-one", "templates", "one-deleted", "one-created", "one-forgotten"])
def test_operator_killed_at_any_step_carries_on(live: Live, operator: Operator, scheduler: Scheduler, last: str) -> None:
    """Nothing is wrong with the gang any more when the operator is back, but it had begun to be requeued."""
    scheduler.stop()
    live.add_nodes(SIZE)
    before = gang(live)
    operator.kill()
    made = requeue(live, last)
    operator.start()

    wait_queued_again(live, before)
    if made:
        assert uids(live)["g0"] == made, "the pod was not created twice"
    live.wait(lambda: all(pinned(live, name) for name in ("g0", "g1")), "the gang is ungated again")
    scheduler.start()
    live.wait_pods(SIZE, "Running")


def requeue(live: Live, last: str) -> str | None:
    """Do what the operator does, up to and with the step `last`; return the uid of the pod that was created."""
    steps = ["template-of-one", "templates", "one-deleted", "one-created", "one-forgotten"]
    done = steps[: steps.index(last) + 1]
    muster = live.by_muster()
    kept = muster.create("podtemplates", templates.template(live.get("pods", "g0")))
    if "templates" in done:
        muster.create("podtemplates", templates.template(live.get("pods", "g1")))
    if "one-deleted" in done:
        live.delete("pods", "g0")
        live.wait(lambda: not live.exists("pods", "g0"), "g0 is gone")
    made = muster.create("pods", templates.pod(kept))["metadata"]["uid"] if "one-created" in done else None
    if "one-forgotten" in done:
        live.delete("podtemplates", kept["metadata"]["name"])
    return made


GANGS, KILLS = "abcd", 5


def test_kills_at_random_moments(live: Live, operator: Operator, scheduler: Scheduler) -> None:
    """All nodes of four gangs go at once while the operator is killed again and again."""
    scheduler.stop()
    dice = random.Random(20261121)
    nodes = live.add_nodes(len(GANGS))
    before = [pod for name in GANGS for pod in gang(live, name, gpus=4)]
    for node in nodes:
        live.cluster.api.delete(f"/api/v1/nodes/{node}")
    for _ in range(KILLS):
        time.sleep(dice.uniform(0, 0.3))  # the moment of the kill, not a wait for anything
        operator.kill()
        operator.start()
    wait_queued_again(live, before)
    live.add_nodes(len(GANGS))
    live.wait(lambda: all(pinned(live, pod["metadata"]["name"]) for pod in before), "all are ungated again")
    scheduler.start()
    live.wait_pods(len(GANGS) * SIZE, "Running")


def test_pod_that_its_user_deletes_stays_deleted(live: Live, operator: Operator, scheduler: Scheduler) -> None:
    """Before it is ungated, after that, and while the operator is down; a later pod goes through when all that was seen."""
    scheduler.stop()
    live.add_nodes(SIZE)
    gang(live)
    live.pod("waits", 8, pool=live.namespace)
    live.delete("pods", "waits")
    live.delete("pods", "g0")
    operator.kill()
    live.delete("pods", "g1")
    operator.start()
    live.pod("later", 8, pool=live.namespace)
    scheduler.start()
    live.wait_pods(1, "Running")
    assert list(uids(live)) == ["later"]
    assert not live.items("podtemplates")
