"""The one check whether GPUs that are wanted can be had."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.cluster import node
from muster.scheduling.placing.fit import Misfit, available, misfit, misfits


@pytest.mark.parametrize(
    ("wanted", "healthy", "free", "expected"),
    [
        (0b0011, 0b1111, 0b0011, None),
        (0b0011, 0b1111, 0b0001, Misfit(held=0b0010)),
        (0b0011, 0b1101, 0b0001, Misfit(unusable=0b0010)),
        (0b0111, 0b1101, 0b0001, Misfit(unusable=0b0010, held=0b0100)),
        (0b0010, 0b1101, 0b1111, Misfit(unusable=0b0010)),
        (0, 0b1111, 0, None),
    ],
)
def test_misfit_names_unusable_and_held_gpus(wanted: int, healthy: int, free: int, expected: Misfit | None) -> None:
    assert misfit(wanted, healthy, free) == expected


def test_gpu_held_in_part_is_available_to_a_share_that_is_left() -> None:
    parts = ((2, 400), (3, 700))
    assert available(0b0001, parts, 500) == 0b1001
    assert available(0b0001, parts, 1000) == 0b0001


def test_whole_placement_fits_where_each_node_has_the_gpus_free_or_they_are_its_own() -> None:
    nodes = {"n1": node("n1", 4), "n2": replace(node("n2", 4), free=0b0001)}
    assert misfits({"n1": 0b11, "n2": 0b01}, nodes) == {}
    assert misfits({"n1": 0b11, "n2": 0b11}, nodes) == {"n2": Misfit(held=0b10)}
    assert misfits({"n1": 0b11, "n2": 0b11}, nodes, own={"n2": 0b10}) == {}


def test_placement_on_a_node_that_takes_no_pods_does_not_fit() -> None:
    assert misfits({"gone": 0b11}, {}) == {"gone": Misfit(unusable=0b11)}


def test_two_gangs_fit_on_one_gpu_while_their_shares_allow() -> None:
    shared = replace(node("n1", 2), free=0b10, parts=((0, 500),))
    assert misfits({"n1": 0b01}, {"n1": shared}, share=500) == {}
    assert misfits({"n1": 0b01}, {"n1": shared}, share=600) == {"n1": Misfit(held=0b01)}
