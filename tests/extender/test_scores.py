"""Prioritize: the order of nodes for pods that come ungated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.kube.objects import Pod
from muster.machines import machine
from muster.scheduling.topology.machine import machine_type
from muster_extender.scores import Policy, prioritize, scored

if TYPE_CHECKING:
    from extender.conftest import World


def ranked(world: World, gpus: int, policy: Policy = Policy.PACK) -> list[str]:
    """Nodes by score, the best first."""
    pod = msgspec.convert(world.pod("job", gpus), Pod)
    scores = prioritize(world.view, pod, sorted(world.view.nodes), policy)
    assert all(0 <= score <= 10 for _, score in scores)
    return [name for name, _ in sorted(scores, key=lambda each: (-each[1], each[0]))]


@pytest.fixture
def mixed(world: World) -> World:
    """Three machines of one type: two GPUs on one PCIe switch free, two on different sockets free, and all eight free."""
    for name in ("apart", "pair", "whole"):
        world.node(name, kind="pcie-8")
    world.bind("a", 6, "pair", claim="0,1,4,5,6,7")
    world.bind("b", 6, "apart", claim="0,1,2,4,5,6")
    return world


def test_two_gpus_go_where_their_link_is_best_and_then_where_least_is_left(mixed: World) -> None:
    assert ranked(mixed, 2) == ["pair", "whole", "apart"]


def test_two_gpus_may_be_better_off_on_a_whole_machine(mixed: World) -> None:
    mixed.bind("c", 1, "pair", claim="2")
    assert ranked(mixed, 2) == ["whole", "apart", "pair"]


def test_one_gpu_goes_to_the_node_where_it_costs_no_link(world: World) -> None:
    world.node("nvlink", kind="dgx-a100")
    world.node("pcie", kind="pcie-8")
    world.node("last", kind="dgx-a100")
    world.bind("a", 7, "last", claim="0,1,2,3,4,5,6")
    assert ranked(world, 1) == ["last", "pcie", "nvlink"]


def test_spread_goes_to_the_emptiest_node(mixed: World) -> None:
    assert ranked(mixed, 2, Policy.SPREAD)[0] == "whole"


def test_pod_without_gpus_has_no_preference_and_too_few_gpus_score_worst(mixed: World) -> None:
    pod = msgspec.convert(mixed.pod("job", 0), Pod)
    assert prioritize(mixed.view, pod, ["pair", "nowhere"], Policy.PACK) == [("pair", 0), ("nowhere", 0)]
    pod = msgspec.convert(mixed.pod("job", 3), Pod)
    scores = dict(prioritize(mixed.view, pod, ["pair", "nowhere", "whole"], Policy.PACK))
    assert scores == {"pair": 0, "nowhere": 0, "whole": 10}


@given(free=st.sets(st.integers(1, 255), min_size=1, max_size=60), count=st.integers(1, 8), policy=st.sampled_from(Policy))
def test_scores_keep_the_order_and_only_the_best_have_ten(free: set[int], count: int, policy: Policy) -> None:
    kind = machine_type(machine("pcie-8").links)
    cases = [(kind, each) for each in sorted(free) if each.bit_count() >= count]
    scores = scored(cases, count, policy)
    assert set(scores) == set(cases)
    assert all(0 <= score <= 10 for score in scores.values())
    if cases:
        assert max(scores.values()) == 10
    best = [case[1] for case, score in scores.items() if score == 10]
    left = {each.bit_count() for each in best}
    assert len(left) <= 1  # only equals share the best score
