"""Elastic shares: gangs that can run with more or fewer workers share GPUs by how much they make of them.

What n GPUs are worth to a gang is its weight times its speed-up (`speed_up`). GPUs are given out from nothing at every event
and every slice: again and again to the step with the most worth for each GPU, which may skip sizes that gain little. Pollux
(OSDI'21) and Optimus (EuroSys'18) share by marginal gain too, by a search and by what each gang has still to do. Here:

- A gang counts less the more GPU-seconds it had: its weight is the square root of what least attained service promises, so one
  that had a hundred times as much becomes small and still runs. What gangs that ended ran tells nothing better here: how long a
  gang takes depends on the GPUs that it got, and a promise that jumps with each end has everybody restart.
- A change has to pay for its restart within a few slices, so a gang keeps its size unless another is clearly better.
- Sizes are parts of one node, or whole nodes, so that gangs over several nodes do not meet on them.

Elastic gangs meet rigid ones in the ranking of the policy: there each claims the fewest workers that it can run with, like a
rigid gang of that size, and what it has beyond is anybody's. So nobody waits for GPUs that an elastic gang could do without,
be it rigid or elastic itself. What then nobody claims is shared out here, to higher priorities first, within the quotas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import groupby
from math import sqrt
from operator import attrgetter
from typing import NamedTuple

from muster.scheduling.admission.queueing import Quotas
from muster.scheduling.elastic.speed_up import curve, rate
from muster.scheduling.gang import Gang, Placement
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find, renumbered, shrunk
from muster.scheduling.policies.gandiva.migration import COST_SECONDS
from muster.scheduling.session import Session
from muster.scheduling.speed.occupancy import gpus_by_node
from muster.scheduling.topology.node import Level

HORIZON = 180.0
"""Seconds, three slices, within which a change has to make up for its restart; after them the shares may be others again."""
MUCH = 3600.0
"""GPU-seconds that show in a weight: of gangs that had less than an hour, all count about alike."""
LATER = 0.95
"""What a gang counts beside the one that came before it: of gangs alike one is served first and ends, instead of both late."""


class Size(NamedTuple):
    """A number of workers that a gang may have, the GPUs of all its tasks then, and what these are worth."""

    gpus: int
    workers: int
    worth: float


def is_elastic(gang: Gang) -> bool:
    """Say whether the policy may choose the gang's size."""
    return gang.asked is not None and gang.sharing.slices


def sharing(session: Session) -> dict[str, Gang]:
    """The elastic gangs that run or wait, by name; those about which the pass decided already stay as they are."""
    decided = {decision.gang.name for decision in session.decisions}
    elastic = [gang for gang in session.gangs.values() if is_elastic(gang) and gang.name not in decided]
    return {gang.name: gang for gang in sorted(elastic, key=attrgetter("name")) if _may_change(session, gang)}


def _may_change(session: Session, gang: Gang) -> bool:
    asks = gang.resize or gang.leave is not None
    return not gang.placement or (gang.running and not asks and not session.is_packed(gang))


def least(gang: Gang, now: float) -> Gang:
    """The gang as if it asked for the fewest workers that it can run with, and had no more; it ran as long as it did."""
    tasks = shrunk(gang.tasks, _fewest(gang))
    smallest = replace(gang, tasks=tasks, asked=None, fewest=None)
    smallest = replace(smallest, attained=gang.ran(now) * max(smallest.gpus, 1))
    placement = renumbered(place for place in gang.placement if place.task in tasks)
    return replace(smallest, since=now, placement=placement) if placement else smallest


def _fewest(gang: Gang) -> int:
    return min(size for size in (gang.fewest, gang.asked, len(gang.tasks)) if size is not None)


def divide(
    session: Session, at_least: Mapping[str, Placement], rigid: Mapping[str, Placement], quotas: Quotas
) -> dict[str, Placement]:
    """Return where each elastic gang goes, in the size that is its share of what those that are `rigid` leave.

    `at_least` has a place there for the fewest workers of each; `quotas` count these. Only what changes is placed anew.
    """
    gangs = {name: session.gangs[name] for name in at_least}
    capacity = session.capacity.copy() if gangs else session.capacity
    for gang in gangs.values():
        capacity.give_back(gang.placement)
    for placement in rigid.values() if gangs else ():
        capacity.take(placement)
    node_gpus = max((node.healthy.bit_count() for node in session.nodes.values()), default=1)
    by_turn = sorted(gangs.values(), key=lambda gang: (gang.arrived, gang.name))
    sizes = {gang.name: _sizes(session, gang, LATER**number, node_gpus) for number, gang in enumerate(by_turn)}
    given: dict[str, Size] = {}
    left = capacity.total - sum(options[0].gpus for options in sizes.values())
    for _, equals in groupby(sorted(by_turn, key=lambda gang: (-gang.priority, gang.name)), key=lambda gang: gang.priority):
        given |= give({gang.name: sizes[gang.name] for gang in equals}, gangs, left, quotas)
        left = capacity.total - sum(given.get(name, options[0]).gpus for name, options in sizes.items())
    return _places(gangs, given, {}, capacity.copy()) or _places(gangs, given, at_least, capacity) or {}


# What GPUs are worth


def _sizes(session: Session, gang: Gang, precedence: float, node_gpus: int) -> list[Size]:
    """The sizes that the gang may have, the fewest workers first."""
    profile = session.rates.profile(gang)
    rates = curve(profile, node_gpus)
    weight = precedence / sqrt(1 + gang.attained_at(session.now) / MUCH) / rate(rates, 1)
    cost = COST_SECONDS if profile.migrate_seconds is None else profile.migrate_seconds
    changed = max(0.0, 1 - cost / HORIZON) if gang.placement else 1.0
    fewest, held = _fewest(gang), gang.held
    workers = sorted((task.index, task.gpus) for task in gang.tasks if task.role == "worker")
    gpus = gang.gpus - sum(each for index, each in workers if index < (gang.asked or 0))
    found: dict[int, Size] = {}
    for number, (_, each) in enumerate(workers, start=1):
        gpus += each
        if number == fewest or (number > fewest and (gpus <= node_gpus or gpus % node_gpus == 0 or gpus == held)):
            found.setdefault(gpus, Size(gpus, number, weight * rate(rates, gpus) * (1.0 if gpus == held else changed)))
    return list(found.values())


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


def _places(
    gangs: Mapping[str, Gang], given: Mapping[str, Size], kept: Mapping[str, Placement], capacity: FreeCapacity
) -> dict[str, Placement] | None:
    """A place for everybody, who stays first, then the largest; None where somebody has none, not even `kept`."""
    for placement in kept.values():
        capacity.take(placement)
    found: dict[str, Placement] = {}
    changed = {name: given[name].gpus != gangs[name].held for name in given}
    for name in sorted(given, key=lambda name: (changed[name], -given[name].gpus, name)):
        gang, size = gangs[name], given[name]
        capacity.give_back(kept.get(name, ()))
        stays = not changed[name] and _is_free(capacity, gang.placement)
        placement = gang.placement if stays else _find(gang, size.workers, capacity) or kept.get(name, ())
        if not placement:
            return None
        capacity.take(placement)
        found[name] = placement
    return found


def _is_free(capacity: FreeCapacity, placement: Placement) -> bool:
    return all(not gpus & ~capacity.free[node] for node, gpus in gpus_by_node(placement).items())


def _find(gang: Gang, workers: int, capacity: FreeCapacity) -> Placement | None:
    """A place for so many workers, or the most that fit: on one of its own nodes where that holds them all."""
    own = capacity.only({node: capacity.free[node] for node in gpus_by_node(gang.placement)}) if gang.placement else None
    for count in range(workers, _fewest(gang) - 1, -1):
        version = replace(gang, tasks=shrunk(gang.tasks, count), asked=None, fewest=None, placement=())
        at_home = find(replace(version, required=Level.NODE), own) if own and not gang.spread else None
        if placement := at_home or find(version, capacity):
            return placement
    return None
