"""Room: what is free of each node during one plan, and the only thing in the core that changes.

Nodes in the same state are kept together, by name: a search looks at states, of which there are few, not at nodes. Single
changes (`take`, `give_back`, `set`) keep it up to date; nothing is ever counted anew.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from muster.scheduling.gang import Placement
from muster.scheduling.resources import WHOLE, Parts, Resources
from muster.scheduling.topology.eligibility import Constraint
from muster.scheduling.topology.fleet import Asks, Fleet
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.machine import MachineType
from muster.scheduling.topology.node import Node

_CLOSED = Resources(-1, -1, -1)


class State(NamedTuple):
    """What of a node decides how many tasks it takes, where it may have them."""

    machine: MachineType
    free: GpuSet
    """GPUs of which everything is free."""
    resources: Resources
    parts: Parts
    """GPUs of which something is free."""


class FreeCapacity:
    """Free GPUs and other resources of each node, as a plan takes and gives back."""

    def __init__(self, nodes: Mapping[str, Node], fleet: Fleet | None = None) -> None:
        self.nodes = nodes
        self.fleet = fleet or Fleet(nodes)
        self.free: dict[str, GpuSet] = {}
        self.parts: dict[str, Parts] = {}
        """By node that has any."""
        self.total = 0
        """Free GPUs of all nodes."""
        self.touched: set[str] = set()
        """Nodes that are no longer as `nodes` has them."""
        self._rest: dict[str, Resources] = {}
        self._alike: dict[State, list[str]] = {}
        for name, node in nodes.items():
            self._put(name, node.free, node.resources, node.parts)
        for names in self._alike.values():
            names.sort()

    def follow(self, nodes: Mapping[str, Node], changed: Iterable[str]) -> None:
        """Become the room of nodes whose fixed parts are the same, and of which those named are other objects."""
        self.nodes = nodes
        for name in self.touched.union(changed):
            self.set(name, nodes[name].free, nodes[name].resources, nodes[name].parts)
        self.touched = set()

    def set(self, name: str, free: GpuSet, rest: Resources | None = None, parts: Parts | None = None) -> None:
        """Say what is free of a node from now on; what is left out stays."""
        state = self.state(name)
        alike = self._alike[state]
        if len(alike) == 1:
            del self._alike[state]
        else:
            del alike[bisect_left(alike, name)]
        self.total -= state.free.bit_count()
        names = self._put(name, free, state.resources if rest is None else rest, state.parts if parts is None else parts)
        insort(names, names.pop())
        self.touched.add(name)

    def state(self, name: str) -> State:
        return State(self.nodes[name].machine, self.free[name], self._rest[name], self.parts.get(name, ()))

    @property
    def states(self) -> Mapping[State, Sequence[str]]:
        """The nodes by state; those of a state by name."""
        return self._alike

    def take(self, placement: Placement) -> None:
        for place in placement:
            _, free, rest, parts = self.state(place.node)
            if place.task.share < WHOLE:
                free, parts = shared(place.gpus, free, parts, -place.task.share)
            self.set(place.node, free & ~place.gpus, rest - place.task.resources, parts)

    def give_back(self, placement: Placement) -> None:
        for place in placement:
            if place.node in self.nodes:
                _, free, rest, parts = self.state(place.node)
                healthy = place.gpus & self.nodes[place.node].healthy
                if place.task.share == WHOLE:
                    free |= healthy
                elif healthy:
                    free, parts = shared(place.gpus, free, parts, place.task.share)
                self.set(place.node, free, rest + place.task.resources, parts)

    def copy(self) -> FreeCapacity:
        twin = FreeCapacity.__new__(FreeCapacity)
        twin.nodes, twin.fleet, twin.total = self.nodes, self.fleet, self.total
        twin.free, twin.parts = dict(self.free), dict(self.parts)
        twin._rest, twin.touched = dict(self._rest), set(self.touched)
        twin._alike = {state: list(names) for state, names in self._alike.items()}
        return twin

    def only(self, spots: Mapping[str, GpuSet]) -> FreeCapacity:
        """The room in which these GPUs are free, and no others."""
        twin = FreeCapacity({}, self.fleet)
        twin.nodes = self.nodes
        for name in sorted(self.nodes):
            twin._put(name, spots.get(name, 0), self._rest[name], ())
        return twin

    def settled(self) -> FreeCapacity:
        """The room there will be when the pods that are on their way out have gone."""
        later = self.copy()
        for name, node in self.nodes.items():
            if node.leaving:
                later.set(name, later.free[name] | (node.leaving & node.healthy))
        return later

    def without(self, names: Iterable[str]) -> FreeCapacity:
        """The room with the nodes named closed."""
        less = self.copy()
        for name in names:
            less.close(name)
        return less

    def close(self, name: str) -> None:
        """Let nothing more onto the node, be it a task without GPUs."""
        if name in self.free:
            self.set(name, 0, _CLOSED, ())

    def resources(self, name: str) -> Resources:
        return self._rest[name]

    def admitted(self, where: Constraint) -> frozenset[str]:
        """The nodes that a constraint allows."""
        return self.fleet.admitted(where)

    def eligible(self, tasks: Iterable[Asks]) -> tuple[str, ...]:
        """The nodes, by name, that at least one of the tasks may go to and that has the GPUs for it at best."""
        return self.fleet.eligible(tasks)

    def _put(self, name: str, free: GpuSet, rest: Resources, parts: Parts) -> list[str]:
        self.free[name], self._rest[name] = free, rest
        if parts:
            self.parts[name] = parts
        else:
            self.parts.pop(name, None)
        self.total += free.bit_count()
        names = self._alike.setdefault(State(self.nodes[name].machine, free, rest, parts), [])
        names.append(name)
        return names


def shared(gpu: GpuSet, free: GpuSet, parts: Parts, change: int) -> tuple[GpuSet, Parts]:
    """What is free of a node once the free part of one GPU has changed by so much; a GPU all free or all taken is no part."""
    left = dict(parts)
    now = left.pop(gpu.bit_length() - 1, WHOLE if free & gpu else 0) + change
    free = free | gpu if now == WHOLE else free & ~gpu
    if 0 < now < WHOLE:
        left[gpu.bit_length() - 1] = now
    return free, tuple(sorted(left.items()))
