"""Speed-up: the rate of a gang by its number of GPUs, from measured rates."""

from __future__ import annotations

import pytest

from muster.scheduling.elastic.speed_up import curve, rate
from muster.scheduling.profile import NO_NEIGHBOURS, CoLocation, Profile, Shape, Via


def shape(*counts: int) -> Shape:
    return Shape("", counts, 12.0)


def test_rate_between_measured_sizes_is_linear() -> None:
    assert rate([(1, 1.0), (2, 1.8), (4, 2.8)], 3) == pytest.approx(2.3)


def test_rate_beyond_measured_sizes_grows_less_up_to_the_double() -> None:
    measured = [(1, 1.0), (2, 1.8)]
    assert 1.8 < rate(measured, 3) < 2.7
    assert rate(measured, 4) == rate(measured, 16) == pytest.approx(1.8 * 2**0.9)


def test_shapes_on_more_nodes_than_needed_count_only_where_no_other_was_measured() -> None:
    seen = Profile({(shape(2), NO_NEIGHBOURS): 2.0, (shape(1, 1), NO_NEIGHBOURS): 1.0, (shape(2, 1), NO_NEIGHBOURS): 1.5})
    assert curve(seen, 4) == [(2, 2.0), (3, 1.5)]


def test_order_of_measurements_makes_no_difference() -> None:
    beside: CoLocation = ((Via.NIC, "b"),)
    rates = {(shape(2), NO_NEIGHBOURS): 0.1, (shape(2), beside): 0.2, (shape(2), (*beside, *beside)): 0.3}
    assert curve(Profile(rates), 4) == curve(Profile(dict(reversed(rates.items()))), 4)
