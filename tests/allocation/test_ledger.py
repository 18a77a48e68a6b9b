"""Who holds what: reservations and pods of the same task count once, unnamed GPUs lie where they hurt least."""

from __future__ import annotations

from builders.cluster import known
from muster.allocation.holding import Holding, Source
from muster.allocation.ledger import Ledger, unheld
from muster.scheduling.resources import Resources
from muster.scheduling.topology.links import gpu_set
from muster.scheduling.topology.machine import unknown_machine

FOUR = unknown_machine(4)
RESERVATION, POD = Source.RESERVATION, Source.POD


def test_reservation_and_then_its_pod_hold_the_gpus_once() -> None:
    ledger = Ledger()
    assert ledger.put("t", RESERVATION, Holding("n1", gpus=0b0011, resources=Resources(100, 5, 1))) == {"n1"}
    assert ledger.put("t", POD, Holding("n1", count=2, resources=Resources(200, 4, 1))) == {"n1"}
    assert ledger.free("n1", FOUR, FOUR.all) == 0b1100
    assert ledger.on_node("n1") == [("t", Holding("n1", 0b0011, 2, Resources(200, 5, 1)))]
    assert ledger.resources("n1") == Resources(200, 5, 1)


def test_order_of_reservation_and_pod_does_not_matter() -> None:
    ledger = Ledger()
    ledger.put("t", POD, Holding("n1", count=2))
    ledger.put("t", RESERVATION, Holding("n1", gpus=0b0110))
    assert ledger.on_node("n1") == [("t", Holding("n1", 0b0110, 2))]


def test_gpus_are_free_once_reservation_and_pod_are_gone() -> None:
    ledger = Ledger()
    ledger.put("t", RESERVATION, Holding("n1", gpus=0b0011))
    ledger.put("t", POD, Holding("n1", gpus=0b0011))
    assert ledger.put("t", RESERVATION, None) == {"n1"}
    assert ledger.free("n1", FOUR, FOUR.all) == 0b1100
    assert ledger.put("t", POD, None) == {"n1"}
    assert ledger.free("n1", FOUR, FOUR.all) == 0b1111


def test_task_that_moves_changes_two_nodes() -> None:
    ledger = Ledger()
    ledger.put("t", RESERVATION, Holding("n1", gpus=0b1))
    assert ledger.put("t", RESERVATION, Holding("n2", gpus=0b10)) == {"n1", "n2"}
    assert ledger.free("n1", FOUR, FOUR.all) == 0b1111
    assert ledger.free("n2", FOUR, FOUR.all) == 0b1101


def test_pod_that_lands_elsewhere_than_reserved_holds_both() -> None:
    ledger = Ledger()
    ledger.put("t", RESERVATION, Holding("n1", gpus=0b1))
    ledger.put("t", POD, Holding("n2", gpus=0b1))
    assert (ledger.free("n1", FOUR, 0b1111), ledger.free("n2", FOUR, 0b1111)) == (0b1110, 0b1110)


def test_equal_holding_changes_nothing() -> None:
    ledger = Ledger()
    holding = Holding("n1", gpus=0b1)
    assert ledger.put("t", POD, None) == set()
    ledger.put("t", POD, holding)
    assert ledger.put("t", POD, Holding("n1", gpus=0b1)) == set()
    assert ledger.holding("t", POD) == holding
    assert ledger.holding("t", RESERVATION) is None
    assert ledger.free("n1", FOUR, FOUR.all) == 0b1110


def test_own_holding_can_be_left_out() -> None:
    ledger = Ledger()
    ledger.put("b", POD, Holding("n1", gpus=0b0001, resources=Resources(1, 1, 1)))
    ledger.put("a", POD, Holding("n1", gpus=0b0010, resources=Resources(2, 2, 1)))
    assert ledger.free("n1", FOUR, FOUR.all, but="a") == 0b1110
    assert [task for task, _ in ledger.on_node("n1")] == ["a", "b"]
    assert [task for task, _ in ledger.on_node("n1", but="b")] == ["a"]
    assert ledger.resources("n1") == Resources(3, 3, 2)


def test_broken_gpus_are_never_free() -> None:
    ledger = Ledger()
    ledger.put("t", POD, Holding("n1", gpus=0b0001))
    assert ledger.free("n1", FOUR, 0b0111) == 0b0110
    assert ledger.free("elsewhere", FOUR, 0b0111) == 0b0111


def test_unnamed_gpus_leave_the_bridged_pairs_whole() -> None:
    bridged = known("a100-pcie")
    named = Holding("n1", gpus=gpu_set([1, 4]))
    assert unheld(bridged, bridged.all, [named, Holding("n1", count=2)]) == gpu_set([2, 3, 6, 7])


def test_only_unnamed_gpus_of_a_holding_are_guessed() -> None:
    assert unheld(FOUR, FOUR.all, [Holding("n1", gpus=0b0011, count=3)]).bit_count() == 1
    assert unheld(FOUR, FOUR.all, [Holding("n1", gpus=0b0011, count=1)]) == 0b1100


def test_claims_beyond_the_machine_leave_nothing() -> None:
    assert unheld(FOUR, 0b0011, [Holding("n1", count=5)]) == 0


def test_size_of_a_holding_is_the_larger_of_named_and_counted() -> None:
    assert Holding("n1", gpus=0b111, count=2).size == 3
    assert Holding("n1", gpus=0b1, count=2).size == 2


def test_two_tasks_hold_one_gpu_while_their_shares_allow() -> None:
    ledger = Ledger()
    ledger.put("a", POD, Holding("n1", gpus=0b0001, share=300))
    assert (ledger.free("n1", FOUR, FOUR.all), ledger.parts("n1", FOUR.all)) == (0b1110, ((0, 700),))
    ledger.put("b", POD, Holding("n1", gpus=0b0001, share=700))
    assert (ledger.free("n1", FOUR, FOUR.all), ledger.parts("n1", FOUR.all)) == (0b1110, ())


def test_whole_gpu_has_no_parts_and_an_unhealthy_one_neither() -> None:
    ledger = Ledger()
    ledger.put("a", POD, Holding("n1", gpus=0b0001))
    ledger.put("b", POD, Holding("n1", gpus=0b0010, share=300))
    assert ledger.parts("n1", 0b1101) == ()
