"""Reclaim: what elastic gangs have beyond what they asked for goes to gangs that wait, in the pass in which they need it.

Gangs claim GPUs from where the elastic ones have their fewest workers (`time_sharing.claims`), and these are given their
shares elsewhere afterwards (`shares`). A gang without a placement may find one then: on GPUs that no gang has in the end, or
on those of elastic gangs, which go back to what they asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from muster.scheduling.gang import Gang, Placement, gpus_by_node, gpus_of, renumbered
from muster.scheduling.placing.placement import fit_key
from muster.scheduling.quotas import Quotas
from muster.scheduling.session import Session


def reclaim(
    session: Session, targets: Mapping[str, Placement], waiting: Iterable[tuple[str, int]], quotas: Quotas
) -> dict[str, Placement]:
    """Return the targets with those of waiting gangs that can start as well.

    `waiting` has, in the order of rank, gangs without a placement, each with the GPUs with which it can start. A gang that
    finds none here either reserves what it needs of its queue's quota.
    """
    targets = dict(targets)
    surplus = {name: extra for name, target in targets.items() if (extra := _surplus(session.gangs[name], target))}
    quotas.drop_reservations()
    too_large: set[object] = set()
    with _at(session, targets):
        most = session.capacity.total + sum(map(gpus_of, surplus.values()))
        for name, fewest in waiting:
            gang = quotas.within(session.gangs[name]) if fewest <= most else None
            placement = None
            if gang and fit_key(gang) not in too_large:
                placement = session.find(gang) or _over(session, gang, surplus.values())
                if not placement:
                    too_large.add(fit_key(gang))
            if not placement:
                quotas.reserve(session.gangs[name].queue, fewest)
                continue
            for other in [other for other, extra in surplus.items() if _overlap(placement, extra)]:
                extra = surplus.pop(other)
                targets[other] = renumbered(assigned for assigned in targets[other] if assigned not in extra)
                session.capacity.give_back(extra)
                quotas.add(session.gangs[other].queue, -gpus_of(extra))
            session.capacity.take(placement)
            quotas.add(session.gangs[name].queue, gpus_of(placement))
            targets[name] = placement
    return targets


def _surplus(gang: Gang, target: Placement) -> Placement:
    """The part of a target with workers beyond those that the gang asked for."""
    asked = gang.asked
    return tuple(one for one in target if asked is not None and one.task.role == "worker" and one.task.index >= asked)


@contextmanager
def _at(session: Session, targets: Mapping[str, Placement]) -> Iterator[None]:
    """Try what is free once every gang is at its target."""
    with session.capacity.trial():
        for name in targets:
            session.capacity.give_back(session.gangs[name].placement)
        for target in targets.values():
            session.capacity.take(target)
        yield


def _over(session: Session, gang: Gang, surplus: Iterable[Placement]) -> Placement | None:
    """A placement that may take from elastic gangs what they have beyond what they asked for."""
    with session.capacity.trial():
        for extra in surplus:
            session.capacity.give_back(extra)
        return session.find(gang)


def _overlap(one: Placement, other: Placement) -> bool:
    theirs = gpus_by_node(other)
    return any(gpus & theirs.get(node, 0) for node, gpus in gpus_by_node(one).items())
