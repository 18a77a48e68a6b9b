"""How soon a gang may be expected to end, from how long others ran: nobody is told how long a job will be.

The Gittins index of a gang that has run for `age` seconds is the most that it promises: over all further times, the chance
that it ends within it, for each second that it would run (Gittins, 1979; for training jobs, Tiresias, NSDI'19). Running the
highest index first minimises the mean completion time on one server, knowing only the distribution. Where most jobs are short
and a few very long it falls with age, and the gang that had least goes first; where all take about as long it rises, and nobody
is suspended shortly before the end.

Before anything has ended, run times are taken as spread evenly over all orders of magnitude, from a minute to a month: then the
index is about 1 / age, and the order that of least attained service.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import floor, inf, log

STEP = 1.15
"""Ages closer than this are taken as one: an index is no more exact than that."""
PRIOR_WEIGHT = 10.0
"""As many run times are taken as seen before any was."""
_POWERS = range(floor(log(60.0, STEP)), floor(log(30 * 86400.0, STEP)) + 1)
PRIOR = tuple((STEP ** (power + 0.5), PRIOR_WEIGHT / len(_POWERS)) for power in _POWERS)
"""Run times from a minute to a month with their weights, evenly spread on a logarithmic scale."""


class GittinsIndex:
    """The index of each age, given the run times in seconds of gangs that ended lately."""

    def __init__(self, ended: Sequence[float]) -> None:
        self._times = sorted((*((seconds, 1.0) for seconds in ended), *PRIOR))
        self._known: dict[float, float] = {}

    def index(self, age: float) -> float:
        """Return what a gang that has run for `age` seconds promises, in ends per second of running."""
        near = rounded(age)
        found = self._known.get(near)
        if found is None:
            found = self._known[near] = self._best(near)
        return found

    def _best(self, age: float) -> float:
        left = self._times[bisect_right(self._times, (age, inf)) :]
        if not left:
            return 1.0 / max(age, 1.0)  # older than any: taken to run about as long again
        going = sum(weight for _, weight in left)
        best = ends = spent = 0.0
        for seconds, weight in left:
            ends += weight
            spent += weight * (seconds - age)
            best = max(best, ends / (spent + max(0.0, going - ends) * (seconds - age)))
        return best


def rounded(age: float) -> float:
    """Return the largest power of STEP, in seconds, that is not over the age."""
    return STEP ** floor(log(age, STEP)) if age >= 1.0 else 0.0


def following(rounded: float) -> float:
    """Return the age that is rounded to the next power."""
    return rounded * STEP if rounded else 1.0
