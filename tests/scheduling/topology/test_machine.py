"""Which GPUs of a machine are chosen: the fastest for sensitive tasks, the least useful to others for the rest."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.cluster import known
from muster.machines.catalogue import catalogue
from muster.scheduling.topology.links import gpu_set, indices, uniform
from muster.scheduling.topology.machine import EXHAUSTIVE_GPUS, MachineType, machine_type, unknown_machine

BRIDGED = known("a100-pcie")  # NV12 in the pairs 01 23 45 67, NODE in a socket, SYS across
SWITCHED = known("pcie-8")  # PIX in the pairs, PHB in a socket, SYS across
CUBE = known("v100")  # the hybrid cube mesh of DGX-1V
FREE_SETS = (0xFF, 0b10110110, 0b01111110, 0b11010011, 0b00001111)


def best(machine: MachineType, free: int, count: int, sensitive: bool) -> int:
    """The best choice, by trying every subset."""

    def worth(gpus: int) -> tuple[float, ...]:
        ring, inside, left = machine.ring(gpus), machine.usefulness(gpus), machine.usefulness(free & ~gpus)
        return (ring, inside, left, -gpus) if sensitive else (left, -ring, -inside, -gpus)

    return max((gpu_set(chosen) for chosen in combinations(indices(free), count)), key=worth)


@pytest.mark.parametrize("machine", [BRIDGED, SWITCHED, CUBE], ids=["bridged", "switched", "cube"])
@pytest.mark.parametrize("free", FREE_SETS, ids=bin)
def test_chosen_gpus_are_the_best_of_all_subsets(machine: MachineType, free: int) -> None:
    for count in range(1, free.bit_count() + 1):
        assert machine.fastest(free, count) == best(machine, free, count, True)
        assert machine.leftover(free, count) == best(machine, free, count, False)


@pytest.mark.parametrize("name", [name for name, machine in catalogue().items() if machine.gpus <= EXHAUSTIVE_GPUS])
@settings(max_examples=25)
@given(data=st.data())
def test_chosen_gpus_are_the_best_of_all_subsets_on_every_machine_type(name: str, data: st.DataObject) -> None:
    machine = known(name)
    free = data.draw(st.integers(1, machine.all))
    count = data.draw(st.integers(1, free.bit_count()))
    assert machine.fastest(free, count) == best(machine, free, count, True)
    assert machine.leftover(free, count) == best(machine, free, count, False)


@pytest.mark.parametrize(
    ("machine", "free", "count", "fastest", "leftover"),
    [
        pytest.param(BRIDGED, [0, 2, 3, 5], 2, [2, 3], [0, 5], id="the bridged pair, and the two singles"),
        pytest.param(BRIDGED, range(8), 2, [0, 1], [0, 1], id="breaking one bridge hurts less than breaking two"),
        pytest.param(BRIDGED, [0, 2, 3], 1, [0], [0], id="a single GPU breaks no bridge"),
        pytest.param(BRIDGED, range(8), 4, [0, 1, 2, 3], [0, 1, 2, 3], id="one socket"),
        pytest.param(BRIDGED, [0, 1, 4, 6, 7], 3, [4, 6, 7], [0, 1, 4], id="three in one socket beside a bridge"),
        pytest.param(SWITCHED, [1, 2, 4, 5], 2, [4, 5], [1, 2], id="the pair of one switch, and the pair of two"),
        pytest.param(SWITCHED, [0, 2, 3, 7], 3, [0, 2, 3], [0, 2, 7], id="not across sockets"),
        pytest.param(CUBE, [0, 1, 3], 2, [0, 3], [0, 1], id="two NVLinks before one"),
    ],
)
def test_chosen_gpus_of_known_machines_are_the_expected_ones(
    machine: MachineType, free: list[int], count: int, fastest: list[int], leftover: list[int]
) -> None:
    assert indices(machine.fastest(gpu_set(free), count)) == tuple(fastest)
    assert indices(machine.leftover(gpu_set(free), count)) == tuple(leftover)


def test_four_gpus_of_the_cube_mesh_are_a_ring_of_nvlinks() -> None:
    assert CUBE.ring(CUBE.fastest(0xFF, 4)) >= 20.0
    assert CUBE.ring(gpu_set([0, 5, 2, 7])) < 20.0


def test_score_is_relative_to_the_best_of_the_machine() -> None:
    assert BRIDGED.score(0xFF, 2) == 1.0
    assert BRIDGED.score(gpu_set([0, 2]), 2) == pytest.approx(9.0 / 240.0)
    assert BRIDGED.score(gpu_set([0]), 1) == 1.0


def test_usefulness_is_the_bandwidth_of_all_pairs() -> None:
    assert BRIDGED.usefulness(gpu_set([0, 1, 2])) == 240.0 + 9.0 + 9.0
    assert BRIDGED.usefulness(1) == 0.0


def test_choice_of_more_gpus_than_are_free_is_refused() -> None:
    with pytest.raises(ValueError, match="asked for 3 GPUs of a free set of 2"):
        BRIDGED.fastest(0b11, 3)
    with pytest.raises(ValueError, match="asked for -1 GPUs"):
        BRIDGED.fastest(0b11, -1)


def test_choice_of_none_or_of_all_gpus_is_trivial() -> None:
    assert BRIDGED.fastest(0b1010, 0) == 0
    assert BRIDGED.leftover(0b1010, 2) == 0b1010
    assert unknown_machine(0).fastest(0, 0) == 0


def test_equal_matrices_share_one_machine_type() -> None:
    assert machine_type([list(row) for row in BRIDGED.links]) is BRIDGED
    assert unknown_machine(4) is machine_type(uniform(4))


def test_large_machine_is_narrowed_but_keeps_its_groups() -> None:
    """16 GPUs in switches of four: the groups are found without trying all 1,820 subsets."""
    rows = [["X" if i == j else "PIX" if i // 4 == j // 4 else "SYS" for j in range(16)] for i in range(16)]
    machine = machine_type(rows)
    assert EXHAUSTIVE_GPUS < 16
    assert machine.fastest(machine.all & ~0b1, 4) == 0b11110000
    assert machine.ring(machine.fastest(machine.all, 4)) == 12.0


def test_of_equal_gpus_on_a_large_machine_the_first_are_chosen() -> None:
    machine = unknown_machine(16)
    assert machine.fastest(machine.all & ~0b10, 3) == 0b1101
    assert machine.leftover(machine.all & ~0b10, 3) == 0b1101
