"""Quotas: no queue holds more than its own, and a gang that waits for quota holds nothing of other queues."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.cluster import decide, gang, node, placed, reasons, running, tasks, victims, world
from muster.scheduling.decisions import Place, Reason
from muster.scheduling.snapshot import Snapshot
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


def test_gang_waiting_for_quota_leaves_idle_gpus_to_other_queues() -> None:
    waiting = [gang("head", 63, queue="q"), gang("other", 62, queue="else", arrived=1.0)]
    decisions = decide(world([node("n1", 64)], [running("r", ("n1", [0, 1]), queue="q"), *waiting], {"q": 64}))
    assert reasons(decisions) == {"head": Reason.QUOTA_EXHAUSTED, "other": Reason.PLACED}


def test_gang_waiting_for_quota_and_gpus_reserves_no_nodes() -> None:
    waiting = [gang("head", 4, queue="q"), gang("other", 1, queue="else", arrived=1.0)]
    snapshot = world([node("n1", 4)], [running("r", ("n1", [0, 1]), queue="q"), *waiting], {"q": 4})
    assert reasons(decide(snapshot)) == {"head": Reason.QUOTA_EXHAUSTED, "other": Reason.PLACED}


def test_higher_priority_preempts_a_lower_one_within_a_full_quota() -> None:
    """GPUs are idle; only the quota is short, so that only gangs of the queue make way."""
    held = [running("low", ("n1", [0, 1]), queue="q"), running("else", ("n1", [2]), queue="else", priority=-1)]
    decisions = decide(world([node("n1")], [*held, gang("high", 2, queue="q", priority=5)], {"q": 2}))
    assert victims(decisions["high"]) == ["low"]


def test_fewest_gangs_that_free_enough_quota_and_gpus_are_preempted() -> None:
    held = [running(name, ("n1", [index]), queue="q", started=float(index)) for index, name in enumerate("abcd")]
    high = gang("high", 3, queue="q", priority=5)
    assert victims(decide(world([node("n1", 4)], [*held, high], {"q": 5}))["high"]) == ["d", "c", "b"]
    assert victims(decide(world([node("n1", 8)], [*held, high], {"q": 5}))["high"]) == ["d", "c"]


def test_no_gang_is_preempted_where_the_quota_would_still_be_too_full() -> None:
    held = [running("low", ("n1", [0]), queue="q"), running("same", ("n1", [1, 2]), queue="q", priority=5)]
    decisions = decide(world([node("n1")], [*held, gang("high", 2, queue="q", priority=5)], {"q": 3}))
    assert reasons(decisions) == {"high": Reason.QUOTA_EXHAUSTED}


def test_gang_of_a_full_quota_preempts_nobody_on_nodes_that_a_gang_ahead_waits_for() -> None:
    waiting = [gang("ahead", 8, queue="else", priority=9), gang("high", 2, queue="q", priority=5)]
    low = running("low", ("n1", [0, 1]), queue="q", preemptible=False)
    lower = running("lower", ("n1", [2, 3]), queue="q")
    decisions = decide(world([node("n1")], [low, lower, *waiting], {"q": 4}))
    assert reasons(decisions) == {"ahead": Reason.INSUFFICIENT_GPUS, "high": Reason.QUOTA_EXHAUSTED}


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


def stopping(snapshot: Snapshot, gpus: int) -> Snapshot:
    """The snapshot with so many GPUs of the queue q in pods on their way out."""
    return replace(snapshot, queues={"q": replace(snapshot.queues["q"], stopping=gpus)})


def test_pods_on_their_way_out_count_in_the_quota_and_keep_no_free_gpus() -> None:
    waiting = [gang("next", 1, 4, queue="q"), gang("other", 8, queue="else", arrived=1.0)]
    nodes = [node("n1"), node("n2", 2, leaving=0b11, free_set=0)]
    decisions = decide(stopping(world(nodes, waiting, {"q": 5}), 2))
    assert reasons(decisions) == {"next": Reason.PODS_STOPPING, "other": Reason.PLACED}
    message = "waits for pods that are stopping: queue q uses 2 of 5 GPUs, 2 of them in pods that are stopping"
    assert decisions["next"].message == message


def test_gang_beside_stopping_pods_within_the_quota_starts() -> None:
    snapshot = world([node("n1", leaving=0b11, free_set=0b11111100)], [gang("next", 2, queue="q")], {"q": 4})
    assert reasons(decide(stopping(snapshot, 2))) == {"next": Reason.PLACED}


def test_gang_that_preempted_in_its_quota_takes_no_further_victim_and_keeps_what_has_come_free() -> None:
    held = running("low", ("n1", [0, 1]), queue="q")
    waiting = [gang("high", 2, queue="q", priority=5), gang("late", 1, queue="else", arrived=1.0)]
    decisions = decide(stopping(world([node("n1", 4, leaving=0b1000, free_set=0b0111)], [held, *waiting], {"q": 4}), 1))
    assert decisions["high"].reason is Reason.PODS_STOPPING
    assert not isinstance(decisions["late"], Place)


def test_stopping_pods_of_one_queue_hold_up_no_other() -> None:
    snapshot = world([node("n1", 4)], [gang("a", 2, queue="q"), gang("b", 2, queue="r")], {"q": 2, "r": 2})
    queues = {**snapshot.queues, "q": replace(snapshot.queues["q"], stopping=2)}
    assert reasons(decide(replace(snapshot, queues=queues))) == {"a": Reason.PODS_STOPPING, "b": Reason.PLACED}
