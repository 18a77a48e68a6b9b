"""Queue order, and which gangs may overtake others: each case of the docstring of `admission.backfill`."""

from __future__ import annotations

import pytest

from builders.cluster import decide, gang, node, placed, reasons, running, tasks, world
from muster.scheduling.decisions import Reason, Wait
from muster.scheduling.gang import Gang, gpus_by_node
from muster.scheduling.queue_order import in_order
from muster.scheduling.resources import Resources
from muster.scheduling.topology.eligibility import Constraint
from muster.scheduling.topology.node import Level

POOL_A = Constraint(labels=(("pool", "a"),))


def test_queue_order_is_priority_then_arrival_then_name() -> None:
    gangs = [
        gang("late", arrived=2.0),
        gang("b", arrived=1.0),
        gang("a", arrived=1.0),
        gang("urgent", arrived=9.0, priority=5),
        gang("idle", arrived=0.0, priority=-1),
    ]
    assert [one.name for one in in_order(gangs)] == ["urgent", "a", "b", "late", "idle"]


def test_local_priority_fills_the_positions_of_its_namespace() -> None:
    """The gangs of b stay second and fourth, whatever a claims; a's own are in the order of its claims."""
    gangs = [
        gang("a-first", namespace="a", arrived=1.0, local_priority=-5),
        gang("b-first", namespace="b", arrived=2.0),
        gang("a-second", namespace="a", arrived=3.0),
        gang("b-second", namespace="b", arrived=4.0, local_priority=1),
        gang("a-claims", namespace="a", arrived=5.0, local_priority=10**9),
        gang("a-higher", namespace="a", arrived=6.0, local_priority=-9, priority=1),
    ]
    order = ["a-higher", "a-claims", "b-second", "a-second", "b-first", "a-first"]
    assert [one.name for one in in_order(gangs)] == order
    assert [one.name for one in in_order(reversed(gangs))] == order


def test_first_gang_in_queue_order_gets_the_gpus() -> None:
    decisions = decide(world([node("n1", 4)], [gang("b", 4, arrived=1.0), gang("a", 4, arrived=2.0)]))
    assert reasons(decisions) == {"b": Reason.PLACED, "a": Reason.INSUFFICIENT_GPUS}


def test_queues_share_one_order() -> None:
    decisions = decide(world([node("n1", 4)], [gang("b", 4, queue="x"), gang("a", 4, queue="y", arrived=1.0)]))
    assert reasons(decisions) == {"b": Reason.PLACED, "a": Reason.INSUFFICIENT_GPUS}


def test_small_gang_does_not_overtake_one_that_waits_for_gpus() -> None:
    snapshot = world([node("n1", 4)], [running("r", ("n1", [0, 1])), gang("head", 4), gang("small", 1, arrived=1.0)])
    decisions = decide(snapshot)
    assert reasons(decisions) == {"head": Reason.INSUFFICIENT_GPUS, "small": Reason.BEHIND_IN_QUEUE}
    assert decisions["head"].message == "needs 4 GPUs (4 pods of up to 1); 2 free on 1 of 1 nodes that it may use"
    assert decisions["small"].message == "needs 1 GPU; comes after head, which waits for GPUs"


def test_small_gang_takes_nodes_that_the_head_could_not_use() -> None:
    """Nodes of another pool, and nodes too small for any of the head's pods."""
    a, b, tiny = node("a", 4, labels={"pool": "a"}), node("b", 4, labels={"pool": "b"}), node("tiny", 1)
    head = gang("head", 1, 4, each={"where": POOL_A})
    decisions = decide(world([a, b, tiny], [running("r", ("a", [0])), head, gang("b", 4, arrived=1.0), gang("c", arrived=2.0)]))
    assert reasons(decisions) == {"head": Reason.INSUFFICIENT_GPUS, "b": Reason.PLACED, "c": Reason.PLACED}
    assert list(gpus_by_node(placed(decisions["b"]))) == ["b"]
    assert list(gpus_by_node(placed(decisions["c"]))) == ["tiny"]


def test_gang_without_gpus_takes_no_cpu_of_a_reserved_node() -> None:
    nodes = [node("a", 4, resources=Resources(9000, 9, 9)), node("b", 2, resources=Resources(9000, 9, 9))]
    head = gang("head", 1, 4)
    helper = gang("helper", 2, 0, arrived=1.0, each={"resources": Resources(6000, 1, 1)})
    decisions = decide(world(nodes, [running("r", ("a", [0])), head, helper]))
    assert reasons(decisions) == {"head": Reason.INSUFFICIENT_GPUS, "helper": Reason.BEHIND_IN_QUEUE}


@pytest.mark.parametrize(
    ("blocked", "reason"),
    [
        (gang("head", 9), Reason.NEVER_FITS),
        (gang("head", 1, 5), Reason.NEVER_FITS),
        (gang("head", 1, 1, each={"where": POOL_A}), Reason.NEVER_FITS),
        (gang("head", 1, 1, each={"resources": Resources(cpu=9000)}), Reason.NEVER_FITS),
        (gang("head", 6, queue="small"), Reason.OVER_QUOTA),
        (gang("head", 8, absent=2), Reason.PODS_ABSENT),
        (gang("head", 8, not_before=30.0), Reason.BACK_OFF),
    ],
)
def test_gang_that_cannot_start_whatever_ends_reserves_nothing(blocked: Gang, reason: Reason) -> None:
    nodes = [node("n1", 4, allocatable=Resources(8000, 1 << 40, 99)), node("n2", 4, allocatable=Resources(8000, 1 << 40, 99))]
    snapshot = world(nodes, [running("r", ("n1", [0])), blocked, gang("next", 7, arrived=1.0)], {"small": 5})
    assert reasons(decide(snapshot)) == {"head": reason, "next": Reason.PLACED}


def test_reason_why_a_gang_cannot_start_gives_numbers() -> None:
    waiting = [gang("a", 9), gang("b", 3, queue="small"), gang("c", 2, absent=1), gang("d", not_before=30.0)]
    decisions = decide(world([node("n1")], waiting, {"small": 2}), now=18.0)
    assert {name: decision.message for name, decision in decisions.items()} == {
        "a": "needs 9 GPUs (9 pods of up to 1); 8 free on 1 of 1 nodes that it may use, with nobody else running",
        "b": "needs 3 GPUs; queue small may never hold more than 2",
        "c": "has 2 of 3 pods; 1 not created yet",
        "d": "tries again in 12 s",
    }
    assert isinstance(decisions["d"], Wait)
    assert decisions["d"].until == 30.0


def test_back_off_ends_at_its_time() -> None:
    assert reasons(decide(world([node("n1")], [gang("a", not_before=30.0)]), now=30.0)) == {"a": Reason.PLACED}


def test_required_rack_makes_a_gang_never_fit() -> None:
    """Two pods in one rack never fit; the same two pods in two racks do."""
    nodes = [node("n1", 4, rack="r"), node("n2", 4, rack="s")]
    from_rack, anywhere = gang("a", 2, 4, required=Level.RACK), gang("b", 2, 4, arrived=1.0)
    assert reasons(decide(world(nodes, [from_rack, anywhere]))) == {"a": Reason.NEVER_FITS, "b": Reason.PLACED}


def test_gang_that_never_fits_spread_may_fit_packed() -> None:
    """3+3 and 2+2+2 fill two nodes of six; one after the other on the emptier node leaves two holes of one."""
    members = tasks("x", 2, 3, "chief") + tasks("x", 3, 2)
    spread = gang("a", tasks=members, spread=True)
    packed = gang("b", tasks=members, arrived=1.0)
    decisions = decide(world([node("n1", 6), node("n2", 6)], [spread, packed]))
    assert reasons(decisions) == {"a": Reason.NEVER_FITS, "b": Reason.PLACED}
