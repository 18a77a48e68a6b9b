"""Policy muster: highest Gittins index first, and no change without need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from builders.cluster import gang, node, running, tasks, world
from builders.sessions import TURNS, said
from muster.scheduling.decisions import Place
from muster.scheduling.gang import Gang, Sensitivity
from muster.scheduling.planner import introspect, plan
from muster.scheduling.resources import Resources
from muster.scheduling.snapshot import Snapshot

NOW = 100_000.0


def runs(name: str, *shares: Any, hours: float = 1.0, **fields: Any) -> Gang:
    """A gang that has been running for so many hours."""
    return running(name, *shares, sharing=TURNS, since=NOW - 3600 * hours, started=NOW - 3600 * hours, **fields)


def waits(name: str, gpus: int = 1, **fields: Any) -> Gang:
    return gang(name, gpus, 1, sharing=TURNS, since=NOW, arrived=NOW, **fields)


def decided(snapshot: Snapshot, verbs: tuple[str, ...] = ("Place", "Requeue")) -> list[tuple[str, str]]:
    return [(verb, name) for verb, name in said(plan(snapshot, NOW)) if verb in verbs]


def test_gang_that_waited_much_longer_than_it_ran_comes_first() -> None:
    there = [runs("long", ("n", [0]), hours=1000)]
    starved = gang("starved", 1, 1, sharing=TURNS, attained=3600.0, since=NOW - 16 * 3600 - 1)
    patient = gang("patient", 1, 1, sharing=TURNS, attained=3600.0, since=NOW - 16 * 3600 + 1)
    assert ("Place", "starved") in decided(world([node("n", 1)], [*there, starved, waits("new")]))
    assert ("Place", "new") in decided(world([node("n", 1)], [*there, patient, waits("new")]))


def test_local_priority_ranks_within_its_namespace_only() -> None:
    """The gang that ran for ten hours keeps its GPU from a new one of its namespace, and from no other."""
    claims = runs("claims", ("n", [0]), hours=10, namespace="a", local_priority=10**9)
    assert decided(world([node("n", 1)], [claims, waits("own", namespace="a")])) == []
    taken = [("Requeue", "claims"), ("Place", "other")]
    assert decided(world([node("n", 1)], [claims, waits("own", namespace="a"), waits("other", namespace="b")])) == taken


def test_local_priority_takes_a_turn_from_its_own_namespace_only() -> None:
    """A new gang would displace one that ran for an hour; of its namespace, only one with a higher local priority does."""
    there = [runs("own", ("n", [0]), hours=1, namespace="a", local_priority=1)]
    assert decided(world([node("n", 1)], [*there, waits("new", namespace="a")])) == []
    assert decided(world([node("n", 1)], [*there, waits("new", namespace="a", local_priority=2)])) == []
    preempted = said(plan(world([node("n", 1)], [*there, waits("new", namespace="a", local_priority=2)]), NOW))
    assert preempted == [("Preempt", "new")]


def test_gang_that_preempts_nobody_takes_turns_within_its_priority() -> None:
    low = runs("low", ("n", [0]), hours=10)
    patient = waits("new", preempts=False, priority=1)
    assert decided(world([node("n", 1)], [low, patient])) == []
    assert decided(world([node("n", 1)], [low, replace(patient, priority=0)])) == [("Requeue", "low"), ("Place", "new")]


def test_gang_shortly_before_its_expected_end_keeps_its_gpus() -> None:
    """Where all gangs took an hour, one that has run for 55 minutes ranks before a new one."""
    snapshot = world([node("n", 1)], [runs("old", ("n", [0]), hours=55 / 60), waits("new")])
    hours = replace(snapshot, ended=(3600.0,) * 50)
    minutes = replace(snapshot, ended=(300.0,) * 50)
    assert decided(hours) == []
    assert decided(minutes) == [("Requeue", "old"), ("Place", "new")]


def test_new_gang_takes_the_gpus_of_the_one_that_ran_longest() -> None:
    snapshot = world([node("n", 2)], [runs("long", ("n", [0]), hours=10), runs("short", ("n", [1]), hours=1), waits("new")])
    assert decided(snapshot) == [("Requeue", "long"), ("Place", "new")]


def test_of_gangs_there_for_days_the_one_that_ran_least_a_day_goes_first() -> None:
    """The waiting gang ran for three of nine days, a third of each; the other for both days since it arrived."""
    days = 86400.0
    newer = replace(runs("newer", ("n", [0]), hours=48), arrived=NOW - 2 * days)
    older = gang("older", 1, 1, sharing=TURNS, attained=3 * days, since=NOW - 1000, arrived=NOW - 9 * days)
    assert decided(world([node("n", 1)], [newer, older])) == [("Requeue", "newer"), ("Place", "older")]
    just_come = replace(older, arrived=NOW - 3 * days)
    assert decided(world([node("n", 1)], [newer, just_come])) == []


def test_link_sensitive_gang_takes_gpus_of_others_on_one_node() -> None:
    """The two gangs last in rank are on two nodes: over slow network cards their GPUs are worth less than two on one."""
    hours = {"n": (10, 5), "m": (20, 4)}
    there = [runs(f"{name}{i}", (name, [i]), hours=hours[name][i]) for name in hours for i in range(2)]
    nodes = [node(name, 2, nic_gbps=1.25) for name in hours]
    for sensitivity, expected in ((Sensitivity.HIGH, {"n"}), (Sensitivity.LOW, {"n", "m"})):
        snapshot = world(nodes, [*there, waits("new", 2, sensitivity=sensitivity)])
        (new,) = [one for one in plan(snapshot, NOW) if isinstance(one, Place) and one.gang.name == "new"]
        assert {share.node for share in new.placement} == expected


def test_idle_gpus_are_used_before_a_gang_is_requeued() -> None:
    snapshot = world([node("n", 2)], [runs("long", ("n", [0])), waits("new")])
    assert decided(snapshot) == [("Place", "new")]


def test_gang_of_about_the_same_index_is_not_requeued_for_another() -> None:
    snapshot = world([node("n", 1)], [runs("same", ("n", [0]), hours=0.001), waits("new")])
    assert decided(snapshot) == []


def test_of_gangs_of_equal_index_those_start_that_fill_the_gpus() -> None:
    there = [runs("long", ("n", [0, 1, 2, 3]), hours=100), waits("a-single", 1), waits("b-four", 4)]
    assert decided(world([node("n", 4)], there)) == [("Requeue", "long"), ("Place", "b-four")]


def test_gang_without_enough_memory_does_not_block_a_smaller_one() -> None:
    there = runs("there", ("n", [0]), hours=10.0)
    hungry = waits("hungry", each={"resources": Resources(memory=8, pods=1)})
    snapshot = world(
        [node("n", 1, resources=Resources(8, 4, 8), allocatable=Resources(8, 16, 8))], [there, hungry, waits("modest")]
    )
    assert ("Place", "modest") in decided(snapshot)


def test_only_as_many_gangs_are_requeued_as_necessary() -> None:
    there = [runs(f"g{i}", ("n", [2 * i, 2 * i + 1]), hours=i + 1) for i in range(4)]
    snapshot = world([node("n", 8)], [*there, waits("new", 2)])
    assert decided(snapshot) == [("Requeue", "g3"), ("Place", "new")]


def test_higher_priority_is_never_requeued_for_a_lower_one() -> None:
    snapshot = world([node("n", 1)], [runs("high", ("n", [0]), hours=100, priority=5), waits("new")])
    assert decided(snapshot) == []


def test_exclusive_gang_is_never_requeued_by_rank() -> None:
    snapshot = world([node("n", 1)], [running("mine", ("n", [0])), waits("new")])
    assert decided(snapshot) == []


def test_exclusive_gang_takes_gpus_of_gangs_that_share() -> None:
    mine = gang("mine", 1, 1, arrived=NOW)
    snapshot = world([node("n", 1)], [runs("long", ("n", [0]), hours=10), mine])
    assert decided(snapshot) == [("Requeue", "long"), ("Place", "mine")]


def test_small_gang_starts_where_a_large_one_cannot_yet() -> None:
    """Backfill costs the large gang nothing: gangs that share give their GPUs up once it can have enough."""
    there = [running("mine", ("n", [0, 1]))]
    snapshot = world([node("n", 4)], [*there, waits("large", 4), waits("small", 1)])
    assert decided(snapshot) == [("Place", "small")]


def test_quota_holds_for_a_gang_that_claims() -> None:
    there = [runs("long", ("n", [0]), hours=10, queue="full"), waits("new", queue="small")]
    snapshot = world([node("n", 1)], there, queues={"small": 0})
    assert decided(snapshot) == []


def test_every_waiting_gang_gets_a_reason() -> None:
    there = [running("mine", ("n", [0])), waits("a"), waits("b")]
    decisions = list(plan(world([node("n", 1)], there), NOW))
    assert {decision.gang.name for decision in decisions} == {"a", "b"}
    assert all(decision.message for decision in decisions)


def test_pass_with_nothing_to_do_decides_nothing() -> None:
    assert list(introspect(world([node("n", 2)], [runs("long", ("n", [0]))]), NOW)) == []


def test_elastic_gang_starts_in_the_size_that_its_quota_allows() -> None:
    elastic = waits("new", 4, fewest=1, queue="q")
    snapshot = world([node("n", 4)], [runs("long", ("n", [0, 1]), hours=10), elastic, waits("other", 4)], queues={"q": 2})
    (place,) = [decision for decision in plan(snapshot, NOW) if isinstance(decision, Place) and decision.gang.name == "new"]
    assert len(place.placement) == 2


def test_no_gang_overtakes_one_of_its_queue_that_waits_for_quota() -> None:
    there = [runs("long", ("n", [0, 1]), hours=10, queue="q")]
    head = gang("head", 2, 1, queue="q", arrived=NOW - 100.0, since=NOW - 100.0)
    snapshot = world([node("n", 4)], [*there, head, waits("small", queue="q")], queues={"q": 3})
    assert decided(snapshot) == []


def test_packed_gangs_rank_as_the_first_of_them() -> None:
    """The guest comes first by name, and has the lower priority."""
    host = runs("host", ("n", [0]), hours=10, priority=5)
    guest = runs("guest", ("n", [0]), hours=10, packed="host")
    snapshot = world([node("n", 1)], [host, guest, waits("new")])
    assert decided(snapshot) == []


def test_packed_gangs_that_lose_their_gpus_are_placed_apart() -> None:
    pair = [runs("host", ("m", [0]), hours=10), runs("guest", ("m", [0]), hours=10, packed="host")]
    whole = gang("new", tasks=tasks("new", 1, 2), arrived=NOW, since=NOW)
    snapshot = world([node("m", 2), node("n", 1), node("o", 1)], [*pair, whole])
    assert sorted(decided(snapshot)) == [
        ("Place", "guest"),
        ("Place", "host"),
        ("Place", "new"),
        ("Requeue", "guest"),
        ("Requeue", "host"),
    ]


def test_grown_gang_shrinks_before_any_gang_is_requeued() -> None:
    grown = replace(runs("grown", ("n", [0]), ("n", [1])), asked=1, fewest=1)
    snapshot = world([node("n", 3)], [grown, runs("long", ("n", [2]), hours=100), waits("new")])
    assert decided(snapshot, ("Shrink", "Place", "Requeue")) == [("Shrink", "grown"), ("Place", "new")]


def test_gang_that_loses_its_gpus_may_use_its_quota_elsewhere() -> None:
    whole = gang("new", tasks=tasks("new", 1, 2), arrived=NOW, since=NOW)
    snapshot = world([node("m", 2), node("n", 1)], [runs("long", ("m", [0]), hours=10, queue="q"), whole], queues={"q": 1})
    assert sorted(decided(snapshot)) == [("Place", "long"), ("Place", "new"), ("Requeue", "long")]


def test_running_gang_is_not_requeued_for_a_slightly_higher_index() -> None:
    ran = 3600.0 * 10
    other = waits("other", attained=ran * 0.8)
    snapshot = world([node("n", 1)], [runs("long", ("n", [0]), hours=10), other])
    assert decided(snapshot) == []
    less = waits("other", attained=ran * 0.1)
    snapshot = world([node("n", 1)], [runs("long", ("n", [0]), hours=10), less])
    assert decided(snapshot) == [("Requeue", "long"), ("Place", "other")]


def test_gang_that_cannot_move_gets_a_reason_while_others_share() -> None:
    there = [running("mover", ("n", [0]), leave=""), runs("other", ("n", [1]))]
    assert ("Wait", "mover") in decided(world([node("n", 2, free=0)], [*there, waits("new")]), ("Wait",))


def test_idle_gpus_of_a_preempting_gang_are_kept_for_it() -> None:
    """Else a gang placed there in this pass would have to make way in the next one, and so on without end."""
    high, low = gang("high", 4, 1, priority=10), waits("low", 3)
    victim = runs("victim", ("n2", [0]))
    snapshot = world([node("n1", 3), node("n2", 1, free=0)], [victim, high, low])
    assert decided(snapshot, ("Place", "Preempt")) == [("Preempt", "high")]
    stopping = world([node("n1", 3), node("n2", 1, free=0, leaving=1)], [high, low])
    assert decided(stopping, ("Place", "Wait")) == [("Wait", "high"), ("Wait", "low")]


def test_gang_on_a_broken_gpu_is_not_requeued_for_one_that_cannot_use_it() -> None:
    snapshot = world(
        [node("n", 2, healthy=0b10)], [runs("long", ("n", [0]), hours=10), running("mine", ("n", [1])), waits("new")]
    )
    assert decided(snapshot) == []
