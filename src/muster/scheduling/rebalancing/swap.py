"""Sites, and what changes between two of them gain: a gang joins another there, or two gangs change places.

A site is a set of whole healthy GPUs with the one gang that runs on it, or two, and no other. What is on it has one size, may
be suspended, and has no wish of its own: gangs that want to move or to be resized are admission's, elastic gangs `elastic`'s.

What a change gains follows from the expected rates alone, so answers are kept for as long as these are. Sites that are alike in
all that decides (the shape of the GPUs, the neighbours, the gangs) have one number and are weighed once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from muster.scheduling.gang import Gang, Sensitivity, gpus_by_node
from muster.scheduling.memo import Memo
from muster.scheduling.packing.packing import MEMORY
from muster.scheduling.profile import CoLocation, Shape, Via
from muster.scheduling.rebalancing.cost import LEAST_GAIN
from muster.scheduling.resources import WHOLE
from muster.scheduling.session import GpusByNode, Session
from muster.scheduling.speed.rates import Rates
from muster.scheduling.speed.shapes import shape_of

MOST_KEPT = 1_000_000
"""Answers that are kept."""


class SwapKey(NamedTuple):
    """What of a gang decides how well it does on a site, and with which others."""

    kind: str
    sensitivity: Sensitivity
    priority: int
    packs: bool

    @classmethod
    def of(cls, gang: Gang, packing: bool) -> SwapKey:
        return cls(gang.profile_name, gang.sensitivity, gang.priority, packing and gang.sharing.packs)

    @property
    def example(self) -> Gang:
        """A gang with this key, to ask for rates."""
        return Gang(self.kind, "", 0.0, (), kind=self.kind, sensitivity=self.sensitivity)


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """GPUs on which one gang runs, or two."""

    gpus: GpusByNode
    shape: Shape
    around: CoLocation
    """Neighbours that are not on the same GPUs."""
    gangs: tuple[Gang, ...]
    keys: tuple[SwapKey, ...]
    number: int
    """The same for sites that are alike."""
    worth: float | None
    """GPUs at full speed; None where the rates of its gangs were not measured yet."""

    @property
    def loss(self) -> float:
        """What the gangs would gain if each ran at its best: no change gains more, and none is known to gain without rates."""
        return 0.0 if self.worth is None else self.shape.gpus * len(self.gangs) - self.worth

    @property
    def name(self) -> str:
        return self.gangs[0].name


class Change(NamedTuple):
    """Which gang goes from the one site to the other, and which comes from there, by index."""

    margin: float
    """What it gains beyond `LEAST_GAIN` for each gang that moves."""
    gain: float
    """What it gains, in GPUs at full speed."""
    goes: int | None
    comes: int | None


class SwapTable:
    """The answers that follow from some rates."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._numbers: dict[object, int] = {}
        self._worth: Memo[tuple[Shape, CoLocation, tuple[SwapKey, ...]], float | None] = Memo(self._measured_worth)
        self._best: dict[tuple[int, int], Change] = {}

    def site(self, gpus: GpusByNode, shape: Shape, around: CoLocation, gangs: Iterable[Gang], packing: bool) -> Site:
        """Return the site of gangs on their GPUs."""
        members = sorted((SwapKey.of(gang, packing), gang.name, gang) for gang in gangs)
        keys = tuple(key for key, _, _ in members)
        number = self._numbers.setdefault((shape, around, keys), len(self._numbers))
        worth = self._worth[shape, around, keys]
        return Site(gpus, shape, around, tuple(gang for _, _, gang in members), keys, number, worth)

    def best(self, one: Site, other: Site) -> Change:
        """Return the change between two sites that gains most."""
        change = self._best.get((one.number, other.number))
        if change is None:
            if len(self._best) > MOST_KEPT:
                self._best.clear()
            change = self._best[one.number, other.number] = max(self._changes(one, other), key=lambda change: change.margin)
        return change

    def _changes(self, one: Site, other: Site) -> Iterable[Change]:
        yield Change(-LEAST_GAIN, 0.0, None, None)
        if one.worth is None or other.worth is None:
            return
        before = one.worth + other.worth
        for goes, comes in product((None, *range(len(one.gangs))), (None, *range(len(other.gangs)))):
            moving = (*_only(one.keys, goes), *_only(other.keys, comes))
            here = self._worth_on(one, (*_without(one.keys, goes), *_only(other.keys, comes)))
            there = self._worth_on(other, (*_without(other.keys, comes), *_only(one.keys, goes)))
            if len({key.priority for key in moving}) == 1 and here is not None and there is not None:
                gain = round(here + there - before, 9)
                yield Change(gain - LEAST_GAIN * len(moving), gain, goes, comes)

    def _worth_on(self, site: Site, keys: tuple[SwapKey, ...]) -> float | None:
        """What gangs with these keys would be worth on a site; None where they may not share it, or were not measured."""
        may_share = len({key.priority for key in keys}) == 1 and all(key.packs for key in keys)
        if len(keys) > 2 or (len(keys) == 2 and not may_share):
            return None
        memory = sum(self._rates.profile(key.example).memory or 0.0 for key in keys)
        return None if len(keys) == 2 and memory > MEMORY else self._worth[site.shape, site.around, tuple(sorted(keys))]

    def _measured_worth(self, where: tuple[Shape, CoLocation, tuple[SwapKey, ...]]) -> float | None:
        """The GPUs at full speed of gangs there; None where one of their rates was never measured, or is 0."""
        shape, around, keys = where
        seen = [(key.example, _co_location(around, keys, index)) for index, key in enumerate(keys)]
        measured = all(self._rates.is_measured(gang, shape, neighbours) for gang, neighbours in seen)
        rates = [self._rates.relative(gang, shape, neighbours) for gang, neighbours in seen] if measured else [0.0]
        return sum(rates) * shape.gpus if min(rates, default=1.0) > 0.0 else None


def sites(session: Session, decided: Collection[str], packing: bool) -> Iterator[Site]:
    """Return the sites of the cluster, but for those on which a gang was decided of already."""
    table = session.rates.kept(SwapTable)
    for key, gangs in _by_gpus(session).items():
        gpus = dict(key)
        movable = len(gangs) <= 2 and all(gang.name not in decided and _may_move(session, gang) for gang in gangs)
        if movable and not _has_others(session, gpus, gangs):
            yield table.site(gpus, shape_of(gpus, session.nodes), _around(session, gpus), gangs, packing)


def _by_gpus(session: Session) -> dict[tuple[tuple[str, int], ...], list[Gang]]:
    gangs: dict[tuple[tuple[str, int], ...], list[Gang]] = {}
    for gang in session.gangs.values():
        if gang.placement and gang.running and gang.sharing.slices:
            gangs.setdefault(tuple(sorted(gpus_by_node(gang.placement).items())), []).append(gang)
    return gangs


def _may_move(session: Session, gang: Gang) -> bool:
    whole = all(one.task.share == WHOLE and not one.gpus & ~session.nodes[one.node].healthy for one in gang.placement)
    return whole and gang.held > 0 and not (gang.resize or gang.leave is not None or gang.elastic)


def _has_others(session: Session, gpus: GpusByNode, gangs: list[Gang]) -> bool:
    """Whether any other gang has a placement on these GPUs."""
    names = {gang.name for gang in gangs}
    residents = ((name, held & gpus[node]) for node in gpus for name, (_, held) in session.occupancy.residents(node).items())
    return any(held and name not in names for name, held in residents)


def _around(session: Session, gpus: GpusByNode) -> CoLocation:
    """The neighbours there, but for those on the same GPUs."""
    neighbours = session.occupancy.neighbours("", gpus, session.nodes).values()
    return tuple(sorted(neighbour for neighbour in neighbours if neighbour[0] is not Via.GPU))


def _without(keys: Sequence[SwapKey], index: int | None) -> Sequence[SwapKey]:
    return keys if index is None else (*keys[:index], *keys[index + 1 :])


def _only(keys: Sequence[SwapKey], index: int | None) -> Sequence[SwapKey]:
    return () if index is None else (keys[index],)


def _co_location(around: CoLocation, keys: Sequence[SwapKey], index: int) -> CoLocation:
    return tuple(sorted((*around, *((Via.GPU, other.kind) for other in _without(keys, index)))))
