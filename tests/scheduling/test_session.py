"""The session: what the decisions of a pass make of gangs, GPUs and quotas."""

from __future__ import annotations

import pytest

from builders.cluster import gang, node, running
from builders.sessions import session_of, turning
from muster.scheduling.decisions import VERBS, Migrate, Move, Preempt, Reason, Requeue, Resize, Resume, Suspend, Wait
from muster.scheduling.gang import Assigned
from muster.scheduling.session import ForbiddenVerb, Session
from muster.scheduling.settings import Settings


def two() -> Session:
    """A gang that runs on GPU 0, and one that waits for its turn there."""
    gangs = [turning("a", ("n", [0])), turning("b", ("n", [0]), running=False)]
    return session_of([node("n", 2)], gangs, now=60.0)


def requeue(session: Session, name: str) -> None:
    session.apply(Requeue(session.gangs[name], Reason.TIME_SLICED, "so"))


def test_idle_gpus_have_no_placement_and_unused_ones_no_running_gang() -> None:
    session = two()
    assert (session.idle("n"), session.unused("n")) == (0b10, 0b10)
    session.apply(Suspend(session.gangs["a"], Reason.TIME_SLICED, "so"))
    assert (session.idle("n"), session.unused("n")) == (0b10, 0b11)


def test_service_is_counted_up_to_now() -> None:
    session = two()
    requeue(session, "a")
    after = session.gangs["a"]
    assert (after.attained, after.since, after.placement) == (60.0, 60.0, ())


def test_gpus_with_another_placement_are_not_idle_when_one_gang_leaves() -> None:
    session = two()
    requeue(session, "a")
    assert session.capacity.free["n"] == session.idle("n") == 0b10


def test_quotas_follow_the_decisions() -> None:
    session = session_of([node("n", 2)], [running("a", ("n", [0]), queue="q"), gang("b", queue="q")], queues={"q": 1})
    assert not session.quotas.allows(session.gangs["b"], 1)
    requeue(session, "a")
    assert session.quotas.allows(session.gangs["b"], 1)


def test_gpus_of_a_preempted_gang_are_kept_from_everybody_in_the_same_pass() -> None:
    victim, high = turning("a", ("n", [0])), gang("high", priority=5)
    session = session_of([node("n", 1)], [victim, high])
    session.apply(Preempt(high, (victim,), Reason.PREEMPTING, "so"))
    assert session.idle("n") == 0
    assert not session.gangs["a"].sharing.slices


@pytest.mark.parametrize("verb", [Preempt, Wait])
def test_kept_gpus_stay_kept_whichever_gang_leaves_the_node(verb: type[Preempt | Wait]) -> None:
    there, first = turning("there", ("n", [0])), gang("first", 1, 2)
    keeps = (Assigned(first.tasks[0], "n", 0b110),)
    session = session_of([node("n", 3)], [there, first], now=60.0)
    if verb is Preempt:
        session.apply(Preempt(first, (), Reason.PREEMPTING, "so", keeps))
    else:
        session.apply(Wait(first, Reason.PODS_STOPPING, "so", keeps=keeps))
    requeue(session, "there")
    assert session.capacity.free["n"] == session.idle("n") == 0b001


def test_resumed_gang_is_packed_as_before() -> None:
    gangs = [turning("a", ("n", [0])), turning("b", ("n", [0]), packed="a", running=False)]
    session = session_of([node("n", 1)], gangs, now=60.0)
    session.apply(Resume(gangs[1], gangs[1].placement, Reason.TIME_SLICED, "so"))
    assert session.gangs["b"].packed == "a"


def test_decision_that_the_caller_cannot_execute_is_refused() -> None:
    session = session_of([node("n", 1)], [turning("a", ("n", [0]))], settings=Settings(verbs=VERBS - {Suspend}))
    with pytest.raises(ForbiddenVerb, match="Suspend of a is not among the caller's verbs"):
        session.apply(Suspend(session.gangs["a"], Reason.TIME_SLICED, "so"))
    assert session.decisions == []
    assert session.gangs["a"].running


@pytest.mark.parametrize("verb", [Move, Resize])
def test_gpus_that_a_gang_leaves_with_its_pods_are_not_idle_in_the_same_pass(verb: type[Move | Resize]) -> None:
    """Its pods still run there; those of a migrated gang are stopped first."""
    mover = running("a", ("m", [0]))
    elsewhere = (mover.placement[0]._replace(node="n"),)
    session = session_of([node("m", 2), node("n", 2)], [mover])
    session.apply(verb(mover, elsewhere, Reason.MIGRATED, "so"))
    assert (session.idle("m"), session.idle("n")) == (0b10, 0b10)
    other = session_of([node("m", 2), node("n", 2)], [mover])
    other.apply(Migrate(mover, elsewhere, Reason.BALANCED, "so"))
    assert (other.idle("m"), other.idle("n")) == (0b11, 0b10)


def test_unhealthy_gpu_is_not_idle_once_its_gang_has_left() -> None:
    session = session_of([node("n", 2, healthy=0b10)], [turning("a", ("n", [0, 1]))])
    requeue(session, "a")
    assert (session.idle("n"), session.capacity.total) == (0b10, 1)
