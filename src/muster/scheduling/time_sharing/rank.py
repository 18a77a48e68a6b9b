"""Where a gang stands beside others that want GPUs: how long it ran, or whether it has waited too long.

Both change by time alone, and seldom: each standing says until when it holds, and those of a pass are kept for the next one.
A gang that changed is another object, and stands anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from muster.scheduling.gang import Gang
from muster.scheduling.placing.placement import fewest_gpus
from muster.scheduling.time_sharing.gittins import following, rounded

PATIENCE = 16.0
"""A gang that has waited this many times as long as it ran (and a slice at least) comes first."""
DAY = 86400.0
"""Of a gang that is there for longer counts what it ran in so many seconds, on average."""
_EARLY = 0.001
"""Seconds before a standing may change in which it is worked out each time: more than floating point is off by."""


class RankKey(NamedTuple):
    """What decides a rank, but for the turn of those that rank alike."""

    priority: int
    waits: bool
    age: float
    """Seconds that it ran, of those there for days the seconds a day, as `prospects` rounds them."""
    starved: bool
    """It waits, and has for longer than is fair."""


@dataclass(frozen=True, slots=True)
class Rank:
    """What of a gang decides its rank."""

    gang: Gang
    alike: RankKey
    """What it has in common with others that rank alike."""
    until: float
    """When time may make another standing of it."""
    fewest: int
    """GPUs with which it can start."""
    held: int

    @classmethod
    def of(cls, gang: Gang, now: float, slice_seconds: float) -> Rank:
        """Work out where a gang stands."""
        ran, there, held, starved = gang.ran(now), now - gang.arrived, gang.held, False
        age = rounded(ran if there <= DAY else ran * DAY / there)
        until = now + _holds(ran, there, held / max(gang.gpus, 1), age)
        if not held:
            limit = PATIENCE * max(ran, slice_seconds)
            starved = not gang.placement and now - gang.since > limit
            until = until if starved else min(until, gang.since + limit)
        alike = RankKey(gang.priority, not gang.placement, age, starved)
        return cls(gang, alike, until - _EARLY, fewest_gpus(gang), held)


def _holds(ran: float, there: float, rate: float, age: float) -> float:
    """Seconds for which what counts of a gang rounds to `age`, if it goes on to run for `rate` of the time."""
    if there <= DAY:
        return min(DAY - there, (following(age) - ran) / rate if rate else inf)
    daily = rate * DAY
    if ran * DAY / there < daily:  # it runs more of the day than it did so far
        return (following(age) * there - ran * DAY) / (daily - following(age)) if daily > following(age) else inf
    return (ran * DAY - age * there) / (age - daily) if age > daily else inf


class Ranks:
    """The standings of the last pass."""

    def __init__(self) -> None:
        self._known: dict[str, Rank] = {}

    def of(self, gangs: Iterable[Gang], now: float, slice_seconds: float) -> Mapping[str, Rank]:
        """Return the standing of each of these gangs; others are forgotten."""
        before, self._known = self._known, {}
        for gang in gangs:
            found = before.get(gang.name)
            if found is None or found.gang is not gang or now >= found.until:
                found = Rank.of(gang, now, slice_seconds)
            self._known[gang.name] = found
        return self._known
