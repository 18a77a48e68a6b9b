"""Moving a gang by annotation, and resizing it: another placement before the old one is given up."""

from __future__ import annotations

import pytest

from builders.history import History
from builders.live import POOL, Live
from muster.api import names

pytestmark = pytest.mark.cluster


def test_gang_moves_away_from_the_named_node(live: Live) -> None:
    live.add_nodes(3, racks=3)
    live.job("mover", 2, 4, pool=live.namespace)
    live.wait_running("mover", 2)
    key = f"{live.namespace}/mover"
    with History(live.cluster) as history:
        for attempt, (kind, name) in enumerate([("dljobs", "mover"), ("pods", "mover-worker-1")] * 2, 2):
            (node,) = live.nodes_of("mover")
            leave = {2: "", 3: node, 4: live.cluster.api.get(f"/api/v1/nodes/{node}")["metadata"]["labels"][names.RACK]}
            live.annotate(kind, name, migrate=leave.get(attempt, ""))
            live.wait(lambda attempt=attempt: live.status("mover")["attempt"] == attempt, "it has another placement")  # type: ignore[misc]
            live.wait_running("mover", 2)
            assert node not in live.nodes_of("mover")
        history.wait(lambda now: now.status(key).get("attempt") == 5 and "Running" in now.phases(), "all is seen")
        seen = 1
        for state in history.states():
            assert not state.given_twice()
            assert not state.not_whole()
            assert len(state.status(key).get("placement", [])) == 2, "at no moment is it without a place"
            if state.status(key)["attempt"] > seen:
                seen = state.status(key)["attempt"]
                running = [pod for pod in state.pods.values() if pod["status"]["phase"] == "Running"]
                assert len(running) == 2, "the old pods still run when the new place is theirs"
                assert {pod["metadata"]["annotations"][names.ATTEMPT] for pod in running} == {str(seen - 1)}
    assert names.MIGRATE not in live.get("dljobs", "mover")["metadata"].get("annotations", {})
    assert live.timeline("mover").count("Migrated") == 4


def test_gang_that_cannot_move_stays_and_says_so(live: Live) -> None:
    live.add_nodes(2)
    live.job("stays", 1, 8, pool=live.namespace)
    live.wait_running("stays", 1)
    live.job("other", 1, 8, pool=live.namespace)
    live.wait_running("other", 1)
    before = live.pods("stays")[0]
    live.annotate("dljobs", "stays", migrate="")
    live.wait(lambda: "ChangePending" in live.timeline("stays"), "it says so")
    status = live.status("stays")
    assert status["phase"] == "Running"
    assert "stays where it is" in status["message"]
    assert "needs 8 GPUs" in status["message"]
    assert live.pods("stays")[0]["metadata"]["uid"] == before["metadata"]["uid"]

    live.let_end("other")
    live.wait(lambda: live.status("stays")["attempt"] == 2, "it goes as soon as there is room")
    live.wait_running("stays", 1)
    assert before["spec"]["nodeName"] not in live.nodes_of("stays")


def test_waiting_job_drops_the_wish_to_move(live: Live) -> None:
    live.job("parked", 1, 1, suspend=True)
    live.wait_phase("parked", "Suspended")
    live.annotate("dljobs", "parked", migrate="")
    live.wait(
        lambda: names.MIGRATE not in live.get("dljobs", "parked")["metadata"].get("annotations", {}), "the wish is dropped"
    )
    assert live.status("parked")["phase"] == "Suspended"


def test_scaled_job_runs_in_its_new_size(live: Live) -> None:
    live.job("scaled", 2, 2)
    live.wait_running("scaled", 2)
    for count in (4, 1):
        live.cluster.kubectl("scale", "dljob/scaled", "-n", live.namespace, f"--replicas={count}")
        live.wait(lambda count=count: live.status("scaled").get("replicas") == count, "it has another size")  # type: ignore[misc]
        status = live.wait_running("scaled", count)
        assert status["gpus"] == 2 * count
    assert live.timeline("scaled").count("Resized") == 2
    scale = live.cluster.api.get(live.path("dljobs", "scaled") + "/scale")
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (1, 1)
    assert scale["status"]["selector"] == f"{names.JOB}=scaled,{names.ROLE}=worker"


def test_scaling_beyond_what_is_there_keeps_the_gang(live: Live) -> None:
    live.add_nodes(1)
    live.job("greedy", 1, 4, pool=live.namespace)
    live.wait_running("greedy", 1)
    before = live.pods("greedy")[0]["metadata"]["uid"]
    live.cluster.kubectl("scale", "dljob/greedy", "-n", live.namespace, "--replicas=3")
    live.wait(lambda: "ChangePending" in live.timeline("greedy"), "it says so")
    assert "needs 12 GPUs" in live.status("greedy")["message"]
    assert live.pods("greedy")[0]["metadata"]["uid"] == before
    assert live.status("greedy")["phase"] == "Running"


def test_elastic_gang_starts_with_fewer(live: Live) -> None:
    live.add_nodes(1)
    live.job("elastic", 4, 4, elastic={"minReplicas": 1, "maxReplicas": 4}, pool=live.namespace)
    status = live.wait_running("elastic", 2)
    assert status["replicas"] == 2
    env = live.pods("elastic")[0]["spec"]["containers"][0]["env"]
    assert {"name": "PET_NNODES", "value": "2"} in env
    assert live.pods("elastic")[0]["spec"]["nodeSelector"] == {POOL: live.namespace}
