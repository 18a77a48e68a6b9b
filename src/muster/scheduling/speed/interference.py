"""What neighbours cost a gang: the share that each adds to its step, measured where it can be, else predicted.

Losses add up: every neighbour makes the gang wait a while longer. Of two kinds that never met, the loss is the geometric
mean of what the one suffers from others and what the other causes, each measured or, where it never was, predicted; so a kind
that nobody hurts is expected to be hurt by nobody. Predictions: on the same GPU by summed utilisation; under the same switch by
the sizes of the models; on the same network cards by the gang's own traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from math import fsum, sqrt

from muster.scheduling.profile import UNKNOWN, CoLocation, Profile, Shape, Via

Neighbour = tuple[Via, str]

PAIR_SPEED = ((0.0, 2.0), (1.0, 1.95), (1.125, 1.85), (1.375, 1.68), (1.625, 1.47), (1.875, 1.39))
"""Speeds of two jobs on one GPU beside alone, summed, by summed utilisation: medians of 1,388 pairs (Lucid, ASPLOS'23)."""
SWITCH_LOSS = 0.16
"""What language models lose to each other under one switch: the mean of four measurements (Gandiva, OSDI'18, figure 3)."""
LARGE_MB = 250.0
"""The size of the one that lost most there; smaller models share a switch with less loss, in proportion."""
_WORST_FIRST = {Via.GPU: 0, Via.NIC: 1, Via.SWITCH: 2}


class Interference:
    """Losses between kinds, learned from `profiles`."""

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        self._profiles = profiles
        self._measured: dict[str, dict[CoLocation, float]] = {}
        self._singles: dict[str, dict[Neighbour, float]] = {}

    def added(self, kind: str, co_location: CoLocation, flow: float) -> float:
        """Return what a company adds to a step of `kind`, as a share; its exchange over the network is `flow` of a step."""
        if not co_location:
            return 0.0
        measured = self._totals(kind).get(co_location)
        return sum(self._one(kind, one, flow) for one in co_location) if measured is None else measured

    def is_learned(self, kind: str, co_location: CoLocation) -> bool:
        """Say whether what these neighbours add follows from measurements alone."""
        if not co_location or co_location in self._totals(kind):
            return True
        learned = self._learned(kind)
        suffered = {via for via, _ in learned}
        return all(
            neighbour in learned or (neighbour[0] in suffered and neighbour in self._caused) for neighbour in co_location
        )

    def _one(self, kind: str, one: Neighbour, flow: float) -> float:
        known = self._learned(kind)
        if one in known:
            return known[one]
        prior = self._predicted(kind, one, flow)
        suffered = _mean([loss for (via, _), loss in known.items() if via is one[0]])
        caused = _mean(self._caused.get(one, []))
        return sqrt((prior if suffered is None else suffered) * (prior if caused is None else caused))

    def _predicted(self, kind: str, one: Neighbour, flow: float) -> float:
        via, other = one
        mine, theirs = self._profiles.get(kind, UNKNOWN), self._profiles.get(other, UNKNOWN)
        if via is Via.GPU:
            return packing_loss(_share(mine.utilisation) + _share(theirs.utilisation))
        if via is Via.SWITCH:
            return SWITCH_LOSS * _share(mine.model_mb, LARGE_MB) * _share(theirs.model_mb, LARGE_MB)
        return flow

    def _totals(self, kind: str) -> dict[CoLocation, float]:
        if kind not in self._measured:
            self._measured[kind] = _losses(self._profiles.get(kind, UNKNOWN).rates)
        return self._measured[kind]

    def _learned(self, kind: str) -> dict[Neighbour, float]:
        """The loss to each neighbour: of companies that share the most in one way, what the lesser ones leave of the total."""
        if kind not in self._singles:
            found = self._singles[kind] = {}
            for co_location, total in sorted(self._totals(kind).items(), key=lambda item: (len(set(item[0])), item)):
                most = min((via for via, _ in co_location), key=_WORST_FIRST.__getitem__)
                unknown = [one for one in co_location if one[0] is most and one not in found]
                rest = sum(found.get(one, self._predicted(kind, one, 0.0)) for one in co_location if one not in unknown)
                for one in unknown:
                    found[one] = max(0.0, total - rest) / len(unknown)
        return self._singles[kind]

    @cached_property
    def _caused(self) -> dict[Neighbour, list[float]]:
        """What each neighbour cost those who met it."""
        found: dict[Neighbour, list[float]] = {}
        for kind, profile in self._profiles.items():
            if len(profile.rates) > 1:
                for one, loss in self._learned(kind).items():
                    found.setdefault(one, []).append(loss)
        return found


def packing_loss(utilisation: float) -> float:
    """Return what one of two jobs loses on a GPU that they would keep busy for `utilisation` together, as a share of a step."""
    for (x0, y0), (x1, y1) in pairwise(PAIR_SPEED):
        if utilisation <= x1:
            return 2.0 / (y0 + (y1 - y0) * (utilisation - x0) / (x1 - x0)) - 1.0
    return 2.0 / y1 * utilisation / x1 - 1.0


def unhindered(rates: Mapping[tuple[Shape, CoLocation], float]) -> dict[Shape, float]:
    """Return the rate of each shape without neighbours.

    Where it was never alone, the best that it had on GPUs of its own; where it never had any, as if it had taken turns on them.
    """
    found: dict[Shape, tuple[bool, bool, float]] = {}
    for (shape, co_location), rate in rates.items():
        if rate > 0:
            turns = 1 + sum(via is Via.GPU for via, _ in co_location)
            found[shape] = max(found.get(shape, (False, False, 0.0)), (not co_location, turns == 1, rate * turns))
    return {shape: rate for shape, (_, _, rate) in found.items()}


def _losses(rates: Mapping[tuple[Shape, CoLocation], float]) -> dict[CoLocation, float]:
    """What each company was measured to add to a step: the mean over shapes."""
    if len(rates) < 2:
        return {}
    free = unhindered(rates)
    found: dict[CoLocation, list[float]] = {}
    for (shape, co_location), rate in rates.items():
        if co_location and rate > 0:
            found.setdefault(co_location, []).append(max(0.0, free[shape] / rate - 1.0))
    return {co_location: sum(losses) / len(losses) for co_location, losses in found.items()}


def _share(value: float | None, whole: float = 1.0) -> float:
    """A part of `whole`, at most all of it; all where nobody knows."""
    return 1.0 if value is None else min(1.0, value / whole)


def _mean(values: list[float]) -> float | None:
    return fsum(values) / len(values) if values else None  # in any order the same
