"""The worth of a set of GPUs is the slowest hop of its best ring: exact, for every machine of the catalogue."""

from __future__ import annotations

from itertools import pairwise, permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.cluster import known
from muster.machines.catalogue import catalogue
from muster.scheduling.topology import links as module
from muster.scheduling.topology.links import (
    MOST_GPUS,
    UNLIMITED,
    BadLinks,
    Links,
    bandwidth,
    canonical,
    gpu_set,
    indices,
    matrix,
    ring_bandwidth,
    uniform,
)

WORDS = ("NV1", "NV2", "NV12", "PIX", "PXB", "PHB", "NODE", "SYS")


def slowest_hop_of_best_ring(links: Links, gpus: int) -> float:
    """By trying every ring."""
    first, *others = indices(gpus)
    rings = ((first, *order, first) for order in permutations(others))
    return max(min(bandwidth(links[a][b]) for a, b in pairwise(ring)) for ring in rings)


@st.composite
def matrices(draw: st.DrawFn) -> Links:
    size = draw(st.integers(2, 6))
    cells = {(i, j): draw(st.sampled_from(WORDS)) for i in range(size) for j in range(i)}
    return matrix([["X" if i == j else cells[max(i, j), min(i, j)] for j in range(size)] for i in range(size)])


@pytest.mark.parametrize("name", [name for name, one in catalogue().items() if one.gpus <= 8])
def test_rings_of_known_machines_are_exact(name: str) -> None:
    links = known(name).links
    sets = [gpus for gpus in range(1 << len(links)) if 2 <= gpus.bit_count() <= 5 or gpus == (1 << len(links)) - 1]
    assert [ring_bandwidth(links, gpus) for gpus in sets] == [slowest_hop_of_best_ring(links, gpus) for gpus in sets]


@settings(max_examples=200)
@given(matrices())
def test_rings_of_any_machine_are_exact(links: Links) -> None:
    for gpus in range(1 << len(links)):
        if gpus.bit_count() > 1:
            assert ring_bandwidth(links, gpus) == slowest_hop_of_best_ring(links, gpus)


def test_single_gpu_is_limited_by_no_link() -> None:
    assert ring_bandwidth(known("pcie-8").links, 0b100) == UNLIMITED
    assert ring_bandwidth(known("pcie-8").links, 0) == UNLIMITED


def test_ring_of_sixteen_gpus_behind_switches_has_their_bandwidth() -> None:
    assert ring_bandwidth(known("dgx-2").links, (1 << 16) - 1) == bandwidth("NV6")


def test_links_rank_by_nvlinks_then_by_bridges() -> None:
    ways = [bandwidth(word) for word in ("NV12", "NV2", "NV1", "PIX", "PXB", "PHB", "NODE", "SYS")]
    assert ways == sorted(set(ways), reverse=True)


def test_gpu_set_is_its_indices() -> None:
    assert gpu_set([0, 3, 5]) == 0b101001
    assert indices(0b101001) == (0, 3, 5)
    assert indices(0) == ()


def test_matrix_of_more_gpus_than_a_node_may_have_is_refused() -> None:
    assert len(matrix(uniform(MOST_GPUS))) == MOST_GPUS
    with pytest.raises(BadLinks, match="65 GPUs are more than the 64 that muster plans with"):
        uniform(MOST_GPUS + 1)
    with pytest.raises(BadLinks, match="5000 GPUs are more than the 64 that muster plans with"):
        matrix([["X"]] * 5000)


def test_ring_of_many_gpus_is_as_fast_as_the_exact_search_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sockets of four switched pairs each, and every set of at least three of their GPUs."""
    links = matrix([[_link(i, j) for j in range(8)] for i in range(8)])
    sets = [gpus for gpus in range(1 << 8) if gpus.bit_count() > 2]
    exact = [ring_bandwidth(links, gpus) for gpus in sets]
    monkeypatch.setattr(module, "EXACT_RING_GPUS", 2)
    assert [ring_bandwidth(links, gpus) for gpus in sets] == exact


def _link(i: int, j: int) -> str:
    return "X" if i == j else "PIX" if i // 2 == j // 2 else "NODE" if i // 4 == j // 4 else "SYS"


@pytest.mark.parametrize("seed", range(20))
def test_ring_of_many_gpus_is_never_called_slower_than_it_is(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = Random(seed)
    rows = [["X"] * 6 for _ in range(6)]
    for i in range(6):
        for j in range(i):
            rows[i][j] = rows[j][i] = dice.choice(["NV1", "NV2", "PIX", "NODE", "SYS"])
    links = matrix(rows)
    exact = ring_bandwidth(links, 0b111111)
    monkeypatch.setattr(module, "EXACT_RING_GPUS", 2)
    assert ring_bandwidth(links, 0b111111) >= exact


def test_old_link_name_is_read() -> None:
    assert canonical("SOC") == "SYS"
    assert matrix([["X", "SOC"], ["SOC", "X"]]) == uniform(2)


@pytest.mark.parametrize(
    "word", ["", "NV", "NVx", "NV²", "nv2", "PCI", "-", "XX", "NV0", "NV-1", "NV100", "NV" + "9" * 400, "NV٣"]
)
def test_word_that_names_no_link_is_refused(word: str) -> None:
    with pytest.raises(BadLinks, match="is no GPU link; expected X, NV1 to NV99 or one of PIX"):
        canonical(word)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["X", "SYS"], ["SYS"]], "row 1 of the link matrix has 1 cells, expected 2"),
        ([["X", "SYS", "SYS"], ["SYS", "X", "SYS"]], "row 0 of the link matrix has 3 cells, expected 2"),
        ([["X", "X"], ["SYS", "X"]], "cell 0,1 of the link matrix is 'X'"),
        ([["PIX", "SYS"], ["SYS", "X"]], "cell 0,0 of the link matrix is 'PIX'"),
    ],
)
def test_malformed_matrix_is_refused(rows: list[list[str]], message: str) -> None:
    with pytest.raises(BadLinks, match=message):
        matrix(rows)
