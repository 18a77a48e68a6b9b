"""Where a gang goes: a node and GPUs for each of its tasks, or a sentence about what is missing.

The search goes from near to far: all tasks on one node, in one rack, in one block, anywhere; the gang's `preferred` level
says where it starts and `required` where it ends. Of the domains of a level, packing takes the fullest that holds the whole
gang (so that large holes stay large), spreading the emptiest. Inside a domain, packing uses as few nodes as it can. Ranks
then follow the topology: block, rack, node, GPU.

A gang that is sensitive to its links goes where it trains fastest: on the fewest nodes with the fastest rings, or where a
`rate` expects most. Among equals, and for other gangs, that node is taken whose free GPUs stay most useful to the tasks that
come (`fragmentation`); where nobody says what comes, the tightest fit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from operator import attrgetter

from muster.scheduling.gang import Assigned, Gang, Placement, Task
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.search import Rate, Search
from muster.scheduling.placing.shortage import Shortage, shortage
from muster.scheduling.speed.occupancy import gpus_of

NOWHERE: frozenset[str] = frozenset()


def place(
    gang: Gang, capacity: FreeCapacity, *, fragmentation: Fragmentation | None = None, rate: Rate | None = None
) -> Placement | Shortage:
    """Return a placement of the whole gang in `room`, with ranks, or what it lacks.

    An elastic gang that does not fit whole gets as many workers as fit, not fewer than `gang.fewest`.
    """
    return find(gang, capacity, fragmentation=fragmentation, rate=rate) or shortage(
        gang, capacity, capacity.eligible(gang.tasks)
    )


def find(
    gang: Gang, capacity: FreeCapacity, *, fragmentation: Fragmentation | None = None, rate: Rate | None = None
) -> Placement | None:
    """Return what `place` does, without a word where there is no room."""
    for tasks in _versions(gang):
        for avoid in (gang.avoid, NOWHERE) if gang.avoid else (NOWHERE,):
            found = Search(gang, tasks, capacity, avoid=avoid, fragmentation=fragmentation, rate=rate).run()
            if found:
                return found
    return None


def _versions(gang: Gang) -> Iterable[Sequence[Task]]:
    """The tasks of the gang in each size with which it may start, largest first."""
    if gang.asked is None and gang.fewest is None:
        return (gang.tasks,)
    return (shrunk(gang.tasks, size) for size in sizes(gang))


def sizes(gang: Gang) -> Iterable[int]:
    """The numbers of workers with which the gang may start, largest first."""
    workers = gang.asked if gang.asked is not None else sum(task.role == "worker" for task in gang.tasks)
    return range(workers, min(gang.fewest if gang.fewest is not None else workers, workers) - 1, -1)


def renumbered(placement: Iterable[Assigned]) -> Placement:
    """The placement with ranks from 0 on, in the order that they had."""
    return tuple(one._replace(rank=rank) for rank, one in enumerate(sorted(placement, key=attrgetter("rank"))))


def fit_key(gang: Gang) -> Hashable:
    """What decides whether a gang fits: those of one form all fit in a room, or none does."""
    tasks = tuple([(task.role, task.index, task.gpus, task.share, task.resources, task.where) for task in gang.tasks])
    return (gang.spread, gang.required, gang.fewest, gang.asked, tasks)


def fewest_gpus(gang: Gang) -> int:
    """The GPUs of the smallest size in which the gang can start."""
    if gang.fewest is None:
        return gang.gpus
    return sum(task.gpus for task in gang.tasks if task.role != "worker" or task.index < gang.fewest)


def shrunk(tasks: tuple[Task, ...], workers: int) -> tuple[Task, ...]:
    """The tasks of an elastic gang with that many workers."""
    return tuple(task for task in tasks if task.role != "worker" or task.index < workers)


def describe(placement: Placement) -> str:
    """ "8 GPUs on 2 nodes (n1, n2)"."""
    nodes = sorted({a.node for a in placement})
    gpus = gpus_of(placement)
    names = ", ".join(nodes[:4]) + (", ..." if len(nodes) > 4 else "")
    return f"{gpus} GPU{'s' if gpus != 1 else ''} on {len(nodes)} node{'s' if len(nodes) != 1 else ''} ({names})"
