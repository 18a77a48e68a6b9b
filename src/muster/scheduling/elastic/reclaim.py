"""What elastic gangs have beyond what they asked for goes to those that wait, in the pass in which they need it.

Gangs claim GPUs from where the elastic ones have their fewest workers (`policies.muster`), and these are given their shares
elsewhere afterwards (`shares`). A gang that found no place then may find one now: on GPUs that nobody has in the end, or on
those of elastic gangs, which go back to what they asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muster.scheduling.admission.queueing import Quotas
from muster.scheduling.gang import Gang, Placement
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import fit_key, renumbered
from muster.scheduling.session import Session
from muster.scheduling.speed.occupancy import gpus_by_node, gpus_of


def reclaim(
    session: Session, targets: Mapping[str, Placement], waiting: Iterable[tuple[str, int]], quotas: Quotas
) -> dict[str, Placement]:
    """Return the targets with those of gangs that start beside them.

    `waiting` has by turn those that found no place, each with the GPUs with which it can start. Who finds none here either
    keeps what it needs of its queue's quota from those after it.
    """
    targets = dict(targets)
    surplus = {name: more for name, target in targets.items() if (more := _surplus(session.gangs[name], target))}
    capacity = _left(session, targets)
    most = capacity.total + sum(map(gpus_of, surplus.values()))
    quotas.kept.clear()
    too_large: set[object] = set()
    for name, fewest in waiting:
        gang = quotas.within(session.gangs[name]) if fewest <= most else None
        found = None
        if gang and fit_key(gang) not in too_large:
            found = session.find(gang, capacity) or (session.find(gang, _with(capacity, surplus.values())) if surplus else None)
            if not found:
                too_large.add(fit_key(gang))
        if not found:
            quotas.keep(session.gangs[name].queue, fewest)
            continue
        for other in [other for other, more in surplus.items() if _meet(found, more)]:
            more = surplus.pop(other)
            targets[other] = renumbered(one for one in targets[other] if one not in more)
            capacity.give_back(more)
            quotas.add(session.gangs[other].queue, -gpus_of(more))
        capacity.take(found)
        quotas.add(session.gangs[name].queue, gpus_of(found))
        targets[name] = found
    return targets


def _surplus(gang: Gang, target: Placement) -> Placement:
    """The places of workers beyond those that the gang asked for."""
    asked = gang.asked
    return tuple(one for one in target if asked is not None and one.task.role == "worker" and one.task.index >= asked)


def _left(session: Session, targets: Mapping[str, Placement]) -> FreeCapacity:
    """The room once everybody is at its target."""
    capacity = session.capacity.copy()
    for name in targets:
        capacity.give_back(session.gangs[name].placement)
    for target in targets.values():
        capacity.take(target)
    return capacity


def _with(capacity: FreeCapacity, placements: Iterable[Placement]) -> FreeCapacity:
    more = capacity.copy()
    for placement in placements:
        more.give_back(placement)
    return more


def _meet(one: Placement, other: Placement) -> bool:
    theirs = gpus_by_node(other)
    return any(gpus & theirs.get(node, 0) for node, gpus in gpus_by_node(one).items())
