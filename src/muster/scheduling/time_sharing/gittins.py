"""The Gittins index: how soon a gang may be expected to end, by how long others ran; nobody is told how long a job will be.

The index of a gang that has run for `age` seconds is the highest ratio, over all further times, of the chance that it ends
within that time to the seconds that it is expected to run in it (Gittins, 1979; for training jobs, Tiresias, NSDI'19). Running
the highest index first minimises the mean completion time on one server, knowing only the distribution. Where most jobs are
short and a few very long, it falls with age, and the gang that ran least goes first; where all take about as long, it rises,
and no gang is suspended shortly before its end.

Before anything has ended, run times are taken as spread evenly over all orders of magnitude, from a minute to a month: then the
index is about 1 / age, and the order that of least attained service.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import floor, inf, log

STEP = 1.15
"""Ages closer than this ratio are taken as one: an index is no more exact than that."""
PRIOR_WEIGHT = 10.0
"""The prior counts as many run times as this."""
_POWERS = range(floor(log(60.0, STEP)), floor(log(30 * 86400.0, STEP)) + 1)
PRIOR = tuple((STEP ** (power + 0.5), PRIOR_WEIGHT / len(_POWERS)) for power in _POWERS)
"""Run times from a minute to a month with their weights, evenly spread on a logarithmic scale."""


class GittinsIndex:
    """The index of each age, given the run times in seconds of gangs that ended lately."""

    def __init__(self, ended: Sequence[float]) -> None:
        self._run_times = sorted((*((seconds, 1.0) for seconds in ended), *PRIOR))
        self._indices: dict[float, float] = {}

    def of(self, age: float) -> float:
        """Return the index of a gang that has run for `age` seconds, in ends per second of running."""
        age = rounded(age)
        if age not in self._indices:
            self._indices[age] = self._highest(age)
        return self._indices[age]

    def _highest(self, age: float) -> float:
        longer = self._run_times[bisect_right(self._run_times, (age, inf)) :]
        if not longer:
            return 1.0 / max(age, 1.0)  # older than any: taken to run about as long again
        alive = sum(weight for _, weight in longer)
        highest = ended = spent = 0.0
        for seconds, weight in longer:
            ended += weight
            spent += weight * (seconds - age)
            highest = max(highest, ended / (spent + max(0.0, alive - ended) * (seconds - age)))
        return highest


def rounded(age: float) -> float:
    """Return the largest power of STEP, in seconds, that is not over the age."""
    return STEP ** floor(log(age, STEP)) if age >= 1.0 else 0.0


def following(rounded_age: float) -> float:
    """Return the age that is rounded to the next power."""
    return rounded_age * STEP if rounded_age else 1.0
