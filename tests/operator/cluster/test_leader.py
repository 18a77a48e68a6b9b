"""Two operators and one Lease: the leader is killed under load, or told to go, and the other goes on where it was."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from builders.history import History
from builders.leaders import PATH, leads, two_operators
from builders.live import Live
from builders.live_processes import Operator

pytestmark = pytest.mark.cluster
log = logging.getLogger(__name__)

JOBS = 50


@pytest.fixture
def pair(live: Live) -> Iterator[tuple[Operator, Operator]]:
    with two_operators(live.cluster) as both:
        yield both


def test_standby_takes_over_when_the_leader_is_killed(live: Live, pair: tuple[Operator, Operator]) -> None:
    first, second = pair
    assert (leads(second), second.page("/readyz")) == (False, "ok")
    with History(live.cluster) as history:
        with ThreadPoolExecutor(4) as pool:
            submitted = [pool.submit(partial(live.job, f"j{number}", 2, 1, run=1)) for number in range(JOBS)]
            history.wait(lambda now: "Admitted" in now.phases() or "Running" in now.phases(), "the first jobs are admitted")
            first.kill()
            killed = time.time()
            for each in submitted:
                each.result()
        live.wait(lambda: leads(second), "the other leads")
        history.wait(lambda now: now.phases().count("Succeeded") == JOBS, "all jobs have run")
        admissions: dict[str, set[int]] = {}
        resumed = float("inf")
        for state in history.states():
            assert not state.given_twice(), f"{state.changed}: {state.given_twice()}"
            assert not state.not_whole(), state.not_whole()
            kind, name = state.changed.split("/", 1)
            status = state.status(name) if kind == "dljobs" else {}
            if status.get("phase") == "Admitted":
                admissions.setdefault(name, set()).add(status["attempt"])
                resumed = min(resumed, state.seen) if state.seen > killed + 1.0 else resumed
    assert len(admissions) == JOBS
    assert set(map(tuple, admissions.values())) == {(1,)}, "each is admitted once"
    for job in live.items("dljobs"):
        assert job["status"].get("requeues", 0) == job["status"].get("restarts", 0) == 0
    log.info("from the kill to the first admission after it: %.1f s", resumed - killed)


def test_stopped_leader_hands_the_lease_over(live: Live, pair: tuple[Operator, Operator]) -> None:
    first, second = pair
    live.job("before", 2, 1)
    live.wait_running("before", 2)
    led = live.cluster.api.get(PATH)["spec"]["holderIdentity"]
    begun = time.monotonic()
    first.stop()
    assert live.cluster.api.get(PATH)["spec"].get("holderIdentity") != led, "it handed the lease back before it ended"
    live.wait(lambda: leads(second), "the other leads")
    took = time.monotonic() - begun
    live.job("after", 2, 1)
    live.wait_running("after", 2)
    assert live.status("before")["attempt"] == 1
    first.start()
    assert not leads(first)
    log.info("from SIGTERM to the other leading: %.1f s", took)


def test_leader_that_cannot_renew_ends(live: Live, pair: tuple[Operator, Operator]) -> None:
    """Somebody else holds the lease all at once: it must not do anything more, and the other waits for that one's time."""
    first, second = pair
    live.cluster.api.patch(PATH, {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 1}})
    live.wait(lambda: not first.running, "the leader that was robbed has ended")
    assert "leads no longer, and ends: somebody has taken the lease" in first.log()
    live.wait(lambda: leads(second), "the other leads when that lease is over")
    first.start()
