"""The expected rate of a gang on a placement: the measured rate if there is one, else the nearest measured one, scaled.

A rate counts the mini-batches of all GPUs of a gang per second. Three laws scale it from the shape and co-location of the
measurement to others: `step_time` (number of GPUs, links), `interference` (neighbours), and the relative speed of GPU models,
here. Each is learned from the profiles, with a prior. Measured beats learned, learned beats priors.

A `Rates` remembers every answer, since passes ask the same for thousands of gangs; it is valid as long as profiles and machines
stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from math import exp, fsum, log
from typing import Any, TypeVar

from muster.scheduling.gang import Effect, Gang, Placement, Sensitivity, gpus_by_node
from muster.scheduling.memo import Memo
from muster.scheduling.occupancy import Occupancy
from muster.scheduling.profile import NO_NEIGHBOURS, UNKNOWN, CoLocation, Profile, Shape, Via
from muster.scheduling.speed.interference import Interference, Neighbour, unhindered
from muster.scheduling.speed.shapes import shape, shape_of
from muster.scheduling.speed.step_time import Law, Point, exposure, fit
from muster.scheduling.topology.links import UNLIMITED, GpuSet
from muster.scheduling.topology.network import GOODPUT, exchange, network
from muster.scheduling.topology.node import Node

RateKey = tuple[str, Sensitivity]
"""The profile of a gang and its declared sensitivity: gangs with the same key have the same expected rates."""
T = TypeVar("T")


class Rates:
    """Expected rates of gangs, from `profiles`, on the machines of `nodes`."""

    def __init__(self, profiles: Mapping[str, Profile], nodes: Mapping[str, Node]) -> None:
        self._profiles, self._nodes = profiles, nodes
        self._interference = Interference(profiles)
        self._alone: Memo[str, Mapping[Shape, float]] = Memo(lambda kind: unhindered(self._of_kind(kind).rates))
        self._speeds: Memo[str, Mapping[str, float]] = Memo(lambda kind: _speeds(self._alone[kind], self._base_model))
        self._laws: Memo[RateKey, Law] = Memo(self._law)
        self._rates: Memo[tuple[RateKey, Shape, CoLocation], float] = Memo(lambda asked: self._rate(*asked))
        self._best: Memo[tuple[RateKey, int], float] = Memo(lambda asked: self._best_rate(*asked))
        self._ideal: Memo[int, list[Shape]] = Memo(self._ideal_shapes)
        self._tables: Memo[Callable[[Rates], Any], Any] = Memo(lambda make: make(self))

    def kept(self, make: Callable[[Rates], T]) -> T:
        """Return `make` of these rates, the same object each time: for tables that follow from the rates alone."""
        table: T = self._tables[make]
        return table

    def profile(self, gang: Gang) -> Profile:
        """Return the profile that the gang reports of itself, else that of its kind."""
        return self._profiles.get(gang.name) or self._of_kind(gang.profile_name)

    def expected(self, gang: Gang, shape: Shape, co_location: CoLocation = NO_NEIGHBOURS) -> float | None:
        """Return the expected rate in mini-batches/s; None if no rate of the kind was measured."""
        return self._rates[self._key(gang), shape, co_location] if self.profile(gang).rates else None

    def relative(self, gang: Gang, shape: Shape, co_location: CoLocation = NO_NEIGHBOURS) -> float:
        """Return the expected rate compared with that of as many GPUs in the best shape without neighbours, 0 to 1."""
        key = self._key(gang)
        best = self._best[key, shape.gpus]
        return min(1.0, self._rates[key, shape, co_location] / best) if best > 0 else 1.0

    def is_measured(self, gang: Gang, shape: Shape, co_location: CoLocation = NO_NEIGHBOURS) -> bool:
        """Say whether the expected rate follows from measurements alone, without a prior in any of its laws."""
        key = self._key(gang)
        if (shape, co_location) in self._of_kind(key[0]).rates:
            return True
        return self._is_measured_alone(key, shape) and self._interference.is_learned(key[0], co_location)

    def effect(self, gang: Gang, placement: Placement) -> Effect | None:
        """Return the expected effect of another placement; None if no rate of the kind was measured."""
        before, after = (self.expected(gang, shape(where, self._nodes)) for where in (gang.placement, placement))
        return Effect(before, after) if before is not None and after is not None else None

    def by_shape(self, gang: Gang) -> Callable[[Gang, Shape], float] | None:
        """Return the rate by which to choose a placement; None unless the gang was measured or is declared sensitive."""
        declared = gang.sensitivity is Sensitivity.HIGH
        return self.relative if gang.sensitive and (declared or self.profile(gang).rates) else None

    def worth(self, gang: Gang, gpus: Mapping[str, GpuSet], running: Occupancy) -> float:
        """Return what the gang adds to the cluster on these GPUs by node: its relative rate, less the loss of its neighbours.

        Both count GPUs at full speed. `running` may hold the gang where it is now, or not.
        """
        neighbours = running.neighbours(gang.name, gpus, self._nodes)
        rate = self.relative(gang, shape_of(gpus, self._nodes), tuple(sorted(neighbours.values())))
        losses = (
            max(0.0, self.relative(other, shape, before) - self.relative(other, shape, after)) * shape.gpus
            for other, shape, before, after in self._affected(gang, neighbours, running)
        )
        return rate * sum(held.bit_count() for held in gpus.values()) - fsum(losses)

    def is_worth_measured(self, gang: Gang, gpus: Mapping[str, GpuSet], running: Occupancy) -> bool:
        """Say whether `worth` follows from measurements alone: of the gang, and of its neighbours with and without it."""
        neighbours = running.neighbours(gang.name, gpus, self._nodes)
        return self.is_measured(gang, shape_of(gpus, self._nodes), tuple(sorted(neighbours.values()))) and all(
            self.is_measured(other, shape, before) and self.is_measured(other, shape, after)
            for other, shape, before, after in self._affected(gang, neighbours, running)
        )

    def _affected(
        self, gang: Gang, neighbours: Mapping[str, Neighbour], running: Occupancy
    ) -> Iterator[tuple[Gang, Shape, CoLocation, CoLocation]]:
        """The neighbours of a gang, each with its shape and its co-locations without and with the gang."""
        for name, (via, _) in neighbours.items():
            other = running.gangs[name]
            gpus = gpus_by_node(other.placement)
            met = running.neighbours(name, gpus, self._nodes)
            without = [neighbour for owner, neighbour in met.items() if owner != gang.name]
            together = tuple(sorted([*without, (via, gang.profile_name)]))
            yield other, shape_of(gpus, self._nodes), tuple(sorted(without)), together

    # The laws put together

    def _of_kind(self, kind: str) -> Profile:
        return self._profiles.get(kind, UNKNOWN)

    def _key(self, gang: Gang) -> RateKey:
        name = gang.name if gang.name in self._profiles else gang.profile_name
        return name if name in self._profiles else "", gang.sensitivity

    def _rate(self, key: RateKey, shape: Shape, co_location: CoLocation) -> float:
        measured = self._of_kind(key[0]).rates.get((shape, co_location))
        if measured is not None:
            return measured
        alone = self._rate_alone(key, shape)
        if not co_location:
            return alone
        flow = 0.0
        if any(via is Via.NIC for via, _ in co_location):
            law = self._laws[key]
            flow = law.volume * network(shape) / law.seconds(shape.gpus, exchange(shape))
        return alone / (1 + self._interference.added(key[0], co_location, flow))

    def _rate_alone(self, key: RateKey, shape: Shape) -> float:
        """The rate without neighbours: measured in this shape, else in the one most like it and scaled by the law."""
        measured = self._alone[key[0]]
        if shape in measured:
            return measured[shape]
        by_law = self._rate_by_law(key, shape)
        if not measured:
            return by_law
        nearest = _nearest(measured, shape)
        return measured[nearest] * by_law / self._rate_by_law(key, nearest)

    def _is_measured_alone(self, key: RateKey, shape: Shape) -> bool:
        """Whether the rate without neighbours was measured in this shape, or is scaled by laws that were measured."""
        measured = self._alone[key[0]]
        if not measured or shape in measured:
            return bool(measured)
        law, nearest = self._laws[key], _nearest(measured, shape)
        by_size = nearest.gpus == shape.gpus or law.each_measured
        by_links = exchange(nearest) == exchange(shape) or law.volume_measured
        models = f"{nearest.model}+{shape.model}".split("+") if nearest.model != shape.model else ()
        return by_size and by_links and all(m in self._speeds[key[0]] or m in self._usual_speeds for m in models)

    def _rate_by_law(self, key: RateKey, shape: Shape) -> float:
        return shape.gpus * self._speed(key[0], shape.model) / self._laws[key].seconds(shape.gpus, exchange(shape))

    def _law(self, key: RateKey) -> Law:
        kind, sensitivity = key
        points = [
            Point(shape.gpus, exchange(shape), shape.gpus * self._speed(kind, shape.model) / rate)
            for shape, rate in self._alone[kind].items()
        ]
        step = min((point.seconds for point in points), default=None)
        return fit(points, exposure(self._of_kind(kind), sensitivity, step))

    def _best_rate(self, key: RateKey, gpus: int) -> float:
        """The rate in the best shape of this many GPUs that the machines have or that was measured."""
        shapes = {*self._ideal[gpus], *(shape for shape in self._alone[key[0]] if shape.gpus == gpus)}
        return max((self._rates[key, shape, NO_NEIGHBOURS] for shape in shapes), default=0.0)

    def _ideal_shapes(self, gpus: int) -> list[Shape]:
        """The best shape of this many GPUs on each type of machine."""
        types = {(node.machine, node.model, node.nic_gbps) for node in self._nodes.values() if node.machine.gpus}
        largest = max((machine.gpus for machine, _, _ in types), default=0)
        shapes = []
        for machine, model, nic_gbps in types:
            if 0 < min(gpus, largest) <= machine.gpus:
                full, remainder = divmod(gpus, machine.gpus)
                counts = (machine.gpus,) * full + ((remainder,) if remainder else ())
                ring = machine.speed(machine.all, counts[0])
                shapes.append(Shape(model, counts, ring, UNLIMITED if len(counts) < 2 else nic_gbps * GOODPUT))
        return shapes

    # GPU models

    def _speed(self, kind: str, model: str) -> float:
        """The speed of a GPU model, or of the slowest of several, compared with the first model by name."""
        own = self._speeds[kind]
        return min(own.get(name) or self._usual_speeds.get(name, 1.0) for name in model.split("+"))

    @cached_property
    def _base_model(self) -> str:
        return min((node.model for node in self._nodes.values()), default="")

    @cached_property
    def _usual_speeds(self) -> dict[str, float]:
        """The geometric mean of each model's speed over the kinds for which it was measured."""
        logs: dict[str, list[float]] = {}
        for kind in self._profiles:
            for model, speed in self._speeds[kind].items():
                logs.setdefault(model, []).append(log(speed))
        return {model: exp(fsum(values) / len(values)) for model, values in logs.items()}


def _speeds(alone: Mapping[Shape, float], base_model: str) -> dict[str, float]:
    """The rate on each GPU model compared with the base model, where the same counts were measured on both."""
    if len({shape.model for shape in alone}) < 2:
        return {}
    best: dict[str, dict[tuple[int, ...], float]] = {}
    for measured, rate in alone.items():
        rates = best.setdefault(measured.model, {})
        rates[measured.counts] = max(rates.get(measured.counts, 0.0), rate)
    base = best.get(base_model, {})
    speeds: dict[str, float] = {}
    for model, rates in best.items():
        ratios = [rate / base[counts] for counts, rate in rates.items() if rate > 0 and base.get(counts)]
        if ratios:
            speeds[model] = sum(ratios) / len(ratios)
    return speeds


def _nearest(measured: Iterable[Shape], shape: Shape) -> Shape:
    """The measured shape from which to scale: the most alike, with the least reliable scaling first; ties go by all fields."""

    def unlikeness(other: Shape) -> tuple[object, ...]:
        scaled = (abs(other.gpus - shape.gpus), other.model != shape.model, abs(exchange(other) - exchange(shape)))
        return (*scaled, other.model, other.counts, other.gbps, other.between)

    return min(measured, key=unlikeness)
