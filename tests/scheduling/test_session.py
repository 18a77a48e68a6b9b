"""The board: what the decisions of a pass make of the gangs."""

from __future__ import annotations

from builders.cluster import gang, node, running, world
from builders.sessions import session, turning
from muster.scheduling.decisions import Preempt, Reason, Resume, Wait
from muster.scheduling.gang import Assigned, Gang
from muster.scheduling.session import Session
from muster.scheduling.snapshot import Snapshot


def two() -> Session:
    """A gang that runs on GPU 0, and one that waits for its turn there."""
    gangs = [turning("a", ("n", [0])), turning("b", ("n", [0]), running=False)]
    return session([node("n", 2)], gangs, now=60.0)


def test_idle_is_where_nobody_has_a_place_and_free_where_nobody_runs() -> None:
    seen = two()
    assert (seen.idle("n"), seen.free("n")) == (0b10, 0b10)
    seen.suspend(seen.gangs["a"], Reason.TIME_SLICED, "so")
    assert (seen.idle("n"), seen.free("n")) == (0b10, 0b11)


def test_service_is_counted_up_to_now() -> None:
    seen = two()
    after = seen.requeue(seen.gangs["a"], Reason.TIME_SLICED, "so")
    assert (after.attained, after.since, after.placement) == (60.0, 60.0, ())


def test_gpus_on_which_others_have_a_place_are_not_idle_when_one_goes() -> None:
    seen = two()
    seen.requeue(seen.gangs["a"], Reason.TIME_SLICED, "so")
    assert seen.capacity.free["n"] == seen.idle("n") == 0b10


def test_quotas_follow_the_decisions() -> None:
    seen = session([node("n", 2)], [running("a", ("n", [0]), queue="q"), gang("b", queue="q")], queues={"q": 1})
    assert not seen.quotas.allows(seen.gangs["b"], 1)
    seen.requeue(seen.gangs["a"], Reason.PREEMPTED, "so")
    assert seen.quotas.allows(seen.gangs["b"], 1)


def test_who_is_on_its_way_out_keeps_its_gpus_in_this_pass_from_everybody() -> None:
    victim: Gang = turning("a", ("n", [0]))
    high = gang("high", priority=5)
    before = session([node("n", 1)], [victim, high])
    seen = Snapshot(before.nodes, tuple(before.gangs.values()))
    after = Session(seen, 0.0, [Preempt(high, (victim,), Reason.PREEMPTING, "so")])
    assert after.idle("n") == 0
    assert not after.gangs["a"].sharing.slices


def test_what_is_kept_stays_so_whoever_comes_and_goes_on_the_node() -> None:
    there, first = turning("there", ("n", [0])), gang("first", 1, 2)
    seen = world([node("n", 3)], [there, first])
    keeps = (Assigned(first.tasks[0], "n", 0b110),)
    for decided in (Preempt(first, (), Reason.PREEMPTING, "so", keeps), Wait(first, Reason.PODS_STOPPING, "so", keeps=keeps)):
        found = Session(seen, 60.0, [decided])
        found.requeue(there, Reason.TIME_SLICED, "so")
        assert found.capacity.free["n"] == found.idle("n") == 0b001


def test_who_goes_on_is_packed_as_before() -> None:
    gangs = [turning("a", ("n", [0])), turning("b", ("n", [0]), packed="a", running=False)]
    seen = session([node("n", 1)], gangs, now=60.0)
    assert seen.put(Resume(gangs[1], gangs[1].placement, Reason.TIME_SLICED, "so")).packed == "a"
