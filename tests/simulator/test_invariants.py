"""Invariants of policies: each detects its violation and accepts correct decisions."""

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
from muster.simulator.checked import Checked, InvariantError
from muster.simulator.invariants import (
    blocked_suspended,
    double_booking,
    idle_gpus,
    missing_reason,
    over_quota,
    priority_inversion,
    split_gang,
    unreturned_surplus,
)
from muster.simulator.outcome import Outcome

Invariant = Callable[[Outcome], Iterator[str]]
SERVER = [node("n", 2)]
NEW = gang("new", sharing=TURNS)
PAIR = gang("pair", 2, sharing=TURNS)
RUNS = turning("runs", ("n", [0]))
QUEUED = turning("queued", ("n", [0]), running=False)
EXCLUSIVE = running("exclusive", ("n", [0]))
GROWN = replace(turning("grown", ("n", [0]), ("n", [1])), asked=1, fewest=1)


def put(gang: Gang, *locations: tuple[str, Iterable[int]], verb: Any = Place, **fields: Any) -> AnyAssignment:
    """The decision that places the first tasks of a gang at these locations."""
    placement = tuple(Assigned(gang.tasks[i], name, gpu_set(list(gpus)), i) for i, (name, gpus) in enumerate(locations))
    decision: AnyAssignment = verb(gang, placement, Reason.PLACED, fields.pop("message", "so"), **fields)
    return decision


def suspended(gang: Gang) -> Requeue:
    return Requeue(gang, Reason.PREEMPTED, "so")


def waits(gang: Gang) -> Wait:
    return Wait(gang, Reason.INSUFFICIENT_GPUS, "so")


def violated(
    invariant: Invariant,
    gangs: Sequence[Gang],
    *decisions: Decision,
    nodes: Sequence[Node] = SERVER,
    queues: dict[str, int | None] | None = None,
) -> bool:
    """Whether these decisions violate the invariant."""
    return any(invariant(Outcome(world(nodes, gangs, queues), 100.0, decisions)))


def test_missing_reason_detects_empty_messages_and_nan_effects() -> None:
    assert violated(missing_reason, [NEW], put(NEW, ("n", [0]), message=""))
    assert violated(missing_reason, [NEW], put(NEW, ("n", [0]), effect=Effect(1.0, float("nan"))))
    assert violated(missing_reason, [], waits(NEW))
    assert not violated(missing_reason, [NEW], put(NEW, ("n", [0]), effect=Effect(1.0, 2.0)))


def test_split_gang_detects_a_partial_placement() -> None:
    assert violated(split_gang, [PAIR], put(PAIR, ("n", [0])))
    assert not violated(split_gang, [PAIR], put(PAIR, ("n", [0]), ("n", [1])))
    elastic = replace(PAIR, fewest=1)
    assert not violated(split_gang, [elastic], put(elastic, ("n", [0])))


def test_split_gang_detects_a_task_with_too_many_gpus() -> None:
    assert violated(split_gang, [NEW], put(NEW, ("n", [0, 1])))


def test_split_gang_detects_a_placement_outside_the_required_domain() -> None:
    far = [node("m", 1, rack="r0"), node("n", 1, rack="r1")]
    near = replace(PAIR, required=Level.RACK)
    assert violated(split_gang, [near], put(near, ("m", [0]), ("n", [0])), nodes=far)
    assert not violated(split_gang, [PAIR], put(PAIR, ("m", [0]), ("n", [0])), nodes=far)


def test_double_booking_detects_two_running_gangs_on_a_gpu() -> None:
    assert violated(double_booking, [RUNS, NEW], put(NEW, ("n", [0])))
    assert violated(double_booking, [NEW, PAIR], put(NEW, ("n", [0])), put(PAIR, ("n", [0]), ("n", [1])))
    assert not violated(double_booking, [RUNS, NEW], put(NEW, ("n", [0]), verb=Join))


def test_double_booking_respects_the_order_of_decisions() -> None:
    assert violated(double_booking, [RUNS, NEW], put(NEW, ("n", [0])), suspended(RUNS))
    assert not violated(double_booking, [RUNS, NEW], suspended(RUNS), put(NEW, ("n", [0])))


def test_double_booking_accepts_gangs_packed_onto_each_other_only() -> None:
    gangs = [replace(RUNS, sharing=PACKS), replace(NEW, sharing=PACKS)]
    assert not violated(double_booking, gangs, put(gangs[1], ("n", [0]), verb=Pack, onto="runs"))
    assert violated(double_booking, gangs, put(gangs[1], ("n", [0]), verb=Pack, onto="another"))


def test_double_booking_detects_unhealthy_and_external_gpus() -> None:
    assert violated(double_booking, [NEW], put(NEW, ("n", [1])), nodes=[node("n", 2, healthy=0b01)])
    assert violated(double_booking, [NEW], put(NEW, ("n", [1])), nodes=[node("n", 2, free=1)])


def test_over_quota_detects_a_placement_beyond_the_quota() -> None:
    holder, new = replace(RUNS, queue="q"), replace(NEW, queue="q")
    assert violated(over_quota, [holder, new], put(new, ("n", [1])), queues={"q": 1})
    assert violated(over_quota, [holder, new], put(new, ("n", [0]), verb=Join), queues={"q": 1})
    assert not violated(over_quota, [holder, new], suspended(holder), put(new, ("n", [1])), queues={"q": 1})


def test_priority_inversion_detects_a_gang_suspended_for_a_lower_priority() -> None:
    high = replace(RUNS, priority=5)
    small = [node("n", 1)]
    assert violated(priority_inversion, [high, NEW], suspended(high), put(NEW, ("n", [0])), nodes=small)
    assert not violated(priority_inversion, [RUNS, NEW], suspended(RUNS), put(NEW, ("n", [0])), nodes=small)


def test_priority_inversion_detects_a_suspension_without_a_beneficiary() -> None:
    assert violated(priority_inversion, [RUNS], suspended(RUNS))


def test_priority_inversion_accepts_a_suspension_when_gpus_are_vacated_in_the_same_pass() -> None:
    nodes = [node("m", 1), node("n", 3)]
    pair, other = turning("pair", ("n", [0]), ("n", [1])), turning("other", ("n", [2]))
    turn = suspended(pair), put(QUEUED, ("n", [0]), verb=Resume)
    assert not violated(priority_inversion, [pair, QUEUED, other], *turn, put(other, ("m", [0]), verb=Migrate), nodes=nodes)
    assert violated(priority_inversion, [pair, QUEUED], *turn, nodes=nodes)


def test_priority_inversion_detects_victims_of_equal_priority() -> None:
    assert violated(priority_inversion, [EXCLUSIVE, NEW], Preempt(NEW, (EXCLUSIVE,), Reason.PREEMPTING, "so"))
    high = replace(NEW, priority=5)
    assert not violated(priority_inversion, [EXCLUSIVE, high], Preempt(high, (EXCLUSIVE,), Reason.PREEMPTING, "so"))


def test_idle_gpus_detects_a_waiting_gang_that_fits() -> None:
    assert violated(idle_gpus, [RUNS, NEW], waits(NEW))
    assert not violated(idle_gpus, [RUNS, PAIR], waits(PAIR))
    assert not violated(idle_gpus, [RUNS, replace(NEW, not_before=200.0)])
    assert not violated(idle_gpus, [RUNS, replace(NEW, queue="q")], waits(NEW), queues={"q": 0})


def test_idle_gpus_detects_a_suspended_gang_on_free_gpus() -> None:
    assert violated(idle_gpus, [QUEUED])
    assert not violated(idle_gpus, [QUEUED, RUNS], nodes=[node("n", 1)])


def test_blocked_suspended_detects_a_gang_behind_an_exclusive_one() -> None:
    small = [node("n", 1)]
    assert violated(blocked_suspended, [EXCLUSIVE, NEW], put(NEW, ("n", [0]), verb=Join), nodes=small)
    assert not violated(blocked_suspended, [RUNS, NEW], put(NEW, ("n", [0]), verb=Join), nodes=small)


def test_unreturned_surplus_detects_a_grown_gang_while_others_wait() -> None:
    assert violated(unreturned_surplus, [GROWN, NEW], waits(NEW))
    assert not violated(unreturned_surplus, [GROWN, NEW], put(GROWN, ("n", [0]), verb=Shrink), waits(NEW))
    assert violated(unreturned_surplus, [RUNS], put(RUNS, ("n", [0]), verb=Grow))


def test_unreturned_surplus_considers_only_the_head_of_the_queue() -> None:
    first, second = gang("first", arrived=0.0), gang("second", arrived=1.0)
    nodes = [node("n", 3)]
    assert not violated(unreturned_surplus, [GROWN, first, second], put(first, ("n", [2])), waits(second), nodes=nodes)
    assert violated(unreturned_surplus, [GROWN, second], waits(second), nodes=nodes)


class Scripted:
    """A policy with scripted answers."""

    period: float | None = 60.0

    def __init__(self, answer: Callable[[Snapshot], Sequence[Decision]]) -> None:
        self._answer = answer

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:  # noqa: ARG002 (the protocol's)
        return self._answer(snapshot)

    introspect = react


def test_violation_raises_invariant_error() -> None:
    checked = Checked(lambda: Scripted(lambda _: [put(NEW, ("n", [0]))]))
    with pytest.raises(InvariantError, match="double_booking: new is placed on"):
        checked.react(world(SERVER, [RUNS, NEW]), 0.0)


def test_answer_that_differs_for_the_same_snapshot_is_nondeterminism() -> None:
    messages = iter(("so", "otherwise"))
    checked = Checked(lambda: Scripted(lambda _: [waits(NEW)._replace(message=next(messages))]))
    with pytest.raises(InvariantError, match="nondeterminism: first Wait new: so, then Wait new: otherwise"):
        checked.react(world([node("n", 1)], [RUNS, NEW]), 0.0)


def test_answer_that_depends_on_the_order_of_gangs_is_nondeterminism() -> None:
    checked = Checked(lambda: Scripted(lambda snapshot: [waits(next(gang for gang in snapshot.gangs if not gang.placement))]))
    with pytest.raises(InvariantError, match="nondeterminism: first Wait new: so, then Wait pair: so"):
        checked.react(world([node("n", 1)], [RUNS, NEW, PAIR]), 0.0)


def test_policy_cannot_change_the_snapshot() -> None:
    checked = Checked(lambda: Scripted(lambda snapshot: snapshot.nodes.clear()))  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="clear"):
        checked.react(world(SERVER, [RUNS]), 0.0)


@pytest.mark.parametrize(("back", "restored"), [(1, True), (0, False)])
def test_unpack_must_restore_the_placement_before_the_pack(back: int, restored: bool) -> None:
    """The guest was suspended on GPU 1, is packed onto GPU 0, and must return."""
    host, other = replace(RUNS, sharing=PACKS), turning("other", ("n", [1]))
    guest = turning("guest", ("n", [1]), sharing=PACKS, running=False)
    pack, unpack = put(guest, ("n", [0]), verb=Pack, onto="runs"), put(guest, ("n", [back]), verb=Unpack)
    packed = replace(guest, placement=pack.placement, running=True, packed="runs")
    checked = Checked(lambda: Scripted(lambda snapshot: [unpack if packed in snapshot.gangs else pack]))
    checked.introspect(world(SERVER, [host, other, guest]), 0.0)
    after = world(SERVER, [host, other, packed])
    if restored:
        assert checked.introspect(after, 60.0) == [unpack]
    else:
        with pytest.raises(InvariantError, match="incomplete_undo: guest"):
            checked.introspect(after, 60.0)


@pytest.mark.parametrize(("weight", "bound"), [(1.0, 6), (3.0, 12)])
def test_suspended_gang_starves_beyond_the_weighted_turns_of_its_neighbours(weight: float, bound: int) -> None:
    heavy = replace(RUNS, sharing=replace(TURNS, weight=weight))
    snapshot = world([node("n", 1)], [heavy, QUEUED])
    checked = Checked(lambda: Scripted(lambda _: []))
    for number in range(bound):
        checked.introspect(snapshot, 60.0 * number)
    with pytest.raises(InvariantError, match=f"starvation: queued was skipped {bound + 1} times; expected at most {bound}"):
        checked.introspect(snapshot, 60.0 * bound)


def test_queued_gang_starves_beyond_its_patience() -> None:
    snapshot = world([node("n", 1)], [RUNS, NEW])
    checked = Checked(lambda: Scripted(lambda _: [waits(NEW)]))
    for number in range(22):
        checked.introspect(snapshot, 60.0 * number)
    with pytest.raises(InvariantError, match="starvation: new was skipped 23 times; expected at most 22"):
        checked.introspect(snapshot, 60.0 * 22)


def test_gang_behind_a_higher_priority_does_not_starve() -> None:
    snapshot = world([node("n", 1)], [replace(RUNS, priority=5), NEW])
    checked = Checked(lambda: Scripted(lambda _: [waits(NEW)]))
    for number in range(100):
        checked.introspect(snapshot, 60.0 * number)


def test_endless_calls_in_one_moment_are_a_livelock() -> None:
    checked, snapshot = Checked(lambda: Scripted(lambda _: [waits(NEW)])), world([node("n", 1, free=0)], [RUNS, NEW])
    for second in range(20):
        checked.react(snapshot, float(second))
    for _ in range(12):
        checked.react(snapshot, 50.0)
    with pytest.raises(InvariantError, match="livelock: called 13 times at 50 s, with 2 gangs"):
        checked.react(snapshot, 50.0)


def test_gang_that_ran_between_two_passes_does_not_starve() -> None:
    crowded, alone = world([node("n", 1)], [RUNS, QUEUED]), world([node("n", 1)], [QUEUED])
    checked = Checked(lambda: Scripted(lambda snapshot: [put(QUEUED, ("n", [0]), verb=Resume)] if snapshot == alone else []))
    for number in range(6):
        checked.introspect(crowded, 60.0 * number)
    checked.react(alone, 330.0)
    checked.introspect(crowded, 360.0)


def test_starvation_bound_keeps_the_largest_number_of_neighbours() -> None:
    crowd = [RUNS, QUEUED, turning("third", ("n", [0]), running=False)]
    checked = Checked(lambda: Scripted(lambda _: []))
    for number in range(9):
        checked.introspect(world([node("n", 1)], crowd[: 3 if number < 8 else 2]), 60.0 * number)
    with pytest.raises(InvariantError, match="starvation: queued was skipped 10 times; expected at most 9"):
        checked.introspect(world([node("n", 1)], crowd[:2]), 540.0)
