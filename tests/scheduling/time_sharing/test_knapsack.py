"""Which of several gangs start together: the set that fills the GPUs best."""

from __future__ import annotations

from itertools import combinations
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.cluster import gang
from muster.scheduling.time_sharing.knapsack import starting_order

SIZES = st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=1, max_size=8)


def names(sizes: list[int], gpus: int) -> list[str]:
    return [one.name for one in starting_order([gang(f"g{index}", size, 1) for index, size in enumerate(sizes)], gpus)]


def worth(sizes: list[int], gpus: int) -> float:
    """The worth of the gangs that start in this order, each if it still fits."""
    total = 0.0
    for name in names(sizes, gpus):
        size = sizes[int(name[1:])]
        if size <= gpus:
            gpus -= size
            total += sqrt(size)
    return total


def best(sizes: list[int], gpus: int) -> float:
    sets = (one for count in range(len(sizes) + 1) for one in combinations(sizes, count) if sum(one) <= gpus)
    return max(sum(map(sqrt, one)) for one in sets)


@given(SIZES, st.integers(1, 16))
def test_starting_gangs_are_the_best_set_by_brute_force(sizes: list[int], gpus: int) -> None:
    assert worth(sizes, gpus) >= best(sizes, gpus) - 1e-6


@given(SIZES, st.integers(0, 16))
def test_every_gang_is_in_the_starting_order_once(sizes: list[int], gpus: int) -> None:
    assert sorted(names(sizes, gpus)) == sorted(f"g{index}" for index in range(len(sizes)))


@pytest.mark.parametrize(
    ("sizes", "gpus", "first"),
    [
        ([8, 4, 4], 8, ["g1", "g2"]),
        ([8, 1], 8, ["g0"]),  # one small gang would leave seven GPUs idle
        ([2, 2, 2], 4, ["g0", "g1"]),
    ],
)
def test_gangs_that_fill_the_gpus_best_come_first(sizes: list[int], gpus: int, first: list[str]) -> None:
    assert names(sizes, gpus)[: len(first)] == first


def test_order_stays_where_all_gangs_fit() -> None:
    assert names([4, 1, 2], 8) == ["g0", "g1", "g2"]
