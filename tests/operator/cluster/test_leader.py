"""Two operators and one Lease: the leader is killed under load, or told to go, and the other goes on where it was."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from builders.history import History
from builders.live import Live, Operator

pytestmark = pytest.mark.cluster
log = logging.getLogger(__name__)

LEASE = "kube-system/muster-operator"
PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/muster-operator"
JOBS = 50


@pytest.fixture
def pair(live: Live, operator: Operator) -> Iterator[tuple[Operator, Operator]]:
    """Two operators in place of the one without a Lease: the first leads, the second stands by."""
    operator.kill()
    both = [Operator(live.cluster, f"operator-{name}", f"--lease={LEASE}") for name in "ab"]
    for each in both:
        each.start()
    live.wait(lambda: leads(both[0]), "the first leads")
    yield both[0], both[1]
    for each in both:
        each.stop()
        assert "Traceback" not in each.log(), each.log()
    if live.cluster.exists(PATH):
        live.cluster.api.delete(PATH)
    operator.start()


def leads(operator: Operator) -> bool:
    return operator.metric("muster_operator_leader") == 1.0


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
