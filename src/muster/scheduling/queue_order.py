"""The order of waiting gangs, one over all queues: higher priority first, then first arrival, then name.

The local priority moves no other namespace's gangs: of equal priority, the gangs of a namespace have the positions that they
would have without it, and fill these by local priority. It counts over the queues of a namespace, as it does in preemption: a
victim that went before the gang which took its place would take it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from muster.scheduling.gang import Gang


def in_order(gangs: Iterable[Gang]) -> list[Gang]:
    """Return the gangs in queue order."""
    by_arrival = sorted(gangs, key=attrgetter("arrived", "name"))
    by_arrival.sort(key=attrgetter("priority"), reverse=True)
    return by_local_priority(by_arrival, highest_first=True)


def by_local_priority(gangs: list[Gang], *, highest_first: bool) -> list[Gang]:
    """Return the gangs with each namespace's positions, at each priority, filled by local priority; equals as they were."""
    if not any(map(attrgetter("local_priority"), gangs)):
        return gangs
    positions: dict[tuple[int, str], list[int]] = {}
    for position, gang in enumerate(gangs):
        positions.setdefault((gang.priority, gang.namespace), []).append(position)
    ordered = list(gangs)
    for own in positions.values():
        filling = sorted((gangs[position] for position in own), key=attrgetter("local_priority"), reverse=highest_first)
        for position, gang in zip(own, filling, strict=True):
            ordered[position] = gang
    return ordered
