"""Preemption: lower priorities only, as few as will do, and none while enough pods are stopping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from builders.cluster import decide, gang, node, reasons, running, tasks, victims, world
from builders.sessions import TURNS, said, turning
from muster.scheduling.decisions import VERBS, Preempt, Reason
from muster.scheduling.gang import Gang
from muster.scheduling.planner import plan
from muster.scheduling.resources import Resources
from muster.scheduling.settings import Policy, Settings
from muster.scheduling.topology.eligibility import Constraint
from muster.scheduling.topology.links import gpu_set

GANDIVA = Settings(policy=Policy.GANDIVA)


def test_lower_priority_is_preempted() -> None:
    snapshot = world([node("n1", 4)], [running("low", ("n1", range(4))), gang("high", 4, priority=5)])
    decisions = decide(snapshot)
    assert victims(decisions["high"]) == ["low"]
    assert decisions["high"].message == "takes the place of low (lower priority)"


def local(name: str, claims: int, namespace: str = "a", *, queue: str = "q", **fields: Any) -> Gang:
    """A waiting gang of 4 GPUs, one that runs on n1 with `shares`, with a local priority."""
    build = running if (shares := fields.pop("shares", None)) else gang
    where = (name, *shares) if shares else (name, 4)
    return build(*where, namespace=namespace, local_priority=claims, queue=f"{namespace}/{queue}", **fields)


ALL = [("n1", range(4))]


def test_local_priority_preempts_within_the_namespace_over_its_queues() -> None:
    decisions = decide(world([node("n1", 4)], [local("low", 0, shares=ALL, queue="p"), local("high", 5)]))
    assert victims(decisions["high"]) == ["low"]
    assert decisions["high"].message == "takes the place of low (lower priority)"


def test_local_priority_preempts_nobody_of_another_namespace() -> None:
    decisions = decide(world([node("n1", 4)], [local("low", 0, "b", shares=ALL), local("high", 10**9)]))
    assert reasons(decisions) == {"high": Reason.INSUFFICIENT_GPUS}


def test_priority_preempts_whatever_the_local_priority_of_the_other() -> None:
    decisions = decide(world([node("n1", 4)], [local("low", 10**9, "b", shares=ALL), local("high", 0, priority=1)]))
    assert victims(decisions["high"]) == ["low"]
    assert decisions["high"].message == "takes the place of a gang of another namespace (lower priority)"
    higher = [local("low", 0, shares=ALL, priority=1), local("high", 10**9)]
    assert reasons(decide(world([node("n1", 4)], higher))) == {"high": Reason.INSUFFICIENT_GPUS}


def test_gang_that_preempts_nobody_waits() -> None:
    snapshot = world([node("n1", 4)], [running("low", ("n1", range(4))), gang("high", 4, priority=5, preempts=False)])
    assert reasons(decide(snapshot)) == {"high": Reason.INSUFFICIENT_GPUS}


def test_local_priority_spares_no_gang_at_the_cost_of_another_namespace() -> None:
    """The last to have started makes way: of `a`, whatever it claims; within `a`, the lower local priority."""
    held = [
        local("other", 0, "b", shares=[("n1", [0])], started=1.0),
        local("mine", 0, "a", shares=[("n1", [1])], started=2.0),
        local("claims", 10**9, "a", shares=[("n1", [2])], started=3.0),
    ]
    wanted = gang("g", 1, namespace="c", priority=5)
    assert victims(decide(world([node("n1", 3)], [*held, wanted]))["g"]) == ["mine"]
    two = gang("g", 2, namespace="c", priority=5)
    decision = decide(world([node("n1", 3)], [*held, two]))["g"]
    assert victims(decision) == ["mine", "claims"]
    assert decision.message == "takes the place of 2 gangs of other namespaces (lower priority)"


def test_victim_does_not_take_its_place_back() -> None:
    """It arrived first, in a queue of its own; once its pods stop, the gang that preempted it starts."""
    low, high = local("low", 0, queue="p"), local("high", 5, arrived=9.0)
    stopping = node("n1", 4, free_set=0, leaving=gpu_set(range(4)))
    assert reasons(decide(world([stopping], [low, high]))) == {"high": Reason.PODS_STOPPING, "low": Reason.BEHIND_IN_QUEUE}
    assert reasons(decide(world([node("n1", 4)], [low, high]))) == {"high": Reason.PLACED, "low": Reason.INSUFFICIENT_GPUS}


def test_equal_priority_is_not_preempted() -> None:
    snapshot = world([node("n1", 4)], [running("same", ("n1", range(4)), priority=5), gang("high", 4, priority=5)])
    assert reasons(decide(snapshot)) == {"high": Reason.INSUFFICIENT_GPUS}


def test_gang_not_preemptible_is_not_preempted() -> None:
    snapshot = world([node("n1", 4)], [running("low", ("n1", range(4)), preemptible=False), gang("high", 4, priority=5)])
    assert reasons(decide(snapshot)) == {"high": Reason.INSUFFICIENT_GPUS}


def test_no_gang_is_preempted_without_the_verb() -> None:
    snapshot = world([node("n1", 4)], [running("low", ("n1", range(4))), gang("high", 4, priority=5)])
    assert reasons(decide(snapshot, settings=Settings(verbs=VERBS - {Preempt}))) == {"high": Reason.INSUFFICIENT_GPUS}


def test_no_gang_is_preempted_where_that_would_not_help() -> None:
    held = [running("low", ("n1", [0, 1])), running("high", ("n1", [2, 3]), priority=9)]
    assert reasons(decide(world([node("n1", 4)], [*held, gang("g", 4, priority=5)]))) == {"g": Reason.INSUFFICIENT_GPUS}


def test_lowest_priority_and_last_started_is_preempted_first() -> None:
    held = [
        running("middle", ("n1", [0]), priority=2, started=9.0),
        running("old", ("n1", [1]), priority=1, started=1.0),
        running("young", ("n1", [2]), priority=1, started=5.0),
        running("alike", ("n1", [3]), priority=1, started=5.0),
    ]
    for count, expected in ((1, ["alike"]), (2, ["alike", "young"]), (3, ["alike", "young", "old"])):
        assert victims(decide(world([node("n1", 4)], [*held, gang("g", count, priority=5)]))["g"]) == expected


def test_gang_that_frees_no_useful_gpus_is_not_preempted() -> None:
    """The lowest priority is considered first, but only the gang on the large node frees enough GPUs."""
    held = [running("lowest", ("small", [0, 1])), running("low", ("large", range(4)), priority=1)]
    decisions = decide(world([node("small", 2), node("large", 4)], [*held, gang("g", 1, 4, priority=5)]))
    assert victims(decisions["g"]) == ["low"]


def test_fewest_victims_that_suffice_are_preempted() -> None:
    held = [running("a", ("n1", [0])), running("b", ("n1", [1])), running("c", ("n2", range(4)), priority=1)]
    decisions = decide(world([node("n1", 4), node("n2", 4)], [*held, gang("g", 1, 4, priority=5)]))
    assert victims(decisions["g"]) == ["a", "b"]
    decisions = decide(world([node("n1", 4, free=3), node("n2", 4)], [*held, gang("g", 1, 4, priority=5)]))
    assert victims(decisions["g"]) == ["c"]


def test_no_gang_is_preempted_twice() -> None:
    held = [running("low", ("n1", range(4)))]
    waiting = [gang("first", 4, priority=9), gang("second", 4, priority=5)]
    decisions = decide(world([node("n1", 4)], [*held, *waiting]))
    assert victims(decisions["first"]) == ["low"]
    assert reasons(decisions)["second"] == Reason.BEHIND_IN_QUEUE


def test_no_gang_is_preempted_while_enough_pods_are_stopping() -> None:
    stopping = node("n1", 4, free_set=gpu_set([0]), leaving=gpu_set([1, 2]))
    snapshot = world([stopping], [gang("g", 3, priority=5)])
    decisions = decide(snapshot)
    assert reasons(decisions) == {"g": Reason.PODS_STOPPING}
    assert decisions["g"].message == "waits for pods that are stopping; then has 3 GPUs on 1 node (n1)"


def test_gpus_of_stopping_pods_spare_a_victim() -> None:
    snapshot = world(
        [node("n1", 4, leaving=gpu_set([0, 1]), free_set=gpu_set([2, 3]))],
        [running("a", ("n1", [2])), running("b", ("n1", [3])), gang("g", 3, priority=5)],
    )
    assert victims(decide(snapshot)["g"]) == ["a"]


def test_broken_gpus_of_a_victim_are_no_gain() -> None:
    """Without the victim, GPUs 1, 2 and 4 are free; GPU 0 is broken."""
    held = [running("low", ("n1", [0, 1, 2])), running("high", ("n1", [3]), priority=9)]
    nodes = [node("n1", 5, healthy=0b11110)]
    assert reasons(decide(world(nodes, [*held, gang("g", 4, priority=5)]))) == {"g": Reason.INSUFFICIENT_GPUS}
    assert victims(decide(world(nodes, [*held, gang("g", 3, priority=5)]))["g"]) == ["low"]


def test_gang_is_preempted_for_its_cpu_alone() -> None:
    held = running("low", ("n1", [0]), resources=Resources(6000, 1, 1))
    wanted = gang("g", 1, 1, priority=5, each={"resources": Resources(4000, 1, 1)})
    decisions = decide(world([node("n1", 4, resources=Resources(8000, 9, 9))], [held, wanted]))
    assert victims(decisions["g"]) == ["low"]


def test_later_gang_does_not_get_gpus_that_victims_leave() -> None:
    held = [running("low", ("n1", range(4)))]
    decisions = decide(world([node("n1", 8)], [*held, gang("head", 8, priority=5), gang("next", 4, arrived=1.0)]))
    assert reasons(decisions) == {"head": Reason.PREEMPTING, "next": Reason.BEHIND_IN_QUEUE}


def test_victim_on_two_pools_is_preempted_once() -> None:
    nodes = [node(name, 4, labels={"pool": name}) for name in "ab"]
    low = running("low", ("a", range(4)), ("b", range(4)))
    first, second = (
        gang(name, 4, priority=5, each={"where": Constraint(labels=(("pool", pool),))})
        for name, pool in (("f", "a"), ("s", "b"))
    )
    assert reasons(decide(world(nodes, [low, first, second]))) == {"f": Reason.PREEMPTING, "s": Reason.INSUFFICIENT_GPUS}


def test_no_gang_is_preempted_for_gpus_that_another_gang_keeps() -> None:
    """The gang that takes turns there would run next, and the victim would be preempted for nothing."""
    high = gang("high", 1, priority=5)
    low, other = turning("low", ("n1", [0])), turning("other", ("n1", [0]), running=False)
    stays = replace(other, preemptible=False)
    assert victims(decide(world([node("n1", 1)], [low, other, high]), settings=GANDIVA)["high"]) == ["low", "other"]
    assert reasons(decide(world([node("n1", 1)], [low, stays, high]), settings=GANDIVA)) == {"high": Reason.INSUFFICIENT_GPUS}


def test_preempting_gang_claims_no_other_gpus() -> None:
    """By rank it could have the GPUs of `long` at once; it waits for those of its victim, and the next gang gets these."""
    there = turning("low", ("n1", [0])), turning("long", ("n2", [0]), preemptible=False)
    high, next_one = (gang(name, 1, priority=5 - index, sharing=TURNS) for index, name in enumerate(("high", "next")))
    decisions = plan(world([node("n1", 1), node("n2", 1)], [*there, high, next_one]), 0.0)
    assert said(decisions) == [("Preempt", "high"), ("Requeue", "long"), ("Place", "next")]


def test_preempted_gang_that_was_scaled_is_not_resized_in_the_same_pass() -> None:
    """It would fit on the other node, but its pods are about to be stopped."""
    nodes = [node("a", 1, labels={"pool": "a"}), node("b", 4, labels={"pool": "b"})]
    low = running("low", ("a", [0]), resize=True, tasks=tasks("low", 2))
    high = gang("high", priority=5, each={"where": Constraint(labels=(("pool", "a"),))})
    decisions = plan(world(nodes, [low, high]), 0.0)
    assert ("Preempt", "high") in said(decisions)
    assert ("Resize", "low") not in said(decisions)
