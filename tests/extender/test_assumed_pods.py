"""Pods that passed and are not seen bound yet cannot be followed by others into a reservation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from muster_extender.assumed_pods import FORGET_SECONDS

if TYPE_CHECKING:
    from extender.conftest import World


@pytest.fixture
def half(world: World) -> World:
    """Node n has 8 GPUs, 4 of them reserved for a pod that is not bound; node m has 8 free. Pod vision/first is on its way."""
    world.node("n")
    world.node("m")
    world.job("gang", {"gang-worker-0": ("n", [0, 1, 2, 3])})
    world.cluster.assumed.assume("vision/first", 4, ["m", "n"], 0.0, "")
    return world


def test_second_pod_cannot_take_gpus_reserved_for_the_gang(half: World) -> None:
    verdict = half.ask(half.pod("second", 4), "m", "n")
    assert verdict.passed == ["m"]  # kube-scheduler knows what is left of m
    assert verdict.unresolvable == {"n": "needs 4 GPUs: 4 are neither held nor reserved, pods being bound may take 4"}
    assert verdict.transient


def test_assumed_pod_does_not_count_against_itself(half: World) -> None:
    assert half.ask(half.pod("first", 4), "n").passed == ["n"]


def test_assumed_pods_do_not_matter_once_the_gang_is_bound(half: World) -> None:
    half.bind("gang-worker-0", 4, "n", claim="0,1,2,3", job="gang")
    assert half.ask(half.pod("second", 4), "n").passed == ["n"]


@pytest.mark.parametrize("fate", ["bound", "gone", "unschedulable", "forgotten"])
def test_pod_is_no_longer_assumed_once_its_fate_is_known(half: World, fate: str) -> None:
    first: Any = half.store(half.pod("first", 4))
    assert half.ask(half.pod("second", 4), "n").passed == []
    if fate == "bound":
        half.bind("first", 4, "m")
    elif fate == "gone":
        half.remove(first)
    elif fate == "unschedulable":
        first["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
        half.store(first)
    else:
        half.cluster.assumed.expire(FORGET_SECONDS)
    assert half.ask(half.pod("second", 4), "n").passed == ["n"]


def test_expiry_stops_at_the_first_that_is_young_enough(world: World) -> None:
    for second in range(3):
        world.cluster.assumed.assume(f"vision/p{second}", 1, ["n"], float(second), "")
    world.cluster.assumed.expire(FORGET_SECONDS + 1)
    assert len(world.cluster.assumed) == 1


# Two kube-schedulers: neither counts the other's pods before they are bound


@pytest.mark.parametrize(("scheduler", "passed"), [("muster", ["m"]), ("default-scheduler", [])])
def test_pods_of_another_scheduler_count_on_every_node(world: World, scheduler: str, passed: list[str]) -> None:
    world.node("m")
    world.cluster.assumed.assume("vision/first", 4, ["m"], 0.0, "muster")
    pod = world.pod("second", 8)
    pod["spec"]["schedulerName"] = scheduler
    assert world.ask(pod, "m").passed == passed  # muster's own kube-scheduler knows what is left of m


@pytest.mark.parametrize(
    ("sent", "to", "passed"), [("muster", "n", ["n"]), ("default-scheduler", "n", []), ("default-scheduler", "m", ["n"])]
)
def test_reservation_that_came_after_a_pod_of_another_scheduler_waits_for_it(
    world: World, sent: str, to: str, passed: list[str]
) -> None:
    world.node("n")
    world.node("m")
    first = world.pod("first", 1)
    first["spec"]["schedulerName"] = sent
    world.cluster.assumed.assume("vision/first", 1, [to], 0.0, sent)
    world.job("gang", {"gang-worker-0": ("n", list(range(8)))})
    pod = world.own("gang-worker-0", "gang", 8)
    pod["spec"]["schedulerName"] = "muster"
    verdict = world.ask(pod, "n")
    assert verdict.passed == passed
    assert verdict.transient == (not passed)
    if not passed:
        sentence = "needs 8 GPUs: 8 free, pods being bound by another kube-scheduler may take 1"
        assert verdict.unresolvable == {"n": sentence}
        world.bind("first", 1, "m")
        assert world.ask(pod, "n").passed == ["n"]
