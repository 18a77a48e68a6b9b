"""The leader is stopped, continued and killed at random moments while placements are written: nothing is promised twice.

`make attacks` does it ten times; the tests alone do it once each way.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from builders.history import History, State
from builders.leaders import Lingering, in_place, leads, paused, two_operators
from builders.live import Json, Live
from builders.live_processes import Operator
from muster.api import names
from muster.kube.lease import Terms
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster
log = logging.getLogger(__name__)

ROUNDS = int(os.environ.get("MUSTER_ATTACKS", "2"))
JOBS = 300
CONNECTIONS = 32
"""Of an operator: so many writes may be on their way when it is stopped."""
GONE = 5
"""Jobs that are deleted while the leader is stopped, so that its successor places others elsewhere than it would have."""
GPUS = 8
"""Of each node."""
PENDING = 100
"""Jobs whose placements a leader is writing when it is stopped."""
QUEUE = "default"


@pytest.fixture
def crowd(cluster: LocalCluster, namespace: str) -> Iterator[Live]:
    """A namespace with 300 jobs of one GPU on nodes of their own; all wait for a quota, so it lets many go in one plan."""
    with waiting(Live(cluster, namespace), JOBS) as live:
        yield live


@pytest.fixture
def few(cluster: LocalCluster, namespace: str) -> Iterator[Live]:
    """As many jobs as one leader is to have pending."""
    with waiting(Live(cluster, namespace), PENDING) as live:
        yield live


@contextmanager
def waiting(live: Live, jobs: int) -> Iterator[Live]:
    """Have so many jobs of one GPU wait for the quota of their queue, with room for all of them."""
    live.add_nodes(-(-jobs // GPUS))
    live.create("dlqueues", {"metadata": {"name": QUEUE}, "spec": {"gpus": 0}})
    live.wait(lambda: "status" in live.get("dlqueues", QUEUE), "the operator knows the queue")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: live.job(f"j{number}", 1, 1, pool=live.namespace, rendezvous="None"), range(jobs)))
    live.wait(lambda: phases(live).count("Queued") == jobs, "all jobs wait")
    yield live
    live.clear()


def phases(live: Live) -> list[str]:
    return [job.get("status", {}).get("phase", "") for job in live.items("dljobs")]


def placed(state: State) -> int:
    return sum(bool(job.get("status", {}).get("placement")) for job in state.jobs.values())


def elsewhere(state: State) -> str | None:
    """What is wrong with the pod changed last: it is not where the placement that it was made for has it."""
    kind, name = state.changed.split("/", 1)
    pod = state.pods.get(name) if kind == "pods" else None
    if pod is None or not pod["spec"].get("nodeName"):
        return None
    meta = pod["metadata"]
    status = state.status(f"{meta['namespace']}/{meta['labels'][names.JOB]}")
    place = next((place for place in status.get("placement", []) if place["pod"] == meta["name"]), None)
    if place is None or meta["annotations"][names.ATTEMPT] != str(status["attempt"]):
        return None
    return None if where(pod) == (place["node"], place["gpus"]) else f"{name} is at {where(pod)}, not at {place}"


def where(pod: Json) -> tuple[str, list[int]]:
    return pod["spec"]["nodeName"], [int(gpu) for gpu in pod["metadata"]["annotations"][names.GPUS].split(",")]


class Attack:
    """What happens to the leader of two operators while it writes placements."""

    def __init__(self, live: Live, history: History, dice: random.Random) -> None:
        self._live, self._history, self._dice = live, history, dice
        self.quota = 0

    def release(self, jobs: int) -> None:
        """Let so many more jobs go, and wait until some of their placements are written."""
        before = self._placed()
        self.quota += jobs
        self._live.patch("dlqueues", QUEUE, {"spec": {"gpus": self.quota}})
        self._history.wait(lambda now: placed(now) > before, "placements are being written")
        time.sleep(self._dice.uniform(0.0, 0.2))  # the moment, not a wait for anything
        log.info("%d of %d placements were written", self._placed() - before, jobs)

    def stop(self, leader: Operator, other: Operator) -> None:
        """Stop the leader until the other writes placements too, other ones, then let it go on: it must end by itself."""
        with paused(leader):
            self._delete_some()
            self._live.wait(lambda: leads(other), "the other leads")
            most = min(self.quota, len(self._history.now().jobs))
            some = self._dice.randint(min(self._placed() + CONNECTIONS, most), most)
            self._history.wait(lambda now: placed(now) >= some, "the other has written placements")
        self._live.wait(lambda: not leader.running, "the former leader has ended")
        leader.stop()  # waits until the supervisor knows, too
        assert "leads no longer, and ends" in leader.log()

    def kill(self, leader: Operator, other: Operator) -> None:
        leader.kill()
        self._live.wait(lambda: leads(other), "the other leads")

    def _delete_some(self) -> None:
        """Delete some jobs that wait."""
        jobs = self._history.now().jobs.values()
        waiting = sorted(job["metadata"]["name"] for job in jobs if not job["status"].get("placement"))
        for name in self._dice.sample(waiting, GONE):
            self._live.delete("dljobs", name, propagation="Background")

    def _placed(self) -> int:
        return placed(self._history.now())


def test_leader_that_is_stopped_continued_or_killed_outruns_nobody(crowd: Live, cluster: LocalCluster) -> None:
    with two_operators(cluster) as (leader, other), History(cluster) as history:
        attack = Attack(crowd, history, random.Random(20180626))
        for number in range(ROUNDS):
            attack.release(JOBS // ROUNDS)
            (attack.stop if number % 2 == 0 else attack.kill)(leader, other)
            leader.start()
            leader, other = other, leader
        history.wait(lambda now: set(now.phases()) == {"Running"}, "all jobs run")
        for state in history.states():
            assert not state.given_twice(), f"{state.changed}: {state.given_twice()}"
            assert not state.not_whole(), state.not_whole()
            assert not elsewhere(state), elsewhere(state)
        at = {pod["metadata"]["name"]: where(pod) for pod in crowd.pods()}
        for job in crowd.items("dljobs"):
            (place,) = job["status"]["placement"]
            assert at.pop(place["pod"]) == (place["node"], place["gpus"])
            told = [(event["event"], event["message"]) for event in job["status"]["timeline"]]
            assert [event for event, _ in told] == ["Queued", "Admitted", "Running"], f"{place['pod']}: {told}"
        assert not at, "every pod is of a placement"


def test_former_leader_that_does_not_end_writes_nothing_more(few: Live, cluster: LocalCluster) -> None:
    """Some of its placements are still to be sent when it goes on: every one of them is refused by its own client."""
    leader = Lingering(cluster)
    with in_place(cluster, leader), History(cluster) as history:
        few.patch("dlqueues", QUEUE, {"spec": {"gpus": PENDING}})
        history.wait(placed, "placements are being written")
        with paused(leader):
            time.sleep(Terms().duration)  # the lease runs out, and what was sent before arrives
            before = written(few)
        few.wait(lambda: "could not be written" in leader.log() or written(few) != before, "it goes on")
        assert written(few) == before
        assert "leads no longer" in leader.log()
        assert 0 < placed(history.now()) < PENDING
        leader.kill()


def written(live: Live) -> Json:
    """What an operator has written, by kind and name: the version of each job, and which pods there are."""
    jobs = {f"dljobs/{job['metadata']['name']}": job["metadata"]["resourceVersion"] for job in live.items("dljobs")}
    return jobs | {f"pods/{pod['metadata']['name']}": pod["metadata"]["uid"] for pod in live.pods()}
