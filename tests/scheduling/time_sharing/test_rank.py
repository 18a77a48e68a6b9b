"""Ranks kept from pass to pass equal those worked out anew."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from builders.cluster import gang, running
from builders.sessions import TURNS
from muster.scheduling.gang import Gang
from muster.scheduling.time_sharing.rank import DAY, Rank, Ranks

SLICE = 60.0
SPANS = st.floats(1.0, 20 * DAY)


def came(there: float, share: float, runs: bool) -> Gang:
    """A gang that arrived `there` seconds ago, ran for a share of them, and now runs or waits."""
    one = running("a", ("n", [0]), sharing=TURNS) if runs else gang("a", 1, 1, sharing=TURNS)
    return replace(one, arrived=-there, attained=there * share, since=0.0)


@given(there=SPANS, share=st.floats(0.0, 1.0), runs=st.booleans(), steps=st.lists(SPANS, min_size=1, max_size=6))
def test_kept_rank_equals_one_worked_out_anew(there: float, share: float, runs: bool, steps: list[float]) -> None:
    one = came(there, share, runs)
    kept, now = Ranks(), 0.0
    for step in (0.0, *steps):
        now += step
        assert kept.of([one], now, SLICE)["a"].key == Rank.of(one, now, SLICE).key


@given(there=SPANS, share=st.floats(0.0, 1.0), runs=st.booleans())
def test_rank_holds_for_as_long_as_it_says(there: float, share: float, runs: bool) -> None:
    one = came(there, share, runs)
    found = Rank.of(one, 0.0, SLICE)
    for part in (0.25, 0.5, 0.999):
        moment = part * min(found.until, 100 * DAY)
        assert moment <= 0 or Rank.of(one, moment, SLICE).key == found.key
