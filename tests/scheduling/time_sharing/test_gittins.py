"""The Gittins index of a gang, from how long others ran."""

from __future__ import annotations

import pytest

from muster.scheduling.time_sharing.gittins import PRIOR, STEP, GittinsIndex

MANY = 2000


def brute_force(times: list[tuple[float, float]], age: float) -> float:
    """The index by its definition: over possible ends, the best ratio of the chance to end by then to the seconds run."""
    left = [(time - age, weight) for time, weight in times if time > age]
    limits = [limit for limit, _ in left]
    return max(sum(w for t, w in left if t <= limit) / sum(w * min(t, limit) for t, w in left) for limit in limits)


@pytest.mark.parametrize("age", [0.0, 150.0, 1000.0])
def test_index_is_the_best_chance_to_end_per_second(age: float) -> None:
    times = [100.0, 120.0, 500.0, 500.0, 4000.0, 90_000.0]
    near = max(t for t in (STEP**n for n in range(200)) if t <= age) if age else 0.0
    assert GittinsIndex(times).of(age) == pytest.approx(brute_force([*((t, 1.0) for t in times), *PRIOR], near))


def test_index_falls_with_age_before_anything_ended() -> None:
    found = [GittinsIndex(()).of(age) for age in (100.0, 1000.0, 10_000.0, 100_000.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 50 * found[2]
    assert GittinsIndex(()).of(0.0) > found[1]


def test_index_rises_towards_the_end_where_all_gangs_take_equally_long() -> None:
    known = GittinsIndex([600.0] * MANY)
    assert known.of(0.0) < known.of(300.0) < known.of(550.0)
    assert known.of(700.0) < known.of(0.0)


def test_index_falls_where_most_gangs_are_short_and_few_long() -> None:
    known = GittinsIndex([60.0] * MANY + [100_000.0] * 20)
    assert known.of(0.0) > 100 * known.of(1000.0)


def test_gang_older_than_any_is_expected_to_run_as_long_again() -> None:
    assert GittinsIndex(()).of(1e8) == pytest.approx(1e-8, rel=0.2)


def test_few_ends_do_not_outweigh_the_prior() -> None:
    """Two jobs that took an hour do not keep a third on its GPUs for an hour."""
    assert GittinsIndex([3600.0] * 2).of(3000.0) < GittinsIndex(()).of(0.0)
