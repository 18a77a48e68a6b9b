"""What changes between two sets of GPUs gain: a gang joins another there, or two gangs change places.

It follows from the expected rates alone, so a table of answers is kept for as long as these are. Sites that are alike in all
that decides (the shape of the GPUs, who is near them, what runs there) are of one sort and asked about once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from muster.scheduling.gang import Gang, Sensitivity
from muster.scheduling.packing.packing import MEMORY
from muster.scheduling.profile import CoLocation, Shape, Via
from muster.scheduling.speed.occupancy import kind_of
from muster.scheduling.speed.rates import Rates
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.node import Node

LEAST = 0.1
"""GPUs at full speed that a change must gain for each gang that moves."""
MOST = 1_000_000
"""Answers that a table keeps."""


class SwapKey(NamedTuple):
    """What of a gang decides where it does how well, and beside whom."""

    kind: str
    sensitivity: Sensitivity
    priority: int
    packs: bool


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """GPUs on which one gang runs, or two."""

    gpus: dict[str, GpuSet]
    shape: Shape
    around: CoLocation
    """Neighbours that are not on the same GPUs."""
    gangs: tuple[Gang, ...]
    forms: tuple[SwapKey, ...]
    sort: int
    worth: float
    """GPUs at full speed."""

    @property
    def loss(self) -> float:
        """What the gangs would gain if each ran at its best: more than that no change brings them."""
        return self.shape.gpus * len(self.gangs) - self.worth

    @property
    def name(self) -> str:
        return self.gangs[0].name


class Change(NamedTuple):
    """Who goes from the one site to the other, and who comes from there, by index."""

    gain: float
    """What it gains beyond `LEAST` for each that moves."""
    total: float
    """What it gains, in GPUs at full speed."""
    goes: int | None
    comes: int | None


class Table:
    """The answers that follow from some rates."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._numbers: dict[object, int] = {}
        self._worths: dict[tuple[object, ...], float | None] = {}
        self._best: dict[tuple[int, int], Change] = {}
        self._settled: tuple[tuple[Gang, ...], tuple[Node, ...]] = (), ()

    def site(self, gpus: dict[str, GpuSet], shape: Shape, around: CoLocation, gangs: Iterable[Gang], packing: bool) -> Site:
        """Return the site of gangs on their GPUs."""
        known = sorted((_form(gang, packing), gang.name, gang) for gang in gangs)
        forms = tuple(fit_key for fit_key, _, _ in known)
        sort = self._numbers.setdefault((shape, around, forms), len(self._numbers))
        worth = sum(self._relatives(shape, around, forms)) * shape.gpus
        return Site(gpus, shape, around, tuple(gang for _, _, gang in known), forms, sort, worth)

    def best(self, one: Site, other: Site) -> Change:
        """Return the change between two sites that gains most."""
        found = self._best.get((one.sort, other.sort))
        if found is None:
            if len(self._best) > MOST:
                self._best.clear()
            found = self._best[one.sort, other.sort] = max(self._changes(one, other), key=lambda change: change.gain)
        return found

    def _changes(self, one: Site, other: Site) -> Iterable[Change]:
        yield Change(-LEAST, 0.0, None, None)
        before = one.worth + other.worth
        for goes, comes in product((None, *range(len(one.gangs))), (None, *range(len(other.gangs)))):
            mine = [*_without(one.forms, goes), *_only(other.forms, comes)]
            theirs = [*_without(other.forms, comes), *_only(one.forms, goes)]
            moving = {fit_key.priority for fit_key in (*_only(one.forms, goes), *_only(other.forms, comes))}
            after = [self._worth(site, forms) for site, forms in ((one, mine), (other, theirs))]
            if len(moving) == 1 and None not in after:
                total = round(sum(worth or 0.0 for worth in after) - before, 9)
                yield Change(total - LEAST * ((goes is not None) + (comes is not None)), total, goes, comes)

    def _worth(self, site: Site, forms: list[SwapKey]) -> float | None:
        """What gangs of these forms would be worth there; None where they may not be there together."""
        key = (site.shape, site.around, *sorted(forms))
        if key not in self._worths:
            self._worths[key] = self._work_out(site, tuple(sorted(forms)))
        return self._worths[key]

    def _work_out(self, site: Site, forms: tuple[SwapKey, ...]) -> float | None:
        if len(forms) > 2:
            return None
        relatives = self._relatives(site.shape, site.around, forms)
        if len(forms) == 2:
            memory = sum(self._rates.profile(_gang(fit_key)).memory or 0.0 for fit_key in forms)
            alike = len({fit_key.priority for fit_key in forms}) == 1 and all(fit_key.packs for fit_key in forms)
            if not alike or memory > MEMORY or min(relatives) <= 0.0:
                return None
        return sum(relatives) * site.shape.gpus

    def _relatives(self, shape: Shape, around: CoLocation, forms: Sequence[SwapKey]) -> list[float]:
        found = []
        for index, fit_key in enumerate(forms):
            beside = [(Via.GPU, other.kind) for other in _without(forms, index)]
            found.append(self._rates.relative(_gang(fit_key), shape, tuple(sorted((*around, *beside)))))
        return found

    def settle(self, gangs: Iterable[Gang], nodes: Iterable[Node]) -> None:
        """Note that there is nothing to change while gangs and nodes are the same."""
        self._settled = tuple(gangs), tuple(nodes)

    def settled(self, gangs: Iterable[Gang], nodes: Iterable[Node]) -> bool:
        """Say whether there was nothing to change with the same gangs and nodes."""
        return all(
            len(before) == len(after) and all(one is other for one, other in zip(before, after, strict=True))
            for before, after in zip(self._settled, (tuple(gangs), tuple(nodes)), strict=True)
        )


def _without(forms: Sequence[SwapKey], index: int | None) -> Sequence[SwapKey]:
    return forms if index is None else (*forms[:index], *forms[index + 1 :])


def _only(forms: Sequence[SwapKey], index: int | None) -> Sequence[SwapKey]:
    return () if index is None else (forms[index],)


def _form(gang: Gang, packing: bool) -> SwapKey:
    return SwapKey(kind_of(gang), gang.sensitivity, gang.priority, packing and gang.sharing.packs)


def _gang(fit_key: SwapKey) -> Gang:
    return Gang(fit_key.kind, "", 0.0, (), kind=fit_key.kind, sensitivity=fit_key.sensitivity)
