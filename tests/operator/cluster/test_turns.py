"""Whose turn it is: quotas, priority before arrival, backfill that delays nobody, preemption."""

from __future__ import annotations

import pytest

from builders.history import History
from builders.live import Live

pytestmark = pytest.mark.cluster

TEN_HOURS = 36_000.0


def test_queue_holds_no_more_than_its_quota(live: Live) -> None:
    live.create("dlqueues", {"metadata": {"name": "small"}, "spec": {"gpus": 4}})
    live.create("dlqueues", {"metadata": {"name": "other"}})
    live.job("first", 2, 2, queue="small")
    live.wait_running("first", 2)
    live.job("second", 1, 1, queue="small")
    live.job("never", 1, 5, queue="small")
    live.job("elsewhere", 1, 4, queue="other")
    message = live.wait_reason("second", "QuotaExhausted")
    assert message == f"needs 1 GPU; queue {live.namespace}/small uses 4 of 4 GPUs"
    assert "may never hold more than 4" in live.wait_reason("never", "OverQuota")
    live.wait_running("elsewhere", 1)
    expected = {"gpusInUse": 4, "pending": 2, "running": 1}
    live.wait(lambda: expected.items() <= live.get("dlqueues", "small").get("status", {}).items(), "the queue tells the same")

    live.let_end("first")
    live.wait_running("second", 1)
    live.patch("dlqueues", "small", {"spec": {"gpus": 6}})
    live.wait_running("never", 1)


def test_bare_pods_count_against_the_default_queue(live: Live) -> None:
    live.create("dlqueues", {"metadata": {"name": "default"}, "spec": {"gpus": 2}})
    live.pod("bare", 2)
    live.wait_pods(1, "Running")
    live.job("waits", 1, 1)
    assert "uses 2 of 2 GPUs" in live.wait_reason("waits", "QuotaExhausted")
    live.delete("pods", "bare")
    live.wait_running("waits", 1)


def test_priority_goes_first_and_then_arrival(live: Live) -> None:
    live.add_nodes(1)
    live.job("runs", 1, 8, priority=9, pool=live.namespace)
    live.wait_running("runs", 1)
    live.job("z-early", 1, 8, run=0, pool=live.namespace)
    live.wait_past("z-early")
    live.job("a-late", 1, 8, run=0, pool=live.namespace)
    live.job("m-urgent", 1, 8, run=0, priority=5, pool=live.namespace)
    for job in ("z-early", "a-late", "m-urgent"):
        live.wait(lambda job=job: live.status(job).get("phase") == "Queued", f"{job} waits")  # type: ignore[misc]
    with History(live.cluster) as history:
        live.let_end("runs")
        history.wait(lambda now: now.phases().count("Succeeded") == 4, "all have run")
        order: list[str] = []
        for state in history.states():
            name = state.changed.removeprefix(f"dljobs/{live.namespace}/")
            if name in ("z-early", "a-late", "m-urgent") and state.status(f"{live.namespace}/{name}").get("placement"):
                order += [name] * (name not in order)
    assert order == ["m-urgent", "z-early", "a-late"]


def test_backfill_cannot_delay_the_head(live: Live) -> None:
    live.add_nodes(1)
    live.job("runs", 1, 6, pool=live.namespace)
    live.wait_running("runs", 1)
    live.job("head", 1, 8, pool=live.namespace)
    message = live.wait_reason("head", "InsufficientGPUs")
    assert "needs 8 GPUs" in message
    assert "2 free on 1" in message
    live.wait_past("head")
    live.job("small", 1, 2, pool=live.namespace)
    assert f"comes after {live.namespace}/head" in live.wait_reason("small", "BehindInQueue")
    live.job("apart", 1, 2)
    live.wait_running("apart", 1)

    live.let_end("runs")
    live.wait_running("head", 1)
    live.let_end("head")
    live.wait_running("small", 1)


def test_gang_of_higher_priority_preempts_lower_ones(live: Live) -> None:
    live.add_nodes(1)
    for name in ("low", "lower"):
        live.job(name, 1, 4, priority=-1, pool=live.namespace)
        live.wait_running(name, 1)
    live.wait_past("lower")
    live.job("equal", 1, 8, priority=-1, pool=live.namespace)
    live.wait_reason("equal", "InsufficientGPUs")
    with History(live.cluster) as history:
        live.job("high", 1, 8, pool=live.namespace)
        live.wait_running("high", 1)
        for state in history.states():
            assert not state.given_twice()
    for name in ("low", "lower"):
        assert "Preempted" in live.timeline(name)
        assert live.status(name)["requeues"] == 1
        assert live.status(name).get("restarts", 0) == 0
    live.let_end("high")
    for name in ("low", "lower"):
        live.wait_running(name, 1)


def test_time_slicing_jobs_take_turns(live: Live) -> None:
    """A job that ran for ten hours before gives way to a new one, and comes back with what it had counted."""
    live.add_nodes(1)
    live.job("long", 1, 8, sharing={"timeSlicing": True}, pool=live.namespace, suspend=True)
    live.wait_phase("long", "Suspended")
    live.patch_status("long", {"gpuSeconds": 8 * TEN_HOURS})
    live.patch("dljobs", "long", {"spec": {"suspend": False}})
    live.wait_running("long", 1)
    with History(live.cluster) as history:
        live.job("new", 1, 8, sharing={"timeSlicing": True}, pool=live.namespace)
        live.wait_running("new", 1)
        for state in history.states():
            assert not state.given_twice()
    assert "Preempted" in live.timeline("long")
    assert live.status("long")["gpuSeconds"] > 8 * TEN_HOURS
    live.let_end("new")
    live.wait_running("long", 1)


def test_gang_takes_no_more_victims_than_it_needs(live: Live) -> None:
    live.add_nodes(2)
    for name in ("a", "b", "c", "d"):
        live.job(name, 1, 4, priority=-1, pool=live.namespace)
        live.wait_running(name, 1)
    live.job("high", 1, 4, pool=live.namespace)
    live.wait_running("high", 1)
    assert sum("Preempted" in live.timeline(name) for name in ("a", "b", "c", "d")) == 1
