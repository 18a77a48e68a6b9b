"""Placements compared with proved optima: a slice of `make bench-yardstick`."""

from __future__ import annotations

from benchmarks.yardstick import KINDS, outcomes

from muster.scheduling.topology.node import Level


def test_placements_reach_the_proved_optimum_but_for_one_in_eighty() -> None:
    found = outcomes(80)
    assert {one.kind for one in found} == set(KINDS)
    assert any(one.best[0] > Level.NODE for one in found)
    assert [one for one in found if one.ours is None] == []
    assert sum(one.worse for one in found) <= 1, [one for one in found if one.worse]
