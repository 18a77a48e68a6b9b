"""A new size where the gang is: what a resize need not move stays on its node and GPUs, with its rank.

A smaller gang gives up its last tasks. A larger one puts the additional tasks near to those it has: on their nodes, in their
rack, in their block, anywhere, as far as the gang allows; the caller compares that with a new placement of the whole gang.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from muster.scheduling.gang import Assigned, Gang, Placement, Task, renumbered
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster.scheduling.topology.node import Level


def in_place(gang: Gang, capacity: FreeCapacity, closed: Collection[str]) -> Placement | None:
    """Return a placement of the gang's new size that moves none of its tasks; None if there is none."""
    wanted = {task.name: task for task in gang.tasks}
    remaining = [assigned for assigned in gang.placement if assigned.task.name in wanted]
    if not remaining or not all(
        assigned.task == wanted[assigned.task.name] and _works(assigned, capacity) for assigned in remaining
    ):
        return None
    added = [task for name, task in wanted.items() if name not in {assigned.task.name for assigned in remaining}]
    if not added:
        return renumbered(remaining)
    further = _near(replace(gang, tasks=tuple(added), fewest=None, asked=None), remaining, capacity, closed)
    first = len(gang.placement)
    return renumbered([*remaining, *(each._replace(rank=first + each.rank) for each in further)]) if further else None


def span(placement: Placement, capacity: FreeCapacity) -> Level:
    """Return the narrowest level of the network that contains a placement."""
    nodes = [capacity.nodes[assigned.node] for assigned in placement]
    return next(level for level in Level if len({node.domain(level) for node in nodes}) == 1)


def _near(added: Gang, present: Iterable[Assigned], capacity: FreeCapacity, closed: Collection[str]) -> Placement | None:
    """Where the additional tasks go: as near to the present ones as there is room."""
    for level in Level:
        if level > added.required:
            return None
        domain_of = capacity.fleet.domains[level]
        domains = {domain_of[assigned.node] for assigned in present}
        if level is added.required and len(domains) > 1:
            return None
        far = {name for name, domain in domain_of.items() if domain not in domains}
        if placement := find(added, capacity, closed=far.union(closed)):
            return placement
    return None


def _works(assigned: Assigned, capacity: FreeCapacity) -> bool:
    """Whether a task can stay where it is: it has its GPUs, and they are there."""
    node = capacity.nodes.get(assigned.node)
    task: Task = assigned.task
    return node is not None and not assigned.gpus & ~node.healthy and assigned.gpus.bit_count() == task.gpus
