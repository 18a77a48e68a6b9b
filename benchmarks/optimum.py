"""The provably best placement of a gang on a small cluster: a model for OR-Tools' CP-SAT, and its cost function.

The cost is the documented objective of `place`, in lexicographic order. First the topology level; then

    fewest    sensitive gangs without measurements: the number of nodes, then the slowest ring inside a node
    rate      sensitive gangs with a rate function: the exchange time (`network.exchange`), hence the step time
    tightest  insensitive gangs: free GPUs of the domain, number of nodes, then free GPUs left on these nodes
    useful    insensitive gangs with a mix of future tasks: as before, but the growth of `Fragmentation` comes last

Rings are found by enumeration, not from the tables of `machine`. Tasks of a size are interchangeable, so the model only counts
the tasks of each size on each node. Machines have at most 8 GPUs.
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
SCALE = 1e9
"""The scale of fractions: CP-SAT works on integers, so costs are in billionths."""
LAW = Law(1.0, EACH, SENSITIVE_GB / USUAL_STEP)
TO_COME = [Task("", gpus) for gpus in (1, 1, 1, 1, 2, 2, 4, 8)]

Cost = tuple[int, ...]
"""One number for each criterion in lexicographic order; lower is better."""


def rate(_: Gang, shape: Shape) -> float:
    """Return the mini-batches of a VGG16-like gang in the step time of one GPU without exchange."""
    return shape.gpus / LAW.seconds(shape.gpus, exchange(shape))


@dataclass(frozen=True)
class Instance:
    """A gang, a cluster, and the criteria of the comparison."""

    kind: str
    gang: Gang
    nodes: Mapping[str, Node]

    @cached_property
    def fragmentation(self) -> Fragmentation | None:
        return Fragmentation(TaskMix.of(TO_COME), Fleet(self.nodes)) if self.kind == "useful" else None

    def placed(self) -> Placement | None:
        """Return muster's placement."""
        return find(self.gang, self.capacity, fragmentation=self.fragmentation, rate=rate if self.kind == "rate" else None)

    @cached_property
    def capacity(self) -> FreeCapacity:
        return FreeCapacity(self.nodes)

    @cached_property
    def usable(self) -> list[Node]:
        """The nodes with enough free GPUs for at least one task."""
        least = min(task.gpus for task in self.gang.tasks)
        return [node for node in self.nodes.values() if node.free.bit_count() >= least]

    @cached_property
    def rings(self) -> list[float]:
        """The GB/s of every ring that a placement can have, fastest first."""
        speeds = {best_ring(node.machine, node.free, gpus) for node in self.usable for gpus in range(node.free.bit_count() + 1)}
        return sorted(speeds, reverse=True)

    def domain(self, level: Level, key: str) -> list[Node]:
        return [node for node in self.usable if node.domain(level) == key]

    def fullness(self, level: Level, key: str) -> int:
        """Return the free GPUs of a domain; 0 for a single node, which the last criterion judges."""
        return sum(node.free.bit_count() for node in self.domain(level, key)) if level is not Level.NODE else 0

    def unused(self, node: Node, gpus: int) -> int:
        """Return the growth of a node's fragmentation, in billionths of a GPU, if the gang takes `gpus` of its GPUs."""
        assert self.fragmentation
        before = Free.of(self.capacity.state(node.name), self.fragmentation.everything)
        after = before._replace(gpus=before.gpus - gpus)
        return round(SCALE * (self.fragmentation.unused(after) - self.fragmentation.unused(before)))

    def cost(self, placement: Placement) -> Cost:
        """Return the cost of a placement by each criterion of the kind."""
        gpus, placed_shape = gpus_by_node(placement), shape(placement, self.nodes)
        used = [self.nodes[name] for name in gpus]
        far = level(used)
        if self.kind == "rate":
            return (
                far,
                round(SCALE * inside(max(placed_shape.counts), placed_shape.gbps)) + round(SCALE * network(placed_shape)),
            )
        if self.kind == "fewest":
            return (far, len(used), sum(speed > placed_shape.gbps for speed in self.rings))
        last = sum(
            self.unused(node, gpus[node.name].bit_count())
            if self.kind == "useful"
            else (node.free & ~gpus[node.name]).bit_count()
            for node in used
        )
        return (far, self.fullness(far, used[0].domain(far)), len(used), last)


def inside(gpus: int, gbps: float) -> float:
    """Return the part of `exchange` inside the nodes, in seconds for 1 GB."""
    return exchange(Shape("", (gpus,), gbps))


_RINGS: dict[tuple[MachineType, int, int], float] = {}


def best_ring(machine: MachineType, free: int, gpus: int) -> float:
    """Return the GB/s of the fastest ring of `gpus` free GPUs, by enumeration."""
    key = (machine, free, gpus)
    if key not in _RINGS:
        choices = combinations(indices(free), gpus)
        _RINGS[key] = max(machine.ring(gpu_set(chosen)) for chosen in choices)
    return _RINGS[key]


# The optimum


@dataclass
class Optimum:
    """An instance as a CP-SAT model of the number of tasks of each size on each node."""

    instance: Instance
    model: cp_model.CpModel = field(default_factory=cp_model.CpModel)
    seconds: float = 0.0
    """CPU time of the search."""

    def solve(self) -> Cost | None:
        """Return the least cost of any placement, None if there is none; raise RuntimeError if CP-SAT proves neither."""
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
        """The criteria of the kind, and the upper bound of each."""
        kind, model = self.instance.kind, self.model
        gpus = self._node_gpus()
        used = {name: self._is_positive(count) for name, count in gpus.items()}
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

    def _node_gpus(self) -> dict[str, Any]:
        """The gang's GPUs on each node; its tasks fit there, and every task has a node."""
        model, usable, terms = self.model, self.instance.usable, []
        for size, number in Counter(task.gpus for task in self.instance.gang.tasks).items():
            tasks = [model.new_int_var(0, number, f"tasks of {size} on {node.name}") for node in usable]
            model.add(cp_model.LinearExpr.sum(tasks) == number)
            terms.append([size * on_node for on_node in tasks])
        gpus = {node.name: model.new_int_var(0, node.free.bit_count(), f"GPUs of {node.name}") for node in usable}
        for node, parts in zip(usable, zip(*terms, strict=True), strict=True):
            model.add(gpus[node.name] == cp_model.LinearExpr.sum(parts))
        return gpus

    def _is_positive(self, number: Any) -> Any:
        positive = self.model.new_bool_var("")
        self.model.add(number >= 1).only_enforce_if(positive)
        self.model.add(number == 0).only_enforce_if(~positive)
        return positive

    def _domain(self, used: Mapping[str, Any]) -> tuple[Any, Any]:
        """Constrain the gang to one domain; return its level and its free GPUs."""
        model, far, fullness, chosen = self.model, [], [], []
        for near in range(self.instance.gang.required + 1):
            level = Level(near)
            for key in sorted({node.domain(level) for node in self.instance.usable}):
                is_domain = model.new_bool_var(f"{level.name} {key}")
                members = {node.name for node in self.instance.domain(level, key)}
                for name in used.keys() - members:
                    model.add_implication(is_domain, ~used[name])
                chosen.append(is_domain)
                far.append(level * is_domain)
                fullness.append(self.instance.fullness(level, key) * is_domain)
        model.add_exactly_one(chosen)
        return cp_model.LinearExpr.sum(far), cp_model.LinearExpr.sum(fullness)

    def _slowest(self, gpus: Mapping[str, Any]) -> Any:
        """The index of the slowest ring in `rings`."""
        ranks = []
        for node in self.instance.usable:
            free = node.free.bit_count()
            rank_of = [self.instance.rings.index(best_ring(node.machine, node.free, count)) for count in range(free + 1)]
            ranks.append(self._element(gpus[node.name], rank_of))
        return self._maximum(ranks, len(self.instance.rings))

    def _exchange(self, gpus: Mapping[str, Any], used: Mapping[str, Any], nodes: Any, far: Any) -> tuple[Any, int]:
        """Exchange time of 1 GB in billionths of a second: inside nodes by GPUs and ring, between by number, NIC and level."""
        model, rings = self.model, self.instance.rings
        most, slowest = self._maximum(list(gpus.values()), 8), self._slowest(gpus)
        nics = sorted({node.nic_gbps for node in self.instance.usable}, reverse=True)
        nic = self._maximum([used[node.name] * nics.index(node.nic_gbps) for node in self.instance.usable], len(nics))
        here = {(n, r): inside(n, rings[r]) for n in range(1, 9) for r in range(len(rings))}
        there = {
            (m, k, at): network(Shape("", (1,) * m, UNLIMITED, nics[k] * GOODPUT * UPLINK[Level(at)] if m > 1 else UNLIMITED))
            for m in range(1, len(used) + 1)
            for k in range(len(nics))
            for at in Level
        }
        parts, bound = [], 0
        for variables, table in (([most, slowest], here), ([nodes, nic, far], there)):
            longest = round(SCALE * max(table.values()))
            part = model.new_int_var(0, longest, "exchange")
            rows = [(*key, round(SCALE * seconds)) for key, seconds in table.items()]
            model.add_allowed_assignments([*variables, part], rows)
            parts.append(part)
            bound += longest
        return cp_model.LinearExpr.sum(parts), bound

    def _unused(self, gpus: Mapping[str, Any]) -> tuple[Any, int]:
        """Growth of fragmentation in billionths of a GPU; negative if the gang uses otherwise unusable GPUs."""
        grown = [
            self._element(gpus[node.name], [self.instance.unused(node, k) for k in range(node.free.bit_count() + 1)])
            for node in self.instance.usable
        ]
        return cp_model.LinearExpr.sum(grown), round(2 * 8 * len(grown) * SCALE)

    def _element(self, index: Any, table: Sequence[int]) -> Any:
        element = self.model.new_int_var(min(table), max(table), "")
        self.model.add_element(index, table, element)
        return element

    def _maximum(self, numbers: Sequence[Any], bound: int) -> Any:
        maximum = self.model.new_int_var(0, bound, "")
        self.model.add_max_equality(maximum, numbers)
        return maximum
