"""A pass goes on where the planner fails over one gang or node: what is at fault is found and set aside, the rest is planned.

The planner is one function over everything, so an exception does not say whose fault it is. The planner is asked about a gang
of our own on each kind of node, then about some of the gangs, by halves. Gangs that it has planned before come first, so a
fault that came with one new gang is found in a few passes.

A gang that is set aside keeps its GPUs, since the nodes of a snapshot show as free only what nothing holds; the quota of its
queue is less by as many. It comes back when it, or its node, changes, or after a while: the fault may have been another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from muster.scheduling.decisions import Decision, Reason, Wait
from muster.scheduling.gang import Gang, Task
from muster.scheduling.snapshot import Queue, Snapshot
from muster.scheduling.topology.node import Node
from muster_operator.planning.culprits import Culprits, failure
from muster_operator.reporting import in_words

AGAIN_SECONDS = 300.0
"""Before what was set aside is tried again although it has not changed."""
MOST_TRIALS = 64
"""Passes in search of gangs at fault within one turn; gangs that are not examined by then wait for a later one."""
UNEXAMINED_SECONDS = 2.0
"""Before gangs that could not be examined are."""
Ask = Callable[[Snapshot], Sequence[Decision]]
PROBE = Gang("muster/probe", "muster/probe", 0.0, (Task("probe-0", 1), Task("probe-1", 2)))
"""A gang that every node with three free GPUs can take: the planner has no reason to fail over it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception that the planner does not raise without one gang or node."""

    error: Exception | None
    """None for a gang that has not been examined: what was raised may name others."""
    of: object
    """What the gang or node was."""
    until: float
    """When it is tried again at the latest."""


class Isolation:
    """What is set aside: `gangs` and `nodes` by name. `found` is called with the kind and name of each, and the exception."""

    def __init__(self, found: Callable[[str, str, Exception], None]) -> None:
        self._found = found
        self.gangs: Mapping[str, Fault] = {}
        self.nodes: Mapping[str, Fault] = {}
        self._planned: Sequence[Gang] = ()
        """The gangs of the last pass that ended well."""

    def decide(self, snapshot: Snapshot, ask: Ask, trial: Ask, now: float) -> Sequence[Decision]:
        """Return what `ask` decides, and a Wait for each gang set aside; `trial` answers alike, and remembers nothing.

        Raises what the planner raises over no gangs at all.
        """
        self._restore(snapshot, now)
        try:
            decisions = ask(self._rest(snapshot))
        except Exception:
            self._search(self._rest(snapshot), trial, now)
            decisions = ask(self._rest(snapshot))
        self._planned = self._rest(snapshot).gangs
        if not self.gangs:
            return decisions
        return [*decisions, *(_wait(gang, self.gangs[gang.name]) for gang in snapshot.gangs if gang.name in self.gangs)]

    @property
    def again_at(self) -> float | None:
        """When something that is set aside is tried again; None if nothing is."""
        return min((fault.until for fault in (*self.gangs.values(), *self.nodes.values())), default=None)

    def _rest(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without what is set aside."""
        if not self.gangs and not self.nodes:
            return snapshot
        return replace(
            snapshot,
            nodes={name: node for name, node in snapshot.nodes.items() if name not in self.nodes},
            gangs=tuple(gang for gang in snapshot.gangs if gang.name not in self.gangs),
            queues=_reduced(snapshot.queues, (gang for gang in snapshot.gangs if gang.name in self.gangs)),
        )

    def _restore(self, snapshot: Snapshot, now: float) -> None:
        """Bring back what has changed, and what has been set aside for long; forget what is gone."""
        if self.gangs:
            self.gangs = _still(self.gangs, {gang.name: gang for gang in snapshot.gangs}, now)
        if self.nodes:
            self.nodes = _still(self.nodes, {name: _fixed(node) for name, node in snapshot.nodes.items()}, now)

    def _search(self, snapshot: Snapshot, trial: Ask, now: float) -> None:
        """Set aside the nodes and gangs without which the planner does not fail."""
        by_hardware: dict[object, Exception | None] = {}
        for node in snapshot.nodes.values():
            if _hardware(node) not in by_hardware:
                by_hardware[_hardware(node)] = failure(trial, Snapshot({node.name: node}, (PROBE,)))
            error = by_hardware[_hardware(node)]
            if error is not None:
                self.nodes = {**self.nodes, node.name: Fault(error, _fixed(node), now + AGAIN_SECONDS)}
                self._found("node", node.name, error)
        rest = self._rest(snapshot)
        search: Culprits[Gang] = Culprits(lambda some: failure(trial, replace(rest, gangs=tuple(some))), MOST_TRIALS)
        planned = {gang.name: gang for gang in self._planned}
        search.examine([gang for gang in rest.gangs if planned.get(gang.name) == gang])
        search.examine([gang for gang in rest.gangs if planned.get(gang.name) != gang])
        at_fault = {gang.name: Fault(error, gang, now + AGAIN_SECONDS) for gang, error in search.found}
        unexamined = {gang.name: Fault(None, gang, now + UNEXAMINED_SECONDS) for gang in search.unexamined}
        self.gangs = {**self.gangs, **at_fault, **unexamined}
        for gang, error in search.found:
            self._found("gang", gang.name, error)


def _still(aside: Mapping[str, Fault], present: Mapping[str, object], now: float) -> Mapping[str, Fault]:
    """What remains set aside."""
    return {name: fault for name, fault in aside.items() if fault.of == present.get(name) and now < fault.until}


def _wait(gang: Gang, fault: Fault) -> Wait:
    keeps = "; it keeps its GPUs" if gang.placement else ""
    if fault.error is None:
        return Wait(gang, Reason.UNPLANNABLE, f"muster's planner fails, perhaps over this gang, which is examined next{keeps}")
    message = f"muster's planner fails over this gang ({in_words(fault.error)}), so it is not planned until it changes{keeps}"
    return Wait(gang, Reason.UNPLANNABLE, message)


def _reduced(queues: Mapping[str, Queue], aside: Iterable[Gang]) -> Mapping[str, Queue]:
    """The queues with what is left of their quotas."""
    left = dict(queues)
    for gang in aside:
        queue = left.get(gang.queue)
        if queue is not None and queue.quota is not None and gang.held:
            left[gang.queue] = replace(queue, quota=max(0, queue.quota - gang.held))
    return left


def _hardware(node: Node) -> object:
    """What of a node the planner looks at for a gang that may go anywhere."""
    return (node.machine, node.model, node.healthy, node.free, node.leaving, node.nic_gbps, node.parts)


def _fixed(node: Node) -> object:
    """What of a node does not change by what runs there."""
    labels = tuple(sorted(node.labels.items()))
    return (node.machine, node.model, node.healthy, node.allocatable, node.nic_gbps, node.rack, node.block, labels, node.taints)
