"""Interference: the loss of a gang to its neighbours, as a share of its step, measured or predicted.

Losses add up, since the gang waits a while for each neighbour. Two kinds that never met are expected to lose the geometric mean
of two losses: what the one suffers from others, and what the other causes. Each of the two is measured, else predicted; so a
kind that suffers from no neighbour is expected to suffer from none. Predictions follow from the summed utilisation on a shared
GPU, from the sizes of the models under a shared switch, and from the gang's own traffic on shared network cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from math import fsum, sqrt

from muster.scheduling.memo import Memo
from muster.scheduling.profile import UNKNOWN, CoLocation, Profile, Shape, Via

Neighbour = tuple[Via, str]

PAIR_SPEED = ((0.0, 2.0), (1.0, 1.95), (1.125, 1.85), (1.375, 1.68), (1.625, 1.47), (1.875, 1.39))
"""The summed speed of two jobs on one GPU, each 1 alone, by summed utilisation: medians of 1,388 pairs (Lucid, ASPLOS'23)."""
SWITCH_LOSS = 0.16
"""The loss of language models to each other under one switch: the mean of four measurements (Gandiva, OSDI'18, figure 3)."""
LARGE_MB = 250.0
"""The size of the model that lost most there; the loss of smaller models is in proportion."""
_CLOSEST_FIRST = {Via.GPU: 0, Via.NIC: 1, Via.SWITCH: 2}


class Interference:
    """Losses between kinds, learned from `profiles`."""

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        self._profiles = profiles
        self._measured: Memo[str, dict[CoLocation, float]] = Memo(lambda kind: _losses(self._profile(kind).rates))
        self._learned: Memo[str, dict[Neighbour, float]] = Memo(self._learn)

    def added(self, kind: str, co_location: CoLocation, flow: float) -> float:
        """Return what neighbours add to a step of `kind`, as a share of the step.

        `flow` is the share that the exchange over the network has of the step.
        """
        if not co_location:
            return 0.0
        measured = self._measured[kind].get(co_location)
        return sum(self._loss(kind, neighbour, flow) for neighbour in co_location) if measured is None else measured

    def is_learned(self, kind: str, co_location: CoLocation) -> bool:
        """Say whether the loss to these neighbours follows from measurements alone."""
        if not co_location or co_location in self._measured[kind]:
            return True
        losses = self._learned[kind]
        suffered = {via for via, _ in losses}
        return all(neighbour in losses or (neighbour[0] in suffered and neighbour in self._caused) for neighbour in co_location)

    def _loss(self, kind: str, neighbour: Neighbour, flow: float) -> float:
        losses = self._learned[kind]
        if neighbour in losses:
            return losses[neighbour]
        prior = self._predicted(kind, neighbour, flow)
        suffered = _mean([loss for (via, _), loss in losses.items() if via is neighbour[0]])
        caused = _mean(self._caused.get(neighbour, []))
        return sqrt((prior if suffered is None else suffered) * (prior if caused is None else caused))

    def _predicted(self, kind: str, neighbour: Neighbour, flow: float) -> float:
        via, other = neighbour[0], self._profile(neighbour[1])
        own = self._profile(kind)
        if via is Via.GPU:
            return packing_loss(_fraction(own.utilisation) + _fraction(other.utilisation))
        if via is Via.SWITCH:
            return SWITCH_LOSS * _fraction(own.model_mb, LARGE_MB) * _fraction(other.model_mb, LARGE_MB)
        return flow

    def _profile(self, kind: str) -> Profile:
        return self._profiles.get(kind, UNKNOWN)

    def _learn(self, kind: str) -> dict[Neighbour, float]:
        """The loss to each neighbour, from co-locations with few different neighbours to those with many.

        Of each co-location, the losses that are learned or predicted already are subtracted from the measured total; the
        remainder is divided among the new neighbours that share the most.
        """
        losses: dict[Neighbour, float] = {}
        for co_location, total in sorted(self._measured[kind].items(), key=lambda item: (len(set(item[0])), item)):
            closest = min((via for via, _ in co_location), key=_CLOSEST_FIRST.__getitem__)
            new = [neighbour for neighbour in co_location if neighbour[0] is closest and neighbour not in losses]
            others = (neighbour for neighbour in co_location if neighbour not in new)
            explained = sum(losses.get(neighbour, self._predicted(kind, neighbour, 0.0)) for neighbour in others)
            losses.update(dict.fromkeys(new, max(0.0, total - explained) / max(1, len(new))))
        return losses

    @cached_property
    def _caused(self) -> dict[Neighbour, list[float]]:
        """The losses that each neighbour caused."""
        caused: dict[Neighbour, list[float]] = {}
        for kind, profile in self._profiles.items():
            if len(profile.rates) > 1:
                for neighbour, loss in self._learned[kind].items():
                    caused.setdefault(neighbour, []).append(loss)
        return caused


def packing_loss(utilisation: float) -> float:
    """Return the loss of each of two jobs on one GPU, as a share of its step, by their summed utilisation."""
    for (x0, y0), (x1, y1) in pairwise(PAIR_SPEED):
        if utilisation <= x1:
            return 2.0 / (y0 + (y1 - y0) * (utilisation - x0) / (x1 - x0)) - 1.0
    return 2.0 / y1 * utilisation / x1 - 1.0


def unhindered(rates: Mapping[tuple[Shape, CoLocation], float]) -> dict[Shape, float]:
    """Return the rate of each shape without neighbours.

    Where this was never measured, it is the best rate on GPUs of its own; else the best on shared GPUs, as if the gang had
    taken turns on them.
    """
    best: dict[Shape, tuple[bool, bool, float]] = {}
    for (shape, co_location), rate in rates.items():
        if rate > 0:
            turns = 1 + sum(via is Via.GPU for via, _ in co_location)
            best[shape] = max(best.get(shape, (False, False, 0.0)), (not co_location, turns == 1, rate * turns))
    return {shape: rate for shape, (_, _, rate) in best.items()}


def _losses(rates: Mapping[tuple[Shape, CoLocation], float]) -> dict[CoLocation, float]:
    """The measured loss in each co-location: the mean over shapes."""
    if len(rates) < 2:
        return {}
    alone = unhindered(rates)
    losses: dict[CoLocation, list[float]] = {}
    for (shape, co_location), rate in rates.items():
        if co_location and rate > 0:
            losses.setdefault(co_location, []).append(max(0.0, alone[shape] / rate - 1.0))
    return {co_location: sum(measured) / len(measured) for co_location, measured in losses.items()}


def _fraction(value: float | None, whole: float = 1.0) -> float:
    """`value` as a share of `whole`, at most 1; 1 where it was not measured."""
    return 1.0 if value is None else min(1.0, value / whole)


def _mean(values: list[float]) -> float | None:
    return fsum(values) / len(values) if values else None  # fsum: the order of the values makes no difference
