"""What a policy may expect of a placement: the measured rate where there is one, else the nearest one scaled.

A rate counts the mini-batches of all GPUs of a gang a second. It is scaled from the shape and company in which it was measured
to others by three laws, each learned from the profiles and each with a prior: `steptime` (number of GPUs, links),
`interference` (neighbours), and here the speed of one GPU model beside another. Measured beats learned, learned beats priors.

A `Rates` lives as long as profiles and machines are the same: it remembers every answer, since passes ask the same for
thousands of gangs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from math import exp, fsum, log
from typing import Any, TypeVar

from muster.scheduling.gang import Effect, Gang, Placement, Sensitivity, gpus_by_node
from muster.scheduling.occupancy import Occupancy
from muster.scheduling.profile import NO_NEIGHBOURS, UNKNOWN, CoLocation, Profile, Shape, Via
from muster.scheduling.speed.interference import Interference, Neighbour, unhindered
from muster.scheduling.speed.shapes import shape, shape_of
from muster.scheduling.speed.step_time import Law, Point, exposure, fit
from muster.scheduling.topology.links import UNLIMITED, GpuSet
from muster.scheduling.topology.network import GOODPUT, exchange, network
from muster.scheduling.topology.node import Node

RateKey = tuple[str, Sensitivity]
T = TypeVar("T")


class Rates:
    """Expectations of gangs from `profiles` on the machines of `nodes`."""

    def __init__(self, profiles: Mapping[str, Profile], nodes: Mapping[str, Node]) -> None:
        self._profiles, self._nodes = profiles, nodes
        self._interference = Interference(profiles)
        self._laws: dict[RateKey, Law] = {}
        self._free: dict[str, Mapping[Shape, float]] = {}
        self._speeds: dict[str, dict[str, float]] = {}
        self._known: dict[tuple[RateKey, Shape, CoLocation], float] = {}
        self._bests: dict[tuple[RateKey, int], float] = {}
        self._ideals: dict[int, list[Shape]] = {}
        self._kept: dict[object, Any] = {}

    def kept(self, make: Callable[[Rates], T]) -> T:
        """Return what `make` makes of these rates, the same each time: what follows from them alone."""
        if make not in self._kept:
            self._kept[make] = make(self)
        found: T = self._kept[make]
        return found

    def profile(self, gang: Gang) -> Profile:
        """Return what the gang reports of itself, else what was measured of its kind."""
        return self._profiles.get(gang.name) or self._profiles.get(gang.profile_name, UNKNOWN)

    def expected(self, gang: Gang, shape: Shape, co_location: CoLocation = NO_NEIGHBOURS) -> float | None:
        """Return the rate to expect, in mini-batches/s; None where nothing was measured of the kind."""
        return self._value(self._kind(gang), shape, co_location) if self.profile(gang).rates else None

    def relative(self, gang: Gang, shape: Shape, co_location: CoLocation = NO_NEIGHBOURS) -> float:
        """Return the rate to expect beside that of as many GPUs in the best shape there is, alone: 0 to 1."""
        best = self._best(self._kind(gang), shape.gpus)
        return min(1.0, self._value(self._kind(gang), shape, co_location) / best) if best > 0 else 1.0

    def is_measured(self, gang: Gang, shape: Shape, co_location: CoLocation = NO_NEIGHBOURS) -> bool:
        """Say whether what is expected follows from measurements alone: none of its laws had to be filled in by a prior."""
        key = self._kind(gang)
        if (shape, co_location) in self._profiles.get(key[0], UNKNOWN).rates:
            return True
        return self._is_measured_alone(key, shape) and self._interference.is_learned(key[0], co_location)

    def effect(self, gang: Gang, placement: Placement) -> Effect | None:
        """Return what is expected of another placement, compared with the present one; None where nothing was measured."""
        before = self.expected(gang, shape(gang.placement, self._nodes))
        after = self.expected(gang, shape(placement, self._nodes))
        return Effect(before, after) if before is not None and after is not None else None

    def by_shape(self, gang: Gang) -> Callable[[Gang, Shape], float] | None:
        """Return what to choose a placement of the gang by, where it is known: it is declared sensitive, or was measured."""
        declared = gang.sensitivity is Sensitivity.HIGH
        return self.relative if gang.sensitive and (declared or self.profile(gang).rates) else None

    def worth(self, gang: Gang, gpus: Mapping[str, GpuSet], running: Occupancy) -> float:
        """Return what the gang on these GPUs by node adds to the cluster: its own relative rate, less what its neighbours lose.

        Both times GPUs, so that 1 is one GPU at full speed. `running` may hold the gang where it is now, or not.
        """
        met = running.neighbours(gang.name, gpus, self._nodes)
        worth = self.relative(gang, shape_of(gpus, self._nodes), tuple(sorted(met.values())))
        worth *= sum(held.bit_count() for held in gpus.values())
        others = {name: one for node in gpus for name, (one, _) in running.on_node.get(node, {}).items() if name in met}
        harm = (self._harm(one, (met[name][0], gang.profile_name), gang.name, running) for name, one in others.items())
        return worth - fsum(harm)

    def _harm(self, other: Gang, newcomer: Neighbour, name: str, running: Occupancy) -> float:
        """What a gang loses by a new neighbour, in GPUs at full speed."""
        spots = gpus_by_node(other.placement)
        before = [one for who, one in running.neighbours(other.name, spots, self._nodes).items() if who != name]
        shape = shape_of(spots, self._nodes)
        alone, beside = (self.relative(other, shape, tuple(sorted(them))) for them in (before, [*before, newcomer]))
        return max(0.0, alone - beside) * shape.gpus

    def _is_measured_alone(self, key: RateKey, shape: Shape) -> bool:
        """Whether the rate without neighbours was measured in this shape, or scaled by laws that were measured."""
        alone = self._unhindered(key[0])
        if not alone or shape in alone:
            return bool(alone)
        law, nearest = self._law(key), min(alone, key=lambda other: _unlikeness(other, shape))
        by_size = nearest.gpus == shape.gpus or law.each_measured
        by_links = exchange(nearest) == exchange(shape) or law.volume_measured
        models = {nearest.model, shape.model}
        return by_size and by_links and (len(models) == 1 or all(self._is_speed_measured(key[0], model) for model in models))

    def _is_speed_measured(self, kind: str, models: str) -> bool:
        own = _speeds(self._unhindered(kind), self._first)
        return all(model in own or model in self._usual_speeds for model in models.split("+"))

    def is_worth_measured(self, gang: Gang, gpus: Mapping[str, GpuSet], occupancy: Occupancy) -> bool:
        """Say whether `worth` there follows from measurements alone: of the gang, and of its neighbours with and without it."""
        met = occupancy.neighbours(gang.name, gpus, self._nodes)
        if not self.is_measured(gang, shape_of(gpus, self._nodes), tuple(sorted(met.values()))):
            return False
        others = {name: other for node in gpus for name, (other, _) in occupancy.residents(node).items() if name in met}
        for name, other in others.items():
            theirs = gpus_by_node(other.placement)
            where, around = shape_of(theirs, self._nodes), occupancy.neighbours(name, theirs, self._nodes)
            without = [neighbour for who, neighbour in around.items() if who != gang.name]
            for co_location in (without, [*without, (met[name][0], gang.profile_name)]):
                if not self.is_measured(other, where, tuple(sorted(co_location))):
                    return False
        return True

    # The laws put together

    def _kind(self, gang: Gang) -> RateKey:
        """A gang that reports of itself is a kind of its own; kinds of which nothing is known are one."""
        name = gang.name if gang.name in self._profiles else gang.profile_name
        return name if name in self._profiles else "", gang.sensitivity

    def _value(self, kind: RateKey, shape: Shape, co_location: CoLocation) -> float:
        key = (kind, shape, co_location)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._work_out(kind, shape, co_location)
        return found

    def _work_out(self, kind: RateKey, shape: Shape, co_location: CoLocation) -> float:
        measured = self._profiles.get(kind[0], UNKNOWN).rates.get((shape, co_location))
        if measured is not None:
            return measured
        alone = self._alone(kind, shape)
        if not co_location:
            return alone
        flow = 0.0
        if any(via is Via.NIC for via, _ in co_location):
            law = self._law(kind)
            flow = law.volume * network(shape) / law.seconds(shape.gpus, exchange(shape))
        return alone / (1 + self._interference.added(kind[0], co_location, flow))

    def _alone(self, kind: RateKey, shape: Shape) -> float:
        """The rate without neighbours: measured in this shape, else in the one most like it and scaled by the law."""
        free = self._unhindered(kind[0])
        if shape in free:
            return free[shape]
        here = self._by_law(kind, shape)
        if not free:
            return here
        nearest = min(free, key=lambda other: _unlikeness(other, shape))
        return free[nearest] * here / self._by_law(kind, nearest)

    def _by_law(self, kind: RateKey, shape: Shape) -> float:
        return shape.gpus * self._speed(kind[0], shape.model) / self._law(kind).seconds(shape.gpus, exchange(shape))

    def _law(self, kind: RateKey) -> Law:
        found = self._laws.get(kind)
        if found is None:
            points = [
                Point(shape.gpus, exchange(shape), shape.gpus * self._speed(kind[0], shape.model) / rate)
                for shape, rate in self._unhindered(kind[0]).items()
            ]
            step = min((point.seconds for point in points), default=None)
            exposed = exposure(self._profiles.get(kind[0], UNKNOWN), kind[1], step)
            found = self._laws[kind] = fit(points, exposed)
        return found

    def _unhindered(self, kind: str) -> Mapping[Shape, float]:
        found = self._free.get(kind)
        if found is None:
            found = self._free[kind] = unhindered(self._profiles.get(kind, UNKNOWN).rates)
        return found

    def _best(self, kind: RateKey, gpus: int) -> float:
        """The rate in the best shape of so many GPUs that the machines have or that was measured."""
        key = (kind, gpus)
        if key not in self._bests:
            shapes = {*self._ideal(gpus), *(shape for shape in self._unhindered(kind[0]) if shape.gpus == gpus)}
            self._bests[key] = max((self._value(kind, shape, NO_NEIGHBOURS) for shape in shapes), default=0.0)
        return self._bests[key]

    def _ideal(self, gpus: int) -> list[Shape]:
        """The best shape of so many GPUs on each type of machine."""
        if gpus not in self._ideals:
            types = {(node.machine, node.model, node.nic_gbps) for node in self._nodes.values() if node.machine.gpus}
            largest = max((machine.gpus for machine, _, _ in types), default=0)
            self._ideals[gpus] = []
            for machine, model, nic in types:
                if 0 < min(gpus, largest) <= machine.gpus:
                    servers, rest = divmod(gpus, machine.gpus)
                    counts = (machine.gpus,) * servers + ((rest,) if rest else ())
                    ring = machine.speed(machine.all, counts[0])
                    self._ideals[gpus].append(Shape(model, counts, ring, UNLIMITED if len(counts) < 2 else nic * GOODPUT))
        return self._ideals[gpus]

    # GPU models

    def _speed(self, kind: str, model: str) -> float:
        """The speed of a GPU of this model, or of the slowest of several, beside that of the first model by name."""
        own = self._speeds.get(kind)
        if own is None:
            own = self._speeds[kind] = _speeds(self._unhindered(kind), self._first)
        return min(own.get(one) or self._usual_speeds.get(one, 1.0) for one in model.split("+"))

    @cached_property
    def _first(self) -> str:
        return min((node.model for node in self._nodes.values()), default="")

    @cached_property
    def _usual_speeds(self) -> dict[str, float]:
        """The speeds of the kinds that were measured on several models: their geometric mean."""
        logs: dict[str, list[float]] = {}
        for kind in self._profiles:
            for model, speed in _speeds(self._unhindered(kind), self._first).items():
                logs.setdefault(model, []).append(log(speed))
        return {model: exp(fsum(values) / len(values)) for model, values in logs.items()}


def _speeds(free: Mapping[Shape, float], first: str) -> dict[str, float]:
    """The rate on each model of GPU beside that on the first, where the same counts were measured on both."""
    if len({shape.model for shape in free}) < 2:
        return {}
    best: dict[str, dict[tuple[int, ...], float]] = {}
    for where, rate in free.items():
        counts = best.setdefault(where.model, {})
        counts[where.counts] = max(counts.get(where.counts, 0.0), rate)
    base = best.get(first, {})
    found: dict[str, float] = {}
    for model, rates in best.items():
        ratios = [rate / base[counts] for counts, rate in rates.items() if rate > 0 and base.get(counts)]
        if ratios:
            found[model] = sum(ratios) / len(ratios)
    return found


def _unlikeness(other: Shape, shape: Shape) -> tuple[object, ...]:
    """What has to be scaled between two shapes, the most doubtful first; ends in what tells shapes apart."""
    scaled = (abs(other.gpus - shape.gpus), other.model != shape.model, abs(exchange(other) - exchange(shape)))
    return (*scaled, other.model, other.counts, other.gbps, other.between)
