"""Quotas: no queue holds more than its own, and a gang held by its quota reserves its GPUs."""

from __future__ import annotations

import pytest

from builders.cluster import decide, gang, node, placed, reasons, running, tasks, world
from muster.scheduling.decisions import Reason
from muster.scheduling.topology.eligibility import Constraint

POOL_A, POOL_B = (Constraint(labels=(("pool", name),)) for name in "ab")


def test_running_gang_counts_in_the_quota() -> None:
    snapshot = world([node("n1")], [running("r", ("n1", [0, 1]), queue="q"), gang("a", 3, queue="q")], {"q": 4})
    decisions = decide(snapshot)
    assert reasons(decisions) == {"a": Reason.QUOTA_EXHAUSTED}
    assert decisions["a"].message == "needs 3 GPUs; queue q uses 2 of 4 GPUs"


def test_gang_placed_in_the_pass_counts_in_the_quota() -> None:
    decisions = decide(world([node("n1")], [gang("a", 3, queue="q"), gang("b", 2, queue="q", arrived=1.0)], {"q": 4}))
    assert reasons(decisions) == {"a": Reason.PLACED, "b": Reason.QUOTA_EXHAUSTED}


def test_quota_may_be_used_up() -> None:
    assert reasons(decide(world([node("n1")], [gang("a", 4, queue="q")], {"q": 4}))) == {"a": Reason.PLACED}


@pytest.mark.parametrize("queues", [{}, {"q": None}])
def test_no_queue_and_no_quota_are_no_limit(queues: dict[str, int | None]) -> None:
    assert reasons(decide(world([node("n1")], [gang("a", 8, queue="q")], queues))) == {"a": Reason.PLACED}


def test_no_gang_overtakes_one_of_its_queue_that_waits_for_quota() -> None:
    waiting = [gang("head", 3, queue="q"), gang("small", 1, queue="q", arrived=1.0)]
    decisions = decide(world([node("n1")], [running("r", ("n1", [0, 1]), queue="q"), *waiting], {"q": 4}))
    assert reasons(decisions) == {"head": Reason.QUOTA_EXHAUSTED, "small": Reason.BEHIND_IN_QUEUE}
    assert decisions["small"].message == "comes after head, which waits for quota of q"


@pytest.mark.parametrize(("size", "reason"), [(3, Reason.PLACED), (4, Reason.INSUFFICIENT_GPUS)])
def test_gang_waiting_for_quota_reserves_the_gpus_it_would_have(size: int, reason: Reason) -> None:
    """Of 8 GPUs 2 are in use and 3 reserved: another queue gets the other 3, and no more."""
    waiting = [gang("head", 3, queue="q"), gang("other", size, queue="else", arrived=1.0)]
    decisions = decide(world([node("n1")], [running("r", ("n1", [0, 1]), queue="q"), *waiting], {"q": 4}))
    assert reasons(decisions) == {"head": Reason.QUOTA_EXHAUSTED, "other": reason}


def test_gang_waiting_for_quota_and_gpus_reserves_its_nodes() -> None:
    waiting = [gang("head", 4, queue="q"), gang("other", 1, queue="else", arrived=1.0)]
    snapshot = world([node("n1", 4)], [running("r", ("n1", [0, 1]), queue="q"), *waiting], {"q": 4})
    assert reasons(decide(snapshot)) == {"head": Reason.QUOTA_EXHAUSTED, "other": Reason.BEHIND_IN_QUEUE}


def test_gang_waiting_for_gpus_reserves_its_part_of_the_quota() -> None:
    """Else a gang of the same queue, on GPUs that the head cannot use, would make the head wait for quota later."""
    nodes = [node("a", 4, labels={"pool": "a"}), node("b", 4, labels={"pool": "b"})]
    head = gang("head", 4, queue="q", each={"where": POOL_A})
    two = gang("two", 2, queue="q", arrived=1.0, each={"where": POOL_B})
    three = gang("three", 3, queue="q", arrived=2.0, each={"where": POOL_B})
    decisions = decide(world(nodes, [running("r", ("a", [0])), head, two, three], {"q": 8}))
    assert reasons(decisions) == {
        "head": Reason.INSUFFICIENT_GPUS,
        "two": Reason.PLACED,
        "three": Reason.QUOTA_EXHAUSTED,
    }
    assert decisions["three"].message == "needs 3 GPUs; queue q uses 2 of 8 GPUs, and 4 are reserved for gangs ahead"


def test_gang_whose_nodes_are_reserved_reserves_its_part_of_the_quota() -> None:
    nodes = [node("a", 4, labels={"pool": "a"}), node("b", 4, labels={"pool": "b"})]
    head = gang("head", 4, each={"where": POOL_A})
    second = gang("second", 4, queue="q", arrived=1.0, each={"where": POOL_A})
    third = gang("third", 2, queue="q", arrived=2.0, each={"where": POOL_B})
    decisions = decide(world(nodes, [running("r", ("a", [0])), head, second, third], {"q": 5}))
    assert reasons(decisions) == {
        "head": Reason.INSUFFICIENT_GPUS,
        "second": Reason.BEHIND_IN_QUEUE,
        "third": Reason.QUOTA_EXHAUSTED,
    }


def test_elastic_gang_takes_no_more_than_its_quota() -> None:
    members = tasks("a", 1, 1, "chief") + tasks("a", 6)
    decisions = decide(world([node("n1")], [gang("a", tasks=members, fewest=2, queue="q")], {"q": 5}))
    assert [place.task.name for place in placed(decisions["a"])] == ["a-chief-0", *(f"a-worker-{i}" for i in range(4))]


def test_elastic_gang_needs_quota_for_its_smallest_size() -> None:
    decisions = decide(world([node("n1")], [gang("a", 6, 2, fewest=2, queue="q")], {"q": 3}))
    assert reasons(decisions) == {"a": Reason.OVER_QUOTA}
    assert decisions["a"].message == "needs 4 GPUs; queue q may never hold more than 3"
