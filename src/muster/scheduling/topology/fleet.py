"""The fleet: what stays the same of all nodes from pass to pass, and what follows from it.

The nodes that a gang may use, and the capacity of the empty cluster, depend on labels, taints and hardware, which seldom
change. Kept, an exclusive pass over 5,000 nodes and 10,000 queued gangs takes 22 ms; worked out anew, 139 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple, Protocol

from muster.scheduling.memo import Memo
from muster.scheduling.resources import Resources
from muster.scheduling.topology.eligibility import Constraint
from muster.scheduling.topology.node import Level, Node, Unusable
from muster.scheduling.topology.objections import objection

Demands = frozenset[tuple[Constraint, int]]
"""The different constraints and GPU counts of a gang's tasks. Gangs with equal demands may use the same nodes."""


NO_NODES: Mapping[str, Unusable] = {}


class Size(NamedTuple):
    """What decides whether a pod could fit on a node."""

    gpus: int
    healthy: int
    allocatable: Resources


class Asks(Protocol):
    """A task, or the request of one."""

    @property
    def gpus(self) -> int: ...

    @property
    def where(self) -> Constraint: ...


class Fleet:
    """The fixed properties of nodes; answers are kept until `follow` returns None."""

    def __init__(self, nodes: Mapping[str, Node], unusable: Mapping[str, Unusable] = NO_NODES) -> None:
        self._nodes, self._unusable = dict(nodes), unusable
        self.admitted: Memo[Constraint, frozenset[str]] = Memo(self._admitted)
        """The nodes that a constraint allows."""
        self.preference: Memo[Constraint, Mapping[str, int]] = Memo(self._preference)
        """How much a constraint prefers each node, of those to which it is not all the same."""
        self.excluded: Memo[Constraint, Mapping[str, frozenset[str]]] = Memo(self._excluded)
        """The other nodes, and those that take no pods, by what the constraint objects to first."""
        self.eligible: Memo[Demands, tuple[str, ...]] = Memo(self._eligible)
        """The nodes, by name, that meet at least one of the demands, with enough healthy GPUs for it."""
        self.domains: Memo[Level, Mapping[str, str]] = Memo(
            lambda level: {name: node.domain(level) for name, node in self._nodes.items()}
        )
        """The domain of each node at a level."""
        self.labelled: Memo[str, Mapping[str, str]] = Memo(
            lambda key: {name: node.labels[key] for name, node in self._nodes.items() if key in node.labels}
        )
        """The value of a label by node that has it."""
        self.outside: Memo[Level, frozenset[str]] = Memo(
            lambda level: frozenset(name for name, node in self._nodes.items() if node.is_outside(level))
        )
        """The nodes that are in no rack, or in no block."""
        self.infeasible: dict[object, str | None] = {}
        """By fit key, what a gang lacks on the empty cluster; None if it fits."""

    def __len__(self) -> int:
        return len(self._nodes)

    def follow(self, nodes: Mapping[str, Node], unusable: Mapping[str, Unusable] = NO_NODES) -> list[str] | None:
        """Return the names of the nodes that changed; None if nodes came, left, or changed in a fixed property."""
        if len(self._nodes) != len(nodes) or self._unusable != unusable:
            return None
        if self._nodes == nodes:  # 3.4 times as fast as the search below, on 1,213 nodes
            return []
        others = [(name, node) for name, node in nodes.items() if self._nodes.get(name) is not node]
        for name, node in others:
            before = self._nodes.get(name)
            if before is None or _fixed(before) != _fixed(node):
                return None
        changed = [name for name, node in others if self._nodes[name] != node]
        self._nodes.update(others)
        return changed

    @staticmethod
    def demands(tasks: Iterable[Asks]) -> Demands:
        """Return the demands of tasks."""
        return frozenset([(task.where, task.gpus) for task in tasks])

    def _admitted(self, where: Constraint) -> frozenset[str]:
        return frozenset(node.name for node in self._nodes.values() if where.admits(node.name, node.labels, node.taints))

    def _preference(self, where: Constraint) -> Mapping[str, int]:
        nodes = (node for node in self._nodes.values() if where.preferred or node.taints)
        preferences = ((node.name, where.preference(node.name, node.labels, node.taints)) for node in nodes)
        return {name: preference for name, preference in preferences if preference}

    def _excluded(self, where: Constraint) -> Mapping[str, frozenset[str]]:
        excluded: dict[str, set[str]] = {}
        admitted = self.admitted[where]
        for name, node in self._nodes.items():
            if name not in admitted:
                excluded.setdefault(objection(where, node), set()).add(name)
        for name, (node, why) in self._unusable.items():
            excluded.setdefault(objection(where, node, why), set()).add(name)
        return {words: frozenset(names) for words, names in excluded.items()}

    def _eligible(self, demands: Demands) -> tuple[str, ...]:
        admitted = [(self.admitted[where], gpus) for where, gpus in demands]
        healthy = {name: node.healthy.bit_count() for name, node in self._nodes.items()}
        eligible = (name for name, most in healthy.items() if any(name in names and most >= gpus for names, gpus in admitted))
        return tuple(sorted(eligible))

    @cached_property
    def uniform_hardware(self) -> tuple[str, float] | None:
        """The GPU model and the GB/s of the network cards, if all nodes have the same."""
        hardware = {(node.model, node.nic_gbps) for node in self._nodes.values()}
        return hardware.pop() if len(hardware) == 1 else None

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all nodes, those that take no pods too."""
        return frozenset((*self._nodes, *self._unusable))

    @cached_property
    def sizes(self) -> Mapping[Size, frozenset[str]]:
        """The nodes that take pods, by size."""
        sizes: dict[Size, set[str]] = {}
        for name, node in self._nodes.items():
            size = Size(node.machine.gpus, node.healthy.bit_count(), node.allocatable)
            sizes.setdefault(size, set()).add(name)
        return {size: frozenset(names) for size, names in sizes.items()}

    @cached_property
    def empty(self) -> Mapping[str, Node]:
        """The nodes of the empty cluster, with everything free: a gang never finds more."""
        return {
            name: replace(node, free=node.healthy, parts=(), resources=node.allocatable) for name, node in self._nodes.items()
        }


def _fixed(node: Node) -> tuple[object, ...]:
    where = (node.rack, node.block, node.labels, node.taints)
    return (node.machine, node.model, node.healthy, node.allocatable, node.nic_gbps, *where)
