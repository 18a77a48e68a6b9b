"""Free capacity: what is free of each node, as the decisions of one pass take and give back.

Nodes in the same state are kept together, by name: a search goes through states, of which there are few, not through nodes.
Single changes (`take`, `give_back`, `set`) keep it up to date, and `trial` undoes those that were only tried.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from muster.scheduling.gang import Assigned, Placement
from muster.scheduling.residents import Residents
from muster.scheduling.resources import WHOLE, Parts, Resources
from muster.scheduling.topology.fleet import Fleet
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.machine import MachineType
from muster.scheduling.topology.node import Node


class State(NamedTuple):
    """What of a node decides how many tasks it takes, where it may have them."""

    machine: MachineType
    free: GpuSet
    """GPUs of which everything is free."""
    resources: Resources
    parts: Parts
    """GPUs of which something is free."""


class FreeCapacity:
    """Free GPUs and other resources of each node, and the pods there (`residents`)."""

    def __init__(self, nodes: Mapping[str, Node], fleet: Fleet | None = None, residents: Residents | None = None) -> None:
        self.nodes = nodes
        self.fleet = fleet if fleet is not None else Fleet(nodes)
        self.residents = residents or Residents()
        self.free: dict[str, GpuSet] = {}
        self.parts: dict[str, Parts] = {}
        """By node that has any."""
        self.total = 0
        """Free GPUs of all nodes."""
        self._resources: dict[str, Resources] = {}
        self._by_state: dict[State, list[str]] = {}
        self._undo: list[tuple[str, State]] | None = None
        for name, node in nodes.items():
            self.free[name], self._resources[name] = node.free, node.resources
            if node.parts:
                self.parts[name] = node.parts
            self.total += node.free.bit_count()
            state = State(node.machine, node.free, node.resources, node.parts)
            self._by_state.setdefault(state, []).append(name)
        for names in self._by_state.values():
            names.sort()

    # What is free

    def state(self, name: str) -> State:
        return State(self.nodes[name].machine, self.free[name], self._resources[name], self.parts.get(name, ()))

    @property
    def states(self) -> Mapping[State, Sequence[str]]:
        """The nodes by state; those of a state by name."""
        return self._by_state

    def resources(self, name: str) -> Resources:
        """Return what is free of a node beside GPUs."""
        return self._resources[name]

    def only(self, gpus: Mapping[str, GpuSet]) -> FreeCapacity:
        """Return a capacity of its own in which these GPUs are free, and no others."""
        twin = FreeCapacity({}, self.fleet, self.residents)
        twin.nodes = self.nodes
        for name in sorted(self.nodes):
            twin._insert(name, gpus.get(name, 0), self._resources[name], ())
        return twin

    # Changes

    def follow(self, nodes: Mapping[str, Node], changed: Iterable[str]) -> None:
        """Take over the nodes of another snapshot, of which only these have changed."""
        self.nodes = nodes
        for name in changed:
            node = nodes[name]
            self.set(name, node.free, node.resources, node.parts)

    def set(self, name: str, free: GpuSet, resources: Resources | None = None, parts: Parts | None = None) -> None:
        """Say what is free of a node from now on; what is left out stays."""
        before = self.state(name)
        if self._undo is not None:
            self._undo.append((name, before))
        self._replace(
            name, before, free, before.resources if resources is None else resources, before.parts if parts is None else parts
        )

    def take(self, placement: Placement) -> None:
        """Take what each task of a placement needs."""
        self.residents.put(placement, 1)
        for assigned in placement:
            if assigned.node in self.nodes:
                _, free, resources, parts = _taken(self.state(assigned.node), assigned)
                self.set(assigned.node, free, resources, parts)

    def give_back(self, placement: Placement) -> None:
        """Give back what each task of a placement has, but for GPUs that do not work any more."""
        self.residents.put(placement, -1)
        for assigned in placement:
            if assigned.node in self.nodes:
                healthy = assigned.gpus & self.nodes[assigned.node].healthy
                _, free, resources, parts = _given_back(self.state(assigned.node), assigned, healthy)
                self.set(assigned.node, free, resources, parts)

    def vacate_stopping(self) -> None:
        """Count as free what pods on their way out still hold; within a trial."""
        self.residents.without_leaving()
        for name, node in self.nodes.items():
            if node.leaving:
                self.set(name, self.free[name] | (node.leaving & node.healthy))

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo every change within the block at its end."""
        outer, self._undo = self._undo, []
        try:
            with self.residents.trial():
                yield
        finally:
            changes, self._undo = self._undo, outer
            for name, state in reversed(changes):
                self._replace(name, self.state(name), state.free, state.resources, state.parts)

    def _replace(self, name: str, before: State, free: GpuSet, resources: Resources, parts: Parts) -> None:
        names = self._by_state[before]
        if len(names) == 1:
            del self._by_state[before]
        else:
            del names[bisect_left(names, name)]
        self.total -= before.free.bit_count()
        names = self._insert(name, free, resources, parts)
        insort(names, names.pop())

    def _insert(self, name: str, free: GpuSet, resources: Resources, parts: Parts) -> list[str]:
        self.free[name], self._resources[name] = free, resources
        if parts:
            self.parts[name] = parts
        else:
            self.parts.pop(name, None)
        self.total += free.bit_count()
        names = self._by_state.setdefault(State(self.nodes[name].machine, free, resources, parts), [])
        names.append(name)
        return names


def _taken(state: State, assigned: Assigned) -> State:
    machine, free, resources, parts = state
    task, gpus = assigned.task, assigned.gpus
    if task.share < WHOLE:
        free, parts = shared(gpus, free, parts, -task.share)
    return State(machine, free & ~gpus, resources - task.resources, parts)


def _given_back(state: State, assigned: Assigned, healthy: GpuSet) -> State:
    machine, free, resources, parts = state
    task = assigned.task
    if task.share == WHOLE:
        free |= healthy
    elif healthy:
        free, parts = shared(healthy, free, parts, task.share)
    return State(machine, free, resources + task.resources, parts)


def shared(gpu: GpuSet, free: GpuSet, parts: Parts, change: int) -> tuple[GpuSet, Parts]:
    """Return what is free of a node once the free part of one GPU has changed; a GPU all free or all taken is no part."""
    left = dict(parts)
    now = left.pop(gpu.bit_length() - 1, WHOLE if free & gpu else 0) + change
    free = free | gpu if now == WHOLE else free & ~gpu
    if 0 < now < WHOLE:
        left[gpu.bit_length() - 1] = now
    return free, tuple(sorted(left.items()))
