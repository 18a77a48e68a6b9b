"""The operator is killed at every step of an admission, and carries on with the same placement when it is back.

The states in between are written by hand with the operator's own functions while it is down: so each is hit for certain.
"""

from __future__ import annotations

import json
import random
import time

import msgspec
import pytest

from builders.history import History
from builders.live import HOLD, Json, Live
from builders.live_processes import Operator
from muster.api import names
from muster.kube.objects import Pod
from muster.scheduling.gang import Assigned, Task
from muster_operator.dljob import manifests
from muster_operator.dljob.decoding import decode
from muster_operator.dljob.gang import tasks_of
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record
from muster_operator.external_pods import ungating

pytestmark = pytest.mark.cluster

PLACES = [("pcie-8-1", 0b11000000), ("dgx-a100-1", 0b10100), ("pcie-8-0", 0b100001)]
"""Not what a plan would come to, so that a placement created again could not pass for the one that was written."""


def as_read(live: Live, name: str) -> Job:
    job = decode(json.dumps(live.get("dljobs", name)).encode())
    assert isinstance(job, Job)
    return job


def admit(live: Live, name: str) -> Job:
    """Write a placement to a job's status as the operator would, and return the job as it is then."""
    job = as_read(live, name)
    placement = [Assigned(task, *place, rank) for rank, (task, place) in enumerate(zip(tasks_of(job), PLACES, strict=True))]
    record = Record(job, time.time())
    record.admit(tuple(placement), "Placed", "6 GPUs on 3 nodes")
    live.cluster.api.patch(live.path("dljobs", name) + "/status", {"status": record.patch()})
    return as_read(live, name)


def create_pods(live: Live, job: Job, count: int) -> dict[str, str]:
    """Create the first pods of a placed gang as the operator would; return their uids by name."""
    placement = job.status.placement
    template = live.get("dljobs", job.meta.name)["spec"]["roles"]["worker"]["template"]
    bodies = [manifests.pod(job, place, placement, template) for place in placement[:count]]
    made = [live.by_muster().api.create(live.path("pods"), body) for body in bodies]
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in made}


@pytest.mark.parametrize("created", [0, 1, 2, 3], ids=lambda count: f"{count}-of-3-pods")
def test_restarted_operator_completes_an_admission(live: Live, operator: Operator, created: int) -> None:
    operator.kill()
    live.job("gang", 3, 2)
    job = admit(live, "gang")
    before = create_pods(live, job, created)
    if created:
        live.wait_pods(created, "Running")
    operator.start()

    status = live.wait_running("gang", 3)
    assert [(place["node"], place["gpus"]) for place in status["placement"]] == [
        ("pcie-8-1", [6, 7]),
        ("dgx-a100-1", [2, 4]),
        ("pcie-8-0", [0, 5]),
    ]
    assert status["attempt"] == 1
    assert status.get("requeues", 0) == status.get("restarts", 0) == 0
    after = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in live.pods("gang")}
    assert after.items() >= before.items(), "no pod was created again"
    assert live.exists("services", "gang")


def test_job_that_came_while_the_operator_was_down_is_checked_and_admitted(live: Live, operator: Operator) -> None:
    operator.kill()
    live.job("late", 2, 1)
    live.create("dljobs", {"metadata": {"name": "bad"}, "spec": bad_spec()})
    operator.start()
    live.wait_running("late", 2)
    live.wait_phase("bad", "Failed")


def bad_spec() -> Json:
    container = {"name": "Not A Name", "image": "x", "resources": {"limits": {names.GPU: 1}}}
    return {"roles": {"worker": {"template": {"spec": {"containers": [container]}}}}}


def test_restarted_operator_notices_what_happened(live: Live, operator: Operator) -> None:
    for name in ("ended", "gone", "suspended", "failed"):
        live.job(name, 2, 1)
        live.wait_running(name, 2)
    operator.kill()
    live.let_end("ended")
    live.fail("failed-worker-1")
    live.annotate("dljobs", "suspended", suspend="true")
    live.delete("dljobs", "gone")
    live.wait_pods(2, "Succeeded", "ended")
    live.wait_pods(0, "", "gone")
    operator.start()
    live.wait_phase("ended", "Succeeded")
    live.wait_phase("suspended", "Suspended")
    live.wait(lambda: live.status("failed").get("restarts") == 1, "the failure is counted")
    for name in ("ended", "suspended"):
        live.wait_nothing_held(name)


@pytest.mark.parametrize("released", [1, 2, 3], ids=lambda count: f"{count}-of-3-gates")
def test_restarted_operator_goes_on_ungating_a_gang(live: Live, operator: Operator, released: int) -> None:
    operator.kill()
    for index in range(3):
        live.member(f"g{index}", 2, "x", 3)
    placement = [Assigned(Task(f"g{i}", 2), *place, i) for i, place in enumerate(PLACES)]
    live.by_muster().annotate("pods", "g0", reservation=ungating.reservation_text(tuple(placement)))
    for index in range(released):
        pod = msgspec.convert(live.get("pods", f"g{index}"), Pod)
        live.by_muster().patch("pods", f"g{index}", ungating.ungating_patch(pod, None, placement[index]))
    operator.start()

    pods = live.wait_pods(3, "Running")
    assert [(pod["spec"]["nodeName"], pod["metadata"]["annotations"][names.GPUS]) for pod in pods] == [
        ("pcie-8-1", "6,7"),
        ("dgx-a100-1", "2,4"),
        ("pcie-8-0", "0,5"),
    ]
    live.wait(lambda: names.RESERVATION not in live.get("pods", "g0")["metadata"]["annotations"], "the reservation is cleared")


def test_reservation_without_an_ungated_pod_is_planned_anew(live: Live, operator: Operator) -> None:
    """Anybody could have written that placement; the operator keeps its own word only where it has begun to."""
    operator.kill()
    for index in range(3):
        live.member(f"g{index}", 2, "x", 3)
    placement = [Assigned(Task(f"g{i}", 2), *place, i) for i, place in enumerate(PLACES)]
    live.by_muster().annotate("pods", "g0", reservation=ungating.reservation_text(tuple(placement)))
    operator.start()
    pods = live.wait_pods(3, "Running")
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 1, "packed, as a plan would have it"
    live.wait(lambda: names.RESERVATION not in live.get("pods", "g0")["metadata"]["annotations"], "the reservation is cleared")


def test_gang_of_which_some_pods_finished_is_ungated_to_the_end(live: Live, operator: Operator) -> None:
    """The first pods, with the reservation for the others written on one of them, finished while the operator was down."""
    operator.kill()
    for index in range(3):
        live.member(f"g{index}", 2, "x", 3, run=0)
    placement = [Assigned(Task(f"g{i}", 2), *place, i) for i, place in enumerate(PLACES)]
    live.by_muster().annotate("pods", "g0", reservation=ungating.reservation_text(tuple(placement)))
    for index in range(2):
        pod = msgspec.convert(live.get("pods", f"g{index}"), Pod)
        live.by_muster().patch("pods", f"g{index}", ungating.ungating_patch(pod, None, placement[index]))
        live.wait(lambda name=f"g{index}": live.get("pods", name)["status"]["phase"] == "Succeeded", "it has ended")  # type: ignore[misc]
    operator.start()
    live.wait_pods(3, "Succeeded")
    live.wait(lambda: names.RESERVATION not in live.get("pods", "g0")["metadata"]["annotations"], "the reservation is cleared")


JOBS, GANGS, KILLS = 24, 6, 8


def test_kills_at_random_moments(live: Live, operator: Operator) -> None:
    """30 gangs are submitted while the operator is killed again and again."""
    dice = random.Random(20180626)
    work = [*(("job", index) for index in range(JOBS)), *(("gang", index) for index in range(GANGS))]
    dice.shuffle(work)
    with History(live.cluster) as history:
        for kills in range(KILLS):
            for kind, index in work[kills * len(work) // KILLS : (kills + 1) * len(work) // KILLS]:
                submit(live, kind, index, dice)
            time.sleep(dice.uniform(0, 0.8))  # the moment of the kill, not a wait for anything
            operator.kill()
            operator.start()
        history.wait(lambda now: now.phases().count("Succeeded") == JOBS, "all jobs have run")
        live.wait(lambda: bare_ended(live) == 3 * GANGS, "all bare gangs have run")
        for state in history.states():
            assert not state.given_twice(), f"{state.changed}: {state.given_twice()}"
            assert not state.not_whole(), f"{state.changed}: {state.not_whole()}"
    for job in live.items("dljobs"):
        assert job["status"].get("restarts", 0) == 0, job["status"]
    live.wait(lambda: not live.items("services"), "no Service is left")


def bare_ended(live: Live) -> int:
    return sum(names.GANG in p["metadata"].get("labels", {}) and p["status"]["phase"] == "Succeeded" for p in live.pods())


def submit(live: Live, kind: str, index: int, dice: random.Random) -> None:
    gpus = dice.choice([1, 2, 4])
    if kind == "job":
        live.job(f"j{index}", dice.randint(2, 4), gpus, run=dice.randint(1, 2))
        return
    for member in range(3):
        live.member(f"b{index}-{member}", gpus, f"b{index}", 3, run=1)


def test_gang_that_waits_for_its_pods_survives(live: Live, operator: Operator) -> None:
    """Admitted, all pods there, none running: the operator that comes back waits on as the one before did."""
    live.job("held", 2, 2, hold=True)
    live.wait_pods(2, "Pending", "held")
    before = [pod["metadata"]["uid"] for pod in live.pods("held")]
    placement = live.status("held")["placement"]
    operator.kill()
    assert all({"name": HOLD} in pod["spec"]["schedulingGates"] for pod in live.pods("held"))
    operator.start()
    live.let_run("held")
    assert live.wait_running("held", 2)["placement"] == placement
    assert [pod["metadata"]["uid"] for pod in live.pods("held")] == before
