"""The rank of a gang among those that share: by priority, then by Gittins index; one that waited too long comes first.

No gang ranks before one of its namespace with the same priority and a higher local one: it is held back to just behind that
one. So local priorities change nothing for other namespaces, unless for the better.

How long a gang ran, and whether it waited too long, change by time alone, and seldom: each rank says until when it holds, and
those of a pass are kept for the next (`planner_cache`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import NamedTuple

from muster.scheduling.gang import Gang
from muster.scheduling.time_sharing.gittins import GittinsIndex, following, rounded

PATIENCE = 16.0
"""A gang that has waited this many times as long as it ran (and a slice at least) comes first."""
DAY = 86400.0
"""Of a gang that is there for longer counts what it ran in so many seconds, on average."""
HOLD = 2.0
"""The index of a running gang counts this many times, so that gangs do not take turns at small differences."""
_EARLY = 0.001
"""Seconds before a rank may change in which it is worked out each time: more than floating point is off by."""


class RankKey(NamedTuple):
    """What decides a rank, but for the arrival of gangs with the same key."""

    priority: int
    waits: bool
    age: float
    """Seconds that the gang ran, of gangs there for days the seconds a day, as `gittins` rounds them."""
    starved: bool
    """It waits, and has for longer than is fair."""

    def order(self, gittins: GittinsIndex) -> RankOrder:
        """Return what ranks are sorted by, first rank first."""
        index = gittins.of(self.age) * (1.0 if self.waits else HOLD)
        return (-self.priority, -inf if self.starved else -index, 0, self.waits)


RankOrder = tuple[int, float, int, bool]
"""Priority and index, the highest first; how many local priorities the gang is held back by; and whether it waits."""


@dataclass(frozen=True, slots=True)
class Rank:
    """What of a gang decides its rank."""

    gang: Gang
    key: RankKey
    until: float
    """When time may change the key."""
    fewest: int
    """GPUs with which the gang can start."""
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
        return cls(gang, RankKey(gang.priority, not gang.placement, age, starved), until - _EARLY, gang.fewest_gpus, held)


def _holds(ran: float, there: float, rate: float, age: float) -> float:
    """Seconds for which what counts of a gang rounds to `age`, if it goes on to run for `rate` of the time."""
    if there <= DAY:
        return min(DAY - there, (following(age) - ran) / rate if rate else inf)
    daily = rate * DAY
    if ran * DAY / there < daily:  # it runs more of the day than it did so far
        return (following(age) * there - ran * DAY) / (daily - following(age)) if daily > following(age) else inf
    return (ran * DAY - age * there) / (age - daily) if age > daily else inf


def held_back(ranks: Iterable[Rank], gittins: GittinsIndex) -> dict[str, RankOrder]:
    """Return the order of each gang that is held back to behind one of its namespace, by name."""
    by_namespace: dict[tuple[int, str], list[Rank]] = {}
    for rank in ranks:
        by_namespace.setdefault((rank.key.priority, rank.gang.namespace), []).append(rank)
    orders: dict[str, RankOrder] = {}
    for own in by_namespace.values():
        last, depth = -inf, 0
        by_local_priority = sorted(own, key=lambda rank: -rank.gang.local_priority)
        for _, equals in groupby(by_local_priority, key=lambda rank: rank.gang.local_priority):
            lowest = last
            for rank in equals:
                priority, index, _, waits = rank.key.order(gittins)
                if index <= last:
                    orders[rank.gang.name] = (priority, last, depth, waits)
                lowest = max(lowest, index)
            last, depth = lowest, depth + 1
    return orders


class Ranks:
    """The ranks of the last pass."""

    def __init__(self) -> None:
        self._ranks: dict[str, Rank] = {}

    def of(self, gangs: Iterable[Gang], now: float, slice_seconds: float) -> Mapping[str, Rank]:
        """Return the rank of each of these gangs; others are forgotten."""
        before, self._ranks = self._ranks, {}
        for gang in gangs:
            rank = before.get(gang.name)
            if rank is None or now >= rank.until or (rank.gang is not gang and rank.gang != gang):
                rank = Rank.of(gang, now, slice_seconds)
            self._ranks[gang.name] = rank
        return self._ranks
