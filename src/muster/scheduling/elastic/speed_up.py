"""What more GPUs make of a gang: its rate by their number, from what was measured.

Measured rates are joined by straight lines. Beyond the largest number measured, a rate is taken to grow a little less than the
number, and no further than to its double: so gangs explore by doubling, and each step is measured before the next. A gang of
which nothing was measured is taken to make nothing of more GPUs, and stays as small as it can until something is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import fsum

from muster.scheduling.profile import Profile

FALLS = 0.9
"""The power of the number of GPUs with which a rate is taken to grow beyond the largest number that was measured."""

Curve = Sequence[tuple[int, float]]
"""Rates by number of GPUs, ascending."""


def curve(profile: Profile, node_gpus: int) -> Curve:
    """Return the measured rates by number of GPUs: the mean over the shapes on the fewest nodes, or over those there are."""
    tight: dict[int, list[float]] = {}
    loose: dict[int, list[float]] = {}
    for (shape, _), measured in profile.rates.items():
        nodes = -(-shape.gpus // node_gpus)
        (tight if len(shape.counts) <= nodes else loose).setdefault(shape.gpus, []).append(measured)
    return sorted((gpus, fsum(several) / len(several)) for gpus, several in (loose | tight).items())


def rate(rates: Curve, gpus: int) -> float:
    """Return the rate to count with: linear between those measured, and beyond them to the double; 1 where nothing is known."""
    if not rates:
        return 1.0
    (first, lowest), (last, highest) = rates[0], rates[-1]
    if gpus <= first:
        return lowest * gpus / first
    if gpus >= last:
        return highest * float((min(gpus, 2 * last) / last) ** FALLS)
    index = bisect_left(rates, gpus, key=lambda point: point[0])
    (low, before), (high, after) = rates[index - 1], rates[index]
    return before + (after - before) * (gpus - low) / (high - low)
