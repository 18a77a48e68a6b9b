"""Elastic shares: gangs that can run with more or fewer workers share GPUs by how much they make of them.

What n GPUs are worth to a gang is its weight times its speed-up (`speed_up`). GPUs are given out anew at every event and every
slice: again and again to the step with the most worth for each GPU, which may skip sizes that gain little. Pollux (OSDI'21) and
Optimus (EuroSys'18) share by marginal gain too, by a search and by what each gang has still to do. Here:

- A gang weighs less the more GPU-seconds it had: the weight is the square root of what least attained service gives, so a gang
  that had a hundred times as much becomes small and still runs. The Gittins index tells nothing better here: how long a gang
  takes depends on the GPUs that it got, and an index that jumps with each end has every gang restart.
- A change has to pay for its restart within a few slices, so a gang keeps its size unless another is clearly better.
- Sizes are parts of one node, or whole nodes, so that gangs over several nodes do not meet on them.

Elastic gangs meet rigid ones in the ranking (`time_sharing`): there each claims the fewest workers that it can run with, like a
rigid gang of that size, and what it has beyond may be claimed by any gang. So no gang, rigid or elastic, waits for GPUs that an
elastic gang could do without. What no gang claims is shared out here, to higher priorities first, within the quotas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import groupby
from math import sqrt
from operator import attrgetter
from typing import NamedTuple

from muster.scheduling.decisions import Grow, Place, Requeue, Shrink
from muster.scheduling.elastic.speed_up import curve, rate
from muster.scheduling.gang import Gang, Placement, gpus_by_node, renumbered, shrunk
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster.scheduling.quotas import Quotas
from muster.scheduling.rebalancing.cost import move_seconds
from muster.scheduling.session import Session
from muster.scheduling.topology.node import Level

HORIZON = 180.0
"""Seconds, three slices, within which a change has to make up for its restart; after them the shares may be others again."""
MUCH = 3600.0
"""GPU-seconds that show in a weight: of gangs that had less than an hour, all count about alike."""
LATER = 0.95
"""The weight of a gang relative to the one before it: of like gangs one is served first and ends, instead of both late."""


class Size(NamedTuple):
    """A number of workers that a gang may have, the GPUs of all its tasks then, and what these are worth."""

    gpus: int
    workers: int
    worth: float


def elastic_gangs(session: Session) -> dict[str, Gang]:
    """Return the elastic gangs that run or wait, by name; those about which the pass decided already stay as they are.

    Where the caller cannot resize gangs, there are none: each then counts as rigid.
    """
    if not session.index.elastic or not session.can(Place, Grow, Shrink, Requeue):
        return {}
    decided = {decision.gang.name for decision in session.decisions}
    elastic = [gang for gang in session.gangs.values() if gang.elastic and gang.name not in decided]
    return {gang.name: gang for gang in sorted(elastic, key=attrgetter("name")) if _may_change(session, gang)}


def _may_change(session: Session, gang: Gang) -> bool:
    asks = gang.resize or gang.leave is not None
    return not gang.placement or (gang.running and not asks and not session.is_packed(gang))


def at_fewest(gang: Gang, now: float) -> Gang:
    """Return the gang as if it asked for the fewest workers that it can run with, and had no more; it ran as long as it did."""
    tasks = shrunk(gang.tasks, _fewest(gang))
    smallest = replace(gang, tasks=tasks, asked=None, fewest=None)
    smallest = replace(smallest, attained=gang.ran(now) * max(smallest.gpus, 1))
    placement = renumbered(assigned for assigned in gang.placement if assigned.task in tasks)
    return replace(smallest, since=now, placement=placement) if placement else smallest


def _fewest(gang: Gang) -> int:
    return min(size for size in (gang.fewest, gang.asked, len(gang.tasks)) if size is not None)


def divide(
    session: Session, at_least: Mapping[str, Placement], rigid: Mapping[str, Placement], quotas: Quotas
) -> dict[str, Placement]:
    """Return where each elastic gang goes, in the size that is its share of what the `rigid` placements leave.

    `at_least` has a placement there for the fewest workers of each; `quotas` count these. Only what changes is placed anew.
    """
    if not at_least:
        return {}
    capacity, gangs = session.capacity, {name: session.gangs[name] for name in at_least}
    with capacity.trial():
        for gang in gangs.values():
            capacity.give_back(gang.placement)
        for placement in rigid.values():
            capacity.take(placement)
        sizes = _sizes_of(session, gangs.values())
        given: dict[str, Size] = {}
        left = capacity.total - sum(options[0].gpus for options in sizes.values())
        by_priority = sorted(gangs.values(), key=lambda gang: (-gang.priority, gang.name))
        for _, equals in groupby(by_priority, key=lambda gang: gang.priority):
            given |= give({gang.name: sizes[gang.name] for gang in equals}, gangs, left, quotas)
            left = capacity.total - sum(given.get(name, options[0]).gpus for name, options in sizes.items())
        return _placements(gangs, given, {}, capacity) or _placements(gangs, given, at_least, capacity) or {}


# What GPUs are worth


def _sizes_of(session: Session, gangs: Iterable[Gang]) -> dict[str, list[Size]]:
    """The sizes that each gang may have, by name; an earlier gang weighs more than a later one."""
    node_gpus = session.largest or 1
    by_arrival = sorted(gangs, key=lambda gang: (gang.arrived, gang.name))
    return {gang.name: _sizes(session, gang, LATER**number, node_gpus) for number, gang in enumerate(by_arrival)}


def _sizes(session: Session, gang: Gang, precedence: float, node_gpus: int) -> list[Size]:
    """The sizes that the gang may have, the fewest workers first."""
    rates = curve(session.rates.profile(gang), node_gpus)
    weight = precedence / sqrt(1 + gang.attained_at(session.now) / MUCH) / rate(rates, 1)
    changed = max(0.0, 1 - move_seconds(session.rates, gang) / HORIZON) if gang.placement else 1.0
    fewest, held = _fewest(gang), gang.held
    workers = sorted((task.index, task.gpus) for task in gang.tasks if task.role == "worker")
    gpus = gang.gpus - sum(each for index, each in workers if index < (gang.asked or 0))
    sizes: dict[int, Size] = {}
    for number, (_, each) in enumerate(workers, start=1):
        gpus += each
        if number == fewest or (number > fewest and (gpus <= node_gpus or gpus % node_gpus == 0 or gpus == held)):
            sizes.setdefault(gpus, Size(gpus, number, weight * rate(rates, gpus) * (1.0 if gpus == held else changed)))
    return list(sizes.values())


def give(sizes: Mapping[str, Sequence[Size]], gangs: Mapping[str, Gang], left: int, quotas: Quotas) -> dict[str, Size]:
    """Return the size of each gang: from the first on, again and again the step with the most worth for each GPU."""
    has = {name: options[0] for name, options in sizes.items()}

    def steps(name: str) -> Iterator[tuple[float, str, Size]]:
        for size in sizes[name]:
            more = size.gpus - has[name].gpus
            gain = size.worth - has[name].worth
            if 0 < more <= left and gain > 0 and quotas.allows(gangs[name], more):
                yield (-gain / more, name, size)

    heap = [step for name in sizes if (step := min(steps(name), default=None))]
    heapify(heap)
    while heap:
        _, name, size = heappop(heap)
        more = size.gpus - has[name].gpus
        if more <= left and quotas.allows(gangs[name], more):
            quotas.add(gangs[name].queue, more)
            has[name], left = size, left - more
        if step := min(steps(name), default=None):
            heappush(heap, step)
    return has


# Where they go


def _placements(
    gangs: Mapping[str, Gang], given: Mapping[str, Size], kept: Mapping[str, Placement], capacity: FreeCapacity
) -> dict[str, Placement] | None:
    """A placement for every gang, those that stay first, then the largest; None where one has none, not even `kept`."""
    changed = {name: given[name].gpus != gangs[name].held for name in given}
    placements: dict[str, Placement] = {}
    with capacity.trial():
        for placement in kept.values():
            capacity.take(placement)
        for name in sorted(given, key=lambda name: (changed[name], -given[name].gpus, name)):
            gang = gangs[name]
            capacity.give_back(kept.get(name, ()))
            stays = not changed[name] and _is_free(capacity, gang.placement)
            placement = gang.placement if stays else _find(gang, given[name].workers, capacity) or kept.get(name, ())
            if not placement:
                return None
            capacity.take(placement)
            placements[name] = placement
    return placements


def _is_free(capacity: FreeCapacity, placement: Placement) -> bool:
    return all(not gpus & ~capacity.free[node] for node, gpus in gpus_by_node(placement).items())


def _find(gang: Gang, workers: int, capacity: FreeCapacity) -> Placement | None:
    """A placement for so many workers, or the most that fit: on one of its own nodes where that holds them all."""
    own = capacity.only({node: capacity.free[node] for node in gpus_by_node(gang.placement)}) if gang.placement else None
    for count in range(workers, _fewest(gang) - 1, -1):
        version = replace(gang.at_size(count), asked=None, fewest=None, placement=())
        at_home = find(replace(version, required=Level.NODE), own) if own and not gang.spread else None
        if placement := at_home or find(version, capacity):
            return placement
    return None
