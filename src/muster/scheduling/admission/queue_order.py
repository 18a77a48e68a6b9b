"""The order of waiting gangs: higher priority first, then first arrival, then name; one order over all queues."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from muster.scheduling.gang import Gang


def in_order(gangs: Iterable[Gang]) -> list[Gang]:
    """Return the gangs in queue order."""
    by_arrival = sorted(gangs, key=attrgetter("arrived", "name"))
    return sorted(by_arrival, key=attrgetter("priority"), reverse=True)
