"""The session: what the decisions of a pass make of gangs, GPUs and quotas."""

from __future__ import annotations

import pytest

from builders.cluster import gang, node, running
from builders.sessions import session, turning
from muster.scheduling.decisions import VERBS, Preempt, Reason, Requeue, Resume, Suspend, Wait
from muster.scheduling.gang import Assigned
from muster.scheduling.session import NotExecutable, Session
from muster.scheduling.settings import Settings


def two() -> Session:
    """A gang that runs on GPU 0, and one that waits for its turn there."""
    gangs = [turning("a", ("n", [0])), turning("b", ("n", [0]), running=False)]
    return session([node("n", 2)], gangs, now=60.0)


def requeue(session: Session, name: str) -> None:
    session.apply(Requeue(session.gangs[name], Reason.TIME_SLICED, "so"))


def test_idle_gpus_have_no_placement_and_unused_ones_no_running_gang() -> None:
    seen = two()
    assert (seen.idle("n"), seen.unused("n")) == (0b10, 0b10)
    seen.apply(Suspend(seen.gangs["a"], Reason.TIME_SLICED, "so"))
    assert (seen.idle("n"), seen.unused("n")) == (0b10, 0b11)


def test_service_is_counted_up_to_now() -> None:
    seen = two()
    requeue(seen, "a")
    after = seen.gangs["a"]
    assert (after.attained, after.since, after.placement) == (60.0, 60.0, ())


def test_gpus_with_another_placement_are_not_idle_when_one_gang_leaves() -> None:
    seen = two()
    requeue(seen, "a")
    assert seen.capacity.free["n"] == seen.idle("n") == 0b10


def test_quotas_follow_the_decisions() -> None:
    seen = session([node("n", 2)], [running("a", ("n", [0]), queue="q"), gang("b", queue="q")], queues={"q": 1})
    assert not seen.quotas.allows(seen.gangs["b"], 1)
    requeue(seen, "a")
    assert seen.quotas.allows(seen.gangs["b"], 1)


def test_gpus_of_a_preempted_gang_are_kept_from_everybody_in_the_same_pass() -> None:
    victim, high = turning("a", ("n", [0])), gang("high", priority=5)
    seen = session([node("n", 1)], [victim, high])
    seen.apply(Preempt(high, (victim,), Reason.PREEMPTING, "so"))
    assert seen.idle("n") == 0
    assert not seen.gangs["a"].sharing.slices


@pytest.mark.parametrize("verb", [Preempt, Wait])
def test_kept_gpus_stay_kept_whichever_gang_leaves_the_node(verb: type[Preempt | Wait]) -> None:
    there, first = turning("there", ("n", [0])), gang("first", 1, 2)
    keeps = (Assigned(first.tasks[0], "n", 0b110),)
    seen = session([node("n", 3)], [there, first], now=60.0)
    if verb is Preempt:
        seen.apply(Preempt(first, (), Reason.PREEMPTING, "so", keeps))
    else:
        seen.apply(Wait(first, Reason.PODS_STOPPING, "so", keeps=keeps))
    requeue(seen, "there")
    assert seen.capacity.free["n"] == seen.idle("n") == 0b001


def test_resumed_gang_is_packed_as_before() -> None:
    gangs = [turning("a", ("n", [0])), turning("b", ("n", [0]), packed="a", running=False)]
    seen = session([node("n", 1)], gangs, now=60.0)
    seen.apply(Resume(gangs[1], gangs[1].placement, Reason.TIME_SLICED, "so"))
    assert seen.gangs["b"].packed == "a"


def test_decision_that_the_caller_cannot_execute_is_refused() -> None:
    seen = session([node("n", 1)], [turning("a", ("n", [0]))], settings=Settings(verbs=VERBS - {Suspend}))
    with pytest.raises(NotExecutable, match="Suspend of a is not among the caller's verbs"):
        seen.apply(Suspend(seen.gangs["a"], Reason.TIME_SLICED, "so"))
    assert seen.decisions == []
    assert seen.gangs["a"].running
