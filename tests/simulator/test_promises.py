"""The rules that every answer is held to: each finds the fault that it is there for, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from builders.cluster import gang, node, running, world
from builders.sessions import PACKS, TURNS, turning
from muster.scheduling.decisions import (
    AnyAssignment,
    Decision,
    Grow,
    Join,
    Migrate,
    Pack,
    Place,
    Preempt,
    Reason,
    Requeue,
    Resume,
    Shrink,
    Unpack,
    Wait,
)
from muster.scheduling.gang import Assigned, Effect, Gang
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.links import gpu_set
from muster.scheduling.topology.node import Level, Node
from muster.simulator.checked import Broken, Checked
from muster.simulator.outcome import Outcome
from muster.simulator.promises import (
    given_twice,
    idle_in_vain,
    in_the_way,
    not_shrunk,
    over_quota,
    overridden,
    torn,
    unexplained,
)

Rule = Callable[[Outcome], Iterator[str]]
SERVER = [node("n", 2)]
NEW = gang("new", sharing=TURNS)
PAIR = gang("pair", 2, sharing=TURNS)
RUNS = turning("runs", ("n", [0]))
QUEUED = turning("queued", ("n", [0]), running=False)
MINE = running("mine", ("n", [0]))
GROWN = replace(turning("grown", ("n", [0]), ("n", [1])), asked=1, fewest=1)


def put(found: Gang, *shares: tuple[str, Iterable[int]], verb: Any = Place, **fields: Any) -> AnyAssignment:
    """The decision to put the first tasks of a gang there."""
    placement = tuple(Assigned(found.tasks[i], where, gpu_set(list(gpus)), i) for i, (where, gpus) in enumerate(shares))
    made: AnyAssignment = verb(found, placement, Reason.PLACED, fields.pop("message", "so"), **fields)
    return made


def suspended(found: Gang) -> Requeue:
    return Requeue(found, Reason.PREEMPTED, "so")


def waits(found: Gang) -> Wait:
    return Wait(found, Reason.INSUFFICIENT_GPUS, "so")


def found_by(
    rule: Rule,
    gangs: Sequence[Gang],
    *decisions: Decision,
    nodes: Sequence[Node] = SERVER,
    queues: dict[str, int | None] | None = None,
) -> bool:
    """Whether the rule finds fault with these decisions."""
    return any(rule(Outcome(world(nodes, gangs, queues), 100.0, decisions)))


def test_a_decision_has_a_sentence_and_figures_that_are_numbers() -> None:
    assert found_by(unexplained, [NEW], put(NEW, ("n", [0]), message=""))
    assert found_by(unexplained, [NEW], put(NEW, ("n", [0]), effect=Effect(1.0, float("nan"))))
    assert found_by(unexplained, [], waits(NEW))
    assert not found_by(unexplained, [NEW], put(NEW, ("n", [0]), effect=Effect(1.0, 2.0)))


def test_a_gang_is_put_whole() -> None:
    assert found_by(torn, [PAIR], put(PAIR, ("n", [0])))
    assert not found_by(torn, [PAIR], put(PAIR, ("n", [0]), ("n", [1])))
    elastic = replace(PAIR, fewest=1)
    assert not found_by(torn, [elastic], put(elastic, ("n", [0])))


def test_a_task_has_the_gpus_that_it_asks_for() -> None:
    assert found_by(torn, [NEW], put(NEW, ("n", [0, 1])))


def test_a_gang_is_as_near_as_it_must_be() -> None:
    far = [node("m", 1, rack="r0"), node("n", 1, rack="r1")]
    near = replace(PAIR, required=Level.RACK)
    assert found_by(torn, [near], put(near, ("m", [0]), ("n", [0])), nodes=far)
    assert not found_by(torn, [PAIR], put(PAIR, ("m", [0]), ("n", [0])), nodes=far)


def test_no_gpu_is_given_twice() -> None:
    assert found_by(given_twice, [RUNS, NEW], put(NEW, ("n", [0])))
    assert found_by(given_twice, [NEW, PAIR], put(NEW, ("n", [0])), put(PAIR, ("n", [0]), ("n", [1])))
    assert not found_by(given_twice, [RUNS, NEW], put(NEW, ("n", [0]), verb=Join))


def test_decisions_are_possible_in_their_order() -> None:
    assert found_by(given_twice, [RUNS, NEW], put(NEW, ("n", [0])), suspended(RUNS))
    assert not found_by(given_twice, [RUNS, NEW], suspended(RUNS), put(NEW, ("n", [0])))


def test_only_packed_gangs_are_together_and_only_with_those_they_are_packed_onto() -> None:
    gangs = [replace(RUNS, sharing=PACKS), replace(NEW, sharing=PACKS)]
    assert not found_by(given_twice, gangs, put(gangs[1], ("n", [0]), verb=Pack, onto="runs"))
    assert found_by(given_twice, gangs, put(gangs[1], ("n", [0]), verb=Pack, onto="another"))


def test_no_gpu_is_given_that_is_out_of_order_or_of_others() -> None:
    assert found_by(given_twice, [NEW], put(NEW, ("n", [1])), nodes=[node("n", 2, healthy=0b01)])
    assert found_by(given_twice, [NEW], put(NEW, ("n", [1])), nodes=[node("n", 2, free=1)])


def test_quotas_are_kept_by_every_put() -> None:
    there, new = replace(RUNS, queue="q"), replace(NEW, queue="q")
    assert found_by(over_quota, [there, new], put(new, ("n", [1])), queues={"q": 1})
    assert found_by(over_quota, [there, new], put(new, ("n", [0]), verb=Join), queues={"q": 1})
    assert not found_by(over_quota, [there, new], suspended(there), put(new, ("n", [1])), queues={"q": 1})


def test_nobody_is_suspended_for_a_lower_priority() -> None:
    high = replace(RUNS, priority=5)
    small = [node("n", 1)]
    assert found_by(overridden, [high, NEW], suspended(high), put(NEW, ("n", [0])), nodes=small)
    assert not found_by(overridden, [RUNS, NEW], suspended(RUNS), put(NEW, ("n", [0])), nodes=small)


def test_nobody_is_suspended_for_nobody() -> None:
    assert found_by(overridden, [RUNS], suspended(RUNS))


def test_what_is_left_by_who_moves_comes_free_after_the_pass() -> None:
    nodes = [node("m", 1), node("n", 3)]
    pair, other = turning("pair", ("n", [0]), ("n", [1])), turning("other", ("n", [2]))
    turn = suspended(pair), put(QUEUED, ("n", [0]), verb=Resume)
    assert not found_by(overridden, [pair, QUEUED, other], *turn, put(other, ("m", [0]), verb=Migrate), nodes=nodes)
    assert found_by(overridden, [pair, QUEUED], *turn, nodes=nodes)


def test_victims_are_of_lower_priority() -> None:
    assert found_by(overridden, [MINE, NEW], Preempt(NEW, (MINE,), Reason.PREEMPTING, "so"))
    high = replace(NEW, priority=5)
    assert not found_by(overridden, [MINE, high], Preempt(high, (MINE,), Reason.PREEMPTING, "so"))


def test_nobody_waits_for_gpus_that_are_idle() -> None:
    assert found_by(idle_in_vain, [RUNS, NEW], waits(NEW))
    assert not found_by(idle_in_vain, [RUNS, PAIR], waits(PAIR))
    assert not found_by(idle_in_vain, [RUNS, replace(NEW, not_before=200.0)])
    assert not found_by(idle_in_vain, [RUNS, replace(NEW, queue="q")], waits(NEW), queues={"q": 0})


def test_nobody_waits_for_a_turn_while_its_gpus_are_free() -> None:
    assert found_by(idle_in_vain, [QUEUED])
    assert not found_by(idle_in_vain, [QUEUED, RUNS], nodes=[node("n", 1)])


def test_turns_are_taken_among_those_who_take_turns() -> None:
    small = [node("n", 1)]
    assert found_by(in_the_way, [MINE, NEW], put(NEW, ("n", [0]), verb=Join), nodes=small)
    assert not found_by(in_the_way, [RUNS, NEW], put(NEW, ("n", [0]), verb=Join), nodes=small)


def test_who_grew_shrinks_when_others_wait() -> None:
    assert found_by(not_shrunk, [GROWN, NEW], waits(NEW))
    assert not found_by(not_shrunk, [GROWN, NEW], put(GROWN, ("n", [0]), verb=Shrink), waits(NEW))
    assert found_by(not_shrunk, [RUNS], put(RUNS, ("n", [0]), verb=Grow))


def test_who_comes_after_one_that_starts_is_asked_in_the_next_pass() -> None:
    first, second = gang("first", arrived=0.0), gang("second", arrived=1.0)
    nodes = [node("n", 3)]
    assert not found_by(not_shrunk, [GROWN, first, second], put(first, ("n", [2])), waits(second), nodes=nodes)
    assert found_by(not_shrunk, [GROWN, second], waits(second), nodes=nodes)


class Says:
    """A policy that answers each snapshot as it is told."""

    period: float | None = 60.0

    def __init__(self, answer: Callable[[Snapshot], Sequence[Decision]]) -> None:
        self._answer = answer

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:  # noqa: ARG002 (the protocol's)
        return self._answer(snapshot)

    introspect = react


def test_a_fault_breaks_the_promise() -> None:
    checked = Checked(lambda: Says(lambda _: [put(NEW, ("n", [0]))]))
    with pytest.raises(Broken, match="given_twice: new is put on"):
        checked.react(world(SERVER, [RUNS, NEW]), 0.0)


def test_an_answer_rests_on_nothing_but_the_snapshot() -> None:
    said = iter(("so", "otherwise"))
    checked = Checked(lambda: Says(lambda _: [waits(NEW)._replace(message=next(said))]))
    with pytest.raises(Broken, match="undecided: Wait new: so, and asked again Wait new: otherwise"):
        checked.react(world([node("n", 1)], [RUNS, NEW]), 0.0)


def test_the_order_of_the_snapshot_decides_nothing() -> None:
    checked = Checked(lambda: Says(lambda seen: [waits(next(gang for gang in seen.gangs if not gang.placement))]))
    with pytest.raises(Broken, match="undecided: Wait new: so, and asked again Wait pair: so"):
        checked.react(world([node("n", 1)], [RUNS, NEW, PAIR]), 0.0)


def test_a_snapshot_is_not_changed() -> None:
    checked = Checked(lambda: Says(lambda seen: seen.nodes.clear()))  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="clear"):
        checked.react(world(SERVER, [RUNS]), 0.0)


@pytest.mark.parametrize(("back", "restored"), [(1, True), (0, False)])
def test_undo_restores_the_state(back: int, restored: bool) -> None:
    """The guest waited for its turn on GPU 1, was packed onto GPU 0, and goes back."""
    host, other = replace(RUNS, sharing=PACKS), turning("other", ("n", [1]))
    guest = turning("guest", ("n", [1]), sharing=PACKS, running=False)
    pack, unpack = put(guest, ("n", [0]), verb=Pack, onto="runs"), put(guest, ("n", [back]), verb=Unpack)
    packed = replace(guest, placement=pack.placement, running=True, packed="runs")
    checked = Checked(lambda: Says(lambda seen: [unpack if packed in seen.gangs else pack]))
    checked.introspect(world(SERVER, [host, other, guest]), 0.0)
    after = world(SERVER, [host, other, packed])
    if restored:
        assert checked.introspect(after, 60.0) == [unpack]
    else:
        with pytest.raises(Broken, match="not_undone: guest"):
            checked.introspect(after, 60.0)


@pytest.mark.parametrize(("weight", "bound"), [(1.0, 6), (3.0, 12)])
def test_nobody_is_passed_over_more_often_than_the_turns_of_the_others_explain(weight: float, bound: int) -> None:
    heavy = replace(RUNS, sharing=replace(TURNS, weight=weight))
    seen = world([node("n", 1)], [heavy, QUEUED])
    checked = Checked(lambda: Says(lambda _: []))
    for number in range(bound):
        checked.introspect(seen, 60.0 * number)
    with pytest.raises(Broken, match=f"starved: queued was passed over {bound + 1} times, and may be {bound} times"):
        checked.introspect(seen, 60.0 * bound)


def test_who_has_no_place_comes_in_the_end() -> None:
    seen = world([node("n", 1)], [RUNS, NEW])
    checked = Checked(lambda: Says(lambda _: [waits(NEW)]))
    for number in range(22):
        checked.introspect(seen, 60.0 * number)
    with pytest.raises(Broken, match="starved: new was passed over 23 times, and may be 22 times"):
        checked.introspect(seen, 60.0 * 22)


def test_who_waits_for_a_higher_priority_is_not_counted() -> None:
    seen = world([node("n", 1)], [replace(RUNS, priority=5), NEW])
    checked = Checked(lambda: Says(lambda _: [waits(NEW)]))
    for number in range(100):
        checked.introspect(seen, 60.0 * number)


def test_who_is_asked_without_end_in_one_moment_is_restless() -> None:
    checked, seen = Checked(lambda: Says(lambda _: [waits(NEW)])), world([node("n", 1, free=0)], [RUNS, NEW])
    for second in range(20):
        checked.react(seen, float(second))
    for _ in range(12):
        checked.react(seen, 50.0)
    with pytest.raises(Broken, match="restless: asked 13 times at 50 s, with 2 gangs"):
        checked.react(seen, 50.0)


def test_who_ran_between_two_passes_was_not_passed_over() -> None:
    crowded, alone = world([node("n", 1)], [RUNS, QUEUED]), world([node("n", 1)], [QUEUED])
    checked = Checked(lambda: Says(lambda seen: [put(QUEUED, ("n", [0]), verb=Resume)] if seen == alone else []))
    for number in range(6):
        checked.introspect(crowded, 60.0 * number)
    checked.react(alone, 330.0)
    checked.introspect(crowded, 360.0)


def test_who_waited_in_a_crowd_may_have_waited_long() -> None:
    crowd = [RUNS, QUEUED, turning("third", ("n", [0]), running=False)]
    checked = Checked(lambda: Says(lambda _: []))
    for number in range(9):
        checked.introspect(world([node("n", 1)], crowd[: 3 if number < 8 else 2]), 60.0 * number)
    with pytest.raises(Broken, match="starved: queued was passed over 10 times, and may be 9 times"):
        checked.introspect(world([node("n", 1)], crowd[:2]), 540.0)
