"""When a move pays."""

from __future__ import annotations

import pytest

from muster.scheduling.rebalancing.cost import pays


@pytest.mark.parametrize(
    ("gain", "so_far", "cost", "worth"), [(2.0, 30.0, 10.0, True), (2.0, 20.0, 10.0, False), (1.0, 1e9, 1.0, False)]
)
def test_move_pays_where_the_gain_exceeds_the_cost(gain: float, so_far: float, cost: float, worth: bool) -> None:
    """Staying gives `so_far` at rate 1; moving gives `so_far` less the cost at rate `gain`."""
    assert pays(gain, so_far, cost) is worth
    assert (gain * (so_far - cost) > so_far) is worth
