"""What a move costs a gang, and when it pays.

How long a gang will still run nobody knows; run times are heavy-tailed, so a gang that has run for a while is taken to run as
long again (Harchol-Balter and Downey, 1997, found this of process lifetimes and migrate by it).
"""

from __future__ import annotations

from muster.scheduling.gang import Gang
from muster.scheduling.speed.rates import Rates

COST_SECONDS = 10.0
"""What a move costs where it was never measured: CRIU took 8 to 10 s for a job of one GPU (Gandiva, section 4.2)."""
LEAST_GAIN = 0.1
"""GPUs at full speed that a change must gain for each gang that moves."""


def move_seconds(rates: Rates, gang: Gang) -> float:
    """Return what a move costs the gang, in seconds of its training."""
    measured = rates.profile(gang).migrate_seconds
    return COST_SECONDS if measured is None else measured


def pays(gain: float, seconds_so_far: float, cost: float) -> bool:
    """Say whether a rate that is `gain` times as high makes up for `cost` seconds lost, in the time that is to be expected."""
    return (gain - 1.0) * seconds_so_far > cost * gain
