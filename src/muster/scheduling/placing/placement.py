"""Where a gang goes: a node and GPUs for each of its tasks, or a sentence about what is missing.

The search goes from near to far: all tasks on one node, in one rack, in one block, anywhere; the gang's `preferred` level
says where it starts and `required` where it ends. Of the domains of a level, packing takes the fullest that holds the whole
gang (so that large holes stay large), spreading the emptiest. Inside a domain, packing uses as few nodes as it can. Ranks
then follow the topology: block, rack, node, GPU.

A gang that is sensitive to its links goes where it trains fastest: on the fewest nodes with the fastest rings, or where a
`rate` expects most. Among equals, and for other gangs, that node is taken whose free GPUs stay most useful to the tasks to come
(`fragmentation`); where nothing is known of these, the tightest fit.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass

from muster.scheduling.gang import Gang, Placement, Task, shrunk
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.merits import Rate
from muster.scheduling.placing.search import Search
from muster.scheduling.placing.shortage import shortage

NO_NODES: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a gang has no placement: what it needs and what is free."""

    message: str


def place(
    gang: Gang,
    capacity: FreeCapacity,
    *,
    closed: Collection[str] = NO_NODES,
    fragmentation: Fragmentation | None = None,
    rate: Rate | None = None,
) -> Placement | Shortage:
    """Return a placement of the whole gang on free capacity, with ranks, or what it lacks; nothing goes onto `closed` nodes.

    An elastic gang that does not fit whole gets as many workers as fit, not fewer than `gang.fewest`.
    """
    placement = find(gang, capacity, closed=closed, fragmentation=fragmentation, rate=rate)
    return placement or Shortage(shortage(gang, capacity, closed))


def find(
    gang: Gang,
    capacity: FreeCapacity,
    *,
    closed: Collection[str] = NO_NODES,
    fragmentation: Fragmentation | None = None,
    rate: Rate | None = None,
) -> Placement | None:
    """Return what `place` does, without a sentence where the gang does not fit."""
    closed = {*closed, *gang.refused} if gang.refused else closed
    for tasks in _versions(gang):
        for avoid in ({*gang.avoid, *closed}, closed) if gang.avoid else (closed,):
            placement = Search(gang, tasks, capacity, avoid=avoid, fragmentation=fragmentation, rate=rate).run()
            if placement:
                return placement
    return None


def _versions(gang: Gang) -> Iterable[Sequence[Task]]:
    """The tasks of the gang in each size with which it may start, largest first."""
    if gang.asked is None and gang.fewest is None:
        return (gang.tasks,)
    return (shrunk(gang.tasks, size) for size in gang.sizes())


def fit_key(gang: Gang) -> Hashable:
    """Return what decides whether a gang fits: of gangs with the same key all fit on an empty cluster, or none does."""
    tasks = tuple([(task.role, task.index, task.gpus, task.share, task.resources, task.where) for task in gang.tasks])
    ruled = [task.relations for task in gang.tasks if task.relations.rules]
    relations = tuple([task.relations for task in gang.tasks]) if ruled else ()
    return (gang.spread, gang.required, gang.fewest, gang.asked, tasks, frozenset(gang.refused), relations)
