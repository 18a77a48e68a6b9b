"""kube-scheduler binds what muster admits, and muster admits what kube-scheduler fits: a slice of `make bench-oracle`."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.oracle import run
from benchmarks.oracle.contest import Tally
from benchmarks.oracle.mix import CONSTRAINTS, HARD_CONSTRAINTS, specs, worlds
from hypothesis import given
from hypothesis import strategies as st

WORLDS, GANGS = 2, 5


def test_two_hard_constraints_are_drawn_for_a_third_of_the_gangs_at_least() -> None:
    assert sum(count > 1 for count in HARD_CONSTRAINTS) >= len(HARD_CONSTRAINTS) / 3


@given(st.data())
def test_every_constraint_changes_the_pods(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(CONSTRAINTS)))
    plain: dict[str, Any] = {"containers": [{"name": "train", "resources": {"limits": {}}}]}
    before = repr(plain)
    data.draw(st.composite(lambda draw: CONSTRAINTS[kind](draw, plain))())
    assert repr(plain) != before


@given(worlds(1), specs())
def test_worlds_are_drawn_within_their_bounds(world: Any, roles: Any) -> None:
    assert len(world.nodes) == 6
    assert len(world.gangs) == 1
    size, _ = roles["worker"]
    assert 1 <= size <= 6


def test_misses_are_shares_of_what_was_admitted_and_of_what_fits() -> None:
    tally = Tally(gangs=10, fitted=4, admitted=5, bound=4, both=3)
    assert (tally.bound_share, tally.admitted_share) == (0.8, 0.75)
    assert (Tally().bound_share, Tally().admitted_share) == (1.0, 1.0)


@pytest.fixture(scope="module")
def tally() -> Tally:
    return run(WORLDS, GANGS, start=7)


def test_kube_scheduler_binds_what_muster_admits_at_the_first_try(tally: Tally) -> None:
    assert tally.admitted
    assert not [miss for miss in tally.misses if miss.startswith("admitted")]


def test_muster_admits_what_kube_scheduler_fits(tally: Tally) -> None:
    assert tally.fitted
    assert not [miss for miss in tally.misses if miss.startswith("fits")]
