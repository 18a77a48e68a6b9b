"""Exponential back-off of gangs that could not start or failed."""

from __future__ import annotations

LONGEST_BACKOFF = 300.0
FIRST_BACKOFF = 1.0
"""Seconds before a gang that was requeued for a reason outside it is placed again; doubled each time in a row."""
FAILURE_BACKOFF = 10.0
"""Seconds before a gang that failed by itself is started again; doubled each time, as the Job controller does."""


def doubled(first: float, times: int) -> float:
    """Return `first` doubled so many times, at most LONGEST_BACKOFF; `times` may be larger than a float's exponent."""
    return min(first * 2.0 ** min(times, 30), LONGEST_BACKOFF)
