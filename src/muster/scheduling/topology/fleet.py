"""What of the nodes stays the same from pass to pass, and what follows from it.

Which nodes a gang may use, and what there would be if nobody held anything, depend on labels, taints and hardware; these change
seldom, and working them out for every gang and node is most of a plan. A `Fleet` is made for nodes and serves as long as it
holds for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from muster.scheduling.topology.eligibility import Constraint
from muster.scheduling.topology.node import Level, Node


class Asks(Protocol):
    """A task, or what one asks for."""

    @property
    def gpus(self) -> int: ...

    @property
    def where(self) -> Constraint: ...


class Fleet:
    """The fixed parts of nodes; answers are remembered."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = dict(nodes)
        self._admitted: dict[Constraint, frozenset[str]] = {}
        self._eligible: dict[frozenset[tuple[Constraint, int]], tuple[str, ...]] = {}
        self._domains: dict[Level, Mapping[str, str]] = {}
        self.infeasible: dict[object, str | None] = {}
        """What the largest hope of a gang of some shape lacks, with nobody else running; None where it fits."""

    def __len__(self) -> int:
        return len(self._nodes)

    def changed(self, nodes: Mapping[str, Node]) -> list[str] | None:
        """Return which nodes are other objects than before; None where what is known of the nodes does not hold for these."""
        known = self._nodes
        if len(known) != len(nodes):
            return None
        others = [name for name, node in nodes.items() if known.get(name) is not node]
        for name in others:
            before = known.get(name)
            if before is None or _fixed(before) != _fixed(nodes[name]):
                return None
        known.update((name, nodes[name]) for name in others)
        return others

    def admitted(self, where: Constraint) -> frozenset[str]:
        """The nodes that a constraint allows."""
        found = self._admitted.get(where)
        if found is None:
            found = frozenset(n.name for n in self._nodes.values() if where.admits(n.name, n.labels, n.taints))
            self._admitted[where] = found
        return found

    def eligible(self, tasks: Iterable[Asks]) -> tuple[str, ...]:
        """The nodes, by name, that at least one of the tasks may go to and that has the GPUs for it at best."""
        shapes = frozenset([(task.where, task.gpus) for task in tasks])
        found = self._eligible.get(shapes)
        if found is None:
            fit = [(self.admitted(where), gpus) for where, gpus in shapes]
            able = {name: node.healthy.bit_count() for name, node in self._nodes.items()}
            found = tuple(sorted(name for name, most in able.items() if any(name in ok and most >= g for ok, g in fit)))
            self._eligible[shapes] = found
        return found

    def domains(self, level: Level) -> Mapping[str, str]:
        """The domain of each node at a level."""
        found = self._domains.get(level)
        if found is None:
            found = self._domains[level] = {name: node.domain(level) for name, node in self._nodes.items()}
        return found

    @cached_property
    def one_kind(self) -> tuple[str, float] | None:
        """The model of GPU and the GB/s of the network cards, where all nodes have the same."""
        kinds = {(node.model, node.nic_gbps) for node in self._nodes.values()}
        return kinds.pop() if len(kinds) == 1 else None

    @cached_property
    def empty(self) -> Mapping[str, Node]:
        """The nodes if nobody held anything: what a gang can hope for at best."""
        return {
            name: replace(node, free=node.healthy, parts=(), resources=node.allocatable) for name, node in self._nodes.items()
        }


def _fixed(node: Node) -> tuple[object, ...]:
    place = (node.rack, node.block, node.labels, node.taints)
    return (node.machine, node.model, node.healthy, node.allocatable, node.nic_gbps, *place)
