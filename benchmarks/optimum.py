"""The best placement of a gang on a small cluster, proved: a model for OR-Tools' CP-SAT, and the costs that it goes by.

Costs are what `place` says it pursues. First the nearest level; then

    fewest    sensitive, nothing known: the fewest nodes, then the fastest of the slowest rings inside a node
    rate      sensitive, a rate given: the shortest exchange (`network.exchange`), hence the shortest step
    tightest  other gangs: the fullest domain, the fewest nodes in it, then the fewest GPUs left over on these nodes
    useful    other gangs, the tasks to come given: as before, but the least growth of `Fragmentation` comes last

The worth of GPUs of a node is found by trying every set, not by the tables of `machine`, and a node's share is a number of
tasks of each size, since tasks of a size are alike. Machines have at most 8 GPUs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

from ortools.sat.python import cp_model

from muster.scheduling.gang import Gang, Placement, Task, gpus_by_node
from muster.scheduling.placing.fragmentation import Fragmentation, Free, TaskMix
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster.scheduling.profile import Shape
from muster.scheduling.speed.shapes import shape
from muster.scheduling.speed.step_time import EACH, SENSITIVE_GB, USUAL_STEP, Law
from muster.scheduling.topology.fleet import Fleet
from muster.scheduling.topology.links import UNLIMITED, gpu_set, indices
from muster.scheduling.topology.machine import MachineType
from muster.scheduling.topology.network import GOODPUT, UPLINK, exchange, level, network
from muster.scheduling.topology.node import Level, Node

CRITERIA = {
    "fewest": ("level", "nodes", "ring"),
    "rate": ("level", "exchange"),
    "tightest": ("level", "domain", "nodes", "left over"),
    "useful": ("level", "domain", "nodes", "unused"),
}
FINE = 1e9
"""Fractions are counted in billionths: CP-SAT knows integers only."""
LAW = Law(1.0, EACH, SENSITIVE_GB / USUAL_STEP)
TO_COME = [Task("", gpus) for gpus in (1, 1, 1, 1, 2, 2, 4, 8)]

Cost = tuple[int, ...]
"""One number for each criterion; less is better, the first counts most."""


def rate(_: Gang, its: Shape) -> float:
    """Return the mini-batches that a gang like VGG16 does in the time of one without any exchange."""
    return its.gpus / LAW.seconds(its.gpus, exchange(its))


@dataclass(frozen=True)
class Instance:
    """A gang and a cluster, and what is known beside them."""

    kind: str
    gang: Gang
    nodes: Mapping[str, Node]

    @cached_property
    def fragmentation(self) -> Fragmentation | None:
        return Fragmentation(TaskMix.of(TO_COME), Fleet(self.nodes)) if self.kind == "useful" else None

    def placed(self) -> Placement | None:
        """Place the gang as muster does."""
        return find(self.gang, self.capacity, fragmentation=self.fragmentation, rate=rate if self.kind == "rate" else None)

    @cached_property
    def capacity(self) -> FreeCapacity:
        return FreeCapacity(self.nodes)

    @cached_property
    def usable(self) -> list[Node]:
        """The nodes that can take one of the tasks at least."""
        least = min(task.gpus for task in self.gang.tasks)
        return [node for node in self.nodes.values() if node.free.bit_count() >= least]

    @cached_property
    def rings(self) -> list[float]:
        """The worth of every set that may be chosen, fastest first."""
        speeds = {best_ring(node.machine, node.free, gpus) for node in self.usable for gpus in range(node.free.bit_count() + 1)}
        return sorted(speeds, reverse=True)

    def domain(self, level: Level, key: str) -> list[Node]:
        return [node for node in self.usable if node.domain(level) == key]

    def fullness(self, level: Level, key: str) -> int:
        """The free GPUs of a domain; a node is judged by what is left over on it."""
        return sum(node.free.bit_count() for node in self.domain(level, key)) if level is not Level.NODE else 0

    def unused(self, node: Node, gpus: int) -> int:
        """Billionths of a GPU: what more of a node will stay unused once the gang has so many GPUs of it."""
        assert self.fragmentation
        before = Free.of(self.capacity.state(node.name), self.fragmentation.everything)
        after = before._replace(gpus=before.gpus - gpus)
        return round(FINE * (self.fragmentation.unused(after) - self.fragmentation.unused(before)))

    def cost(self, placement: Placement) -> Cost:
        """Return what a placement costs by each criterion of the kind."""
        gpus, its = gpus_by_node(placement), shape(placement, self.nodes)
        used = [self.nodes[name] for name in gpus]
        far = level(used)
        if self.kind == "rate":
            return (far, round(FINE * inside(max(its.counts), its.gbps)) + round(FINE * network(its)))
        if self.kind == "fewest":
            return (far, len(used), sum(speed > its.gbps for speed in self.rings))
        last = sum(
            self.unused(node, gpus[node.name].bit_count())
            if self.kind == "useful"
            else (node.free & ~gpus[node.name]).bit_count()
            for node in used
        )
        return (far, self.fullness(far, used[0].domain(far)), len(used), last)


def inside(gpus: int, gbps: float) -> float:
    """The part of `exchange` that stays inside the nodes."""
    return exchange(Shape("", (gpus,), gbps))


_RINGS: dict[tuple[MachineType, int, int], float] = {}


def best_ring(machine: MachineType, free: int, gpus: int) -> float:
    """The fastest ring of so many of the free GPUs, all choices tried."""
    key = (machine, free, gpus)
    if key not in _RINGS:
        choices = combinations(indices(free), gpus)
        _RINGS[key] = max(machine.ring(gpu_set(chosen)) for chosen in choices)
    return _RINGS[key]


# The optimum


@dataclass
class Optimum:
    """An instance as a CP-SAT model: how many tasks of each size go to each node, since tasks of a size are alike."""

    instance: Instance
    model: cp_model.CpModel = field(default_factory=cp_model.CpModel)
    seconds: float = 0.0
    """CPU time of the search."""

    def solve(self) -> Cost | None:
        """Return the least cost that any placement has, or None where there is none; raise where neither is proved."""
        criteria = self._criteria()
        scale, total = 1, cp_model.LinearExpr.sum([0])
        for criterion, bound in reversed(criteria):
            total, scale = total + scale * criterion, scale * (bound + 1)
        self.model.minimize(total)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        began = time.process_time()
        status = solver.solve(self.model)
        self.seconds = time.process_time() - began
        if status == cp_model.INFEASIBLE:
            return None
        if status != cp_model.OPTIMAL:
            raise RuntimeError(f"CP-SAT proved nothing: {solver.status_name(status)}")
        return tuple(solver.value(criterion) for criterion, _ in criteria)

    def _criteria(self) -> list[tuple[Any, int]]:
        """The criteria of the kind, and the most that each can be."""
        kind, model = self.instance.kind, self.model
        gpus = self._shares()
        used = {name: self._is_positive(its) for name, its in gpus.items()}
        nodes = model.new_int_var(1, max(1, len(used)), "nodes")
        model.add(nodes == sum(used.values()))
        far, fullness = self._domain(used)
        ahead: list[tuple[Any, int]] = [(far, Level.CLUSTER)]
        if kind == "fewest":
            return [*ahead, (nodes, len(used)), (self._slowest(gpus), len(self.instance.rings))]
        if kind == "rate":
            return [*ahead, self._exchange(gpus, used, nodes, far)]
        ahead += [(fullness, 8 * len(used)), (nodes, len(used))]
        spare = [used[node.name] * node.free.bit_count() - gpus[node.name] for node in self.instance.usable]
        return [*ahead, self._unused(gpus) if kind == "useful" else (cp_model.LinearExpr.sum(spare), 8 * len(used))]

    def _shares(self) -> dict[str, Any]:
        """The GPUs that the gang has of each node: its tasks fit there, and all of them are somewhere."""
        model, usable, terms = self.model, self.instance.usable, []
        for size, number in Counter(task.gpus for task in self.instance.gang.tasks).items():
            tasks = [model.new_int_var(0, number, f"tasks of {size} on {node.name}") for node in usable]
            model.add(cp_model.LinearExpr.sum(tasks) == number)
            terms.append([size * some for some in tasks])
        gpus = {node.name: model.new_int_var(0, node.free.bit_count(), f"GPUs of {node.name}") for node in usable}
        for node, parts in zip(usable, zip(*terms, strict=True), strict=True):
            model.add(gpus[node.name] == cp_model.LinearExpr.sum(parts))
        return gpus

    def _is_positive(self, number: Any) -> Any:
        its = self.model.new_bool_var("")
        self.model.add(number >= 1).only_enforce_if(its)
        self.model.add(number == 0).only_enforce_if(~its)
        return its

    def _domain(self, used: Mapping[str, Any]) -> tuple[Any, Any]:
        """Keep the gang in one domain; return its level and the free GPUs in it."""
        model, far, fullness, chosen = self.model, [], [], []
        for near in range(self.instance.gang.required + 1):
            level = Level(near)
            for key in sorted({node.domain(level) for node in self.instance.usable}):
                this = model.new_bool_var(f"{level.name} {key}")
                members = {node.name for node in self.instance.domain(level, key)}
                for name in used.keys() - members:
                    model.add_implication(this, ~used[name])
                chosen.append(this)
                far.append(level * this)
                fullness.append(self.instance.fullness(level, key) * this)
        model.add_exactly_one(chosen)
        return cp_model.LinearExpr.sum(far), cp_model.LinearExpr.sum(fullness)

    def _slowest(self, gpus: Mapping[str, Any]) -> Any:
        """The place of the slowest ring among `rings`."""
        ranks = []
        for node in self.instance.usable:
            free = node.free.bit_count()
            worth = [self.instance.rings.index(best_ring(node.machine, node.free, taken)) for taken in range(free + 1)]
            ranks.append(self._looked_up(gpus[node.name], worth))
        return self._most(ranks, len(self.instance.rings))

    def _exchange(self, gpus: Mapping[str, Any], used: Mapping[str, Any], nodes: Any, far: Any) -> tuple[Any, int]:
        """Billionths of a second for 1 GB: inside by most GPUs and slowest ring, between nodes by number, card, level."""
        model, rings = self.model, self.instance.rings
        most, slowest = self._most(list(gpus.values()), 8), self._slowest(gpus)
        nics = sorted({node.nic_gbps for node in self.instance.usable}, reverse=True)
        nic = self._most([used[node.name] * nics.index(node.nic_gbps) for node in self.instance.usable], len(nics))
        here = {(n, r): inside(n, rings[r]) for n in range(1, 9) for r in range(len(rings))}
        there = {
            (m, k, at): network(Shape("", (1,) * m, UNLIMITED, nics[k] * GOODPUT * UPLINK[Level(at)] if m > 1 else UNLIMITED))
            for m in range(1, len(used) + 1)
            for k in range(len(nics))
            for at in Level
        }
        parts, bound = [], 0
        for variables, table in (([most, slowest], here), ([nodes, nic, far], there)):
            longest = round(FINE * max(table.values()))
            part = model.new_int_var(0, longest, "exchange")
            rows = [(*key, round(FINE * seconds)) for key, seconds in table.items()]
            model.add_allowed_assignments([*variables, part], rows)
            parts.append(part)
            bound += longest
        return cp_model.LinearExpr.sum(parts), bound

    def _unused(self, gpus: Mapping[str, Any]) -> tuple[Any, int]:
        """Billionths of a GPU; below 0 where the gang takes what would have stayed unused."""
        grown = [
            self._looked_up(gpus[node.name], [self.instance.unused(node, k) for k in range(node.free.bit_count() + 1)])
            for node in self.instance.usable
        ]
        return cp_model.LinearExpr.sum(grown), round(2 * 8 * len(grown) * FINE)

    def _looked_up(self, number: Any, table: Sequence[int]) -> Any:
        found = self.model.new_int_var(min(table), max(table), "")
        self.model.add_element(number, table, found)
        return found

    def _most(self, numbers: Sequence[Any], bound: int) -> Any:
        found = self.model.new_int_var(0, bound, "")
        self.model.add_max_equality(found, numbers)
        return found
