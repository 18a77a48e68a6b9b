"""The law of a step: compute, exchange within a node, exchange over the network, fitted to what was measured."""

from __future__ import annotations

import pytest

from muster.scheduling.speed.step_time import Point, fit


def test_law_is_fitted_from_points_of_it() -> None:
    true = [Point(n, x, 0.2 + 0.03 * (n - 1) + 0.5 * x) for n, x in ((1, 0.0), (2, 0.1), (2, 0.3), (4, 0.2), (4, 0.6))]
    law = fit(true, 9.0)
    assert (law.compute, law.each, law.volume) == pytest.approx((0.2, 0.03, 0.5))


def test_noise_makes_no_coefficient_negative() -> None:
    law = fit([Point(1, 0.0, 0.2), Point(2, 0.1, 0.19), Point(2, 0.4, 0.1)], 1.0)
    assert law.each >= 0.0
    assert law.volume == 0.0
    assert law.compute > 0.0
