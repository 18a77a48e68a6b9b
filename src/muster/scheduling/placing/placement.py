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

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from muster.scheduling.gang import Gang, Placement, Task, shrunk
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.search import Rate, Search
from muster.scheduling.resources import WHOLE
from muster.scheduling.topology.fleet import Fleet
from muster.scheduling.topology.node import Level

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
    return placement or _shortage(gang, capacity, closed)


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
    rules = any(task.relations.rules for task in gang.tasks)
    relations = tuple([task.relations for task in gang.tasks]) if rules else ()
    return (gang.spread, gang.required, gang.fewest, gang.asked, tasks, frozenset(gang.refused), relations)


# What a gang lacks


def _shortage(gang: Gang, capacity: FreeCapacity, closed: Collection[str]) -> Shortage:
    """Return the shortage of the gang on the nodes that are not closed."""
    names = [name for name in capacity.fleet.eligible[Fleet.demands(gang.tasks)] if name not in gang.refused]
    usable = frozenset(names).difference(closed)
    free = {
        name: state.free.bit_count() * WHOLE + sum(part for _, part in state.parts)
        for state, alike in capacity.states.items()
        if state.free or state.parts
        for name in usable.intersection(alike)
    }
    needed = gang.gpus * WHOLE - sum(WHOLE - task.share for task in gang.tasks)
    largest = max((task.gpus for task in gang.tasks), default=0)
    needs = f"needs {_gpus(needed)} GPU{'' if needed == WHOLE else 's'}"
    if len(gang.tasks) > 1:
        needs += f" ({len(gang.tasks)} pods of up to {largest})" if largest else f" ({len(gang.tasks)} pods)"
    if gang.required is not Level.CLUSTER:
        freest = _freest_domain(gang.required, free, capacity)
        has = f"at most {_gpus(freest[1])} are free in one ({freest[0]})" if freest else "none are free"
        return Shortage(f"{needs} in one {gang.required.name.lower()}; {has}")
    total = sum(free.values())
    obstacle = ""
    if free and total >= needed:
        obstacle = _rules(gang, capacity, closed, tuple(free)) or _obstacle(gang, largest, capacity, free)
    return Shortage(f"{needs}; {_gpus(total)} free on {len(free)} of {len(names)} nodes that it may use{obstacle}")


def _gpus(thousandths: int) -> str:
    return f"{thousandths / WHOLE:g}"


def _rules(gang: Gang, capacity: FreeCapacity, closed: Collection[str], names: Sequence[str]) -> str:
    """The rules between pods, where the gang would fit but for them."""
    tasks = gang.at_fewest().tasks
    bounds = Search(gang, tasks, capacity).bounds
    if bounds is None or not Search(gang, tasks, capacity, avoid={*closed, *gang.refused}, ruled=False).run():
        return ""
    return f", but not as rules between pods ask: {bounds.describe(names)}"


def _obstacle(gang: Gang, largest: int, capacity: FreeCapacity, free: Mapping[str, int]) -> str:
    """Why a gang does not fit although enough GPUs are free."""
    share = max((task.share for task in gang.tasks if task.gpus == largest), default=WHOLE)
    if share < WHOLE:
        most = max(WHOLE if capacity.free[name] else max(part for _, part in capacity.parts[name]) for name in free)
        if most < share:
            return f", at most {_gpus(most)} of one GPU"
    else:
        counts = [capacity.free[name].bit_count() for name in free]
        if max(counts) < largest:
            return f", at most {max(counts)} on one node"
        pods = sum(task.gpus == largest for task in gang.tasks)
        fitting = sum(count // largest for count in counts) if largest else pods
        if fitting < pods:
            return f", in pieces that hold {fitting} of its {pods} pods of {largest}"
    return ", but not together with its CPU and memory"


def _freest_domain(level: Level, free: Mapping[str, int], capacity: FreeCapacity) -> tuple[str, int] | None:
    sums: dict[str, int] = {}
    for name, count in free.items():
        domain = capacity.nodes[name].domain(level)
        sums[domain] = sums.get(domain, 0) + count
    return max(sums.items(), key=lambda item: (item[1], item[0])) if sums else None
