"""Whose turn it is: the order of the waiting gangs, the quotas of the queues, and what may overtake.

Order: higher priority first, then first arrival, then name; one order over all queues, since they share the GPUs.

Overtaking (backfill) without knowing how long a job runs: a gang that waits must not start later because another, behind it,
went first. Any GPU that the waiting gang could use may be the last one that it needs, so a later gang may only have what the
waiting one could not use anyway:
- a gang that waits for GPUs keeps every node that it may use (`Claims.nodes`), and what it needs of its queue's quota
  (`Quotas.kept`);
- a gang that waits for its quota keeps the GPUs on which it would start now (they are taken from the room), and its queue's
  quota;
- a gang that cannot start whatever ends (too large for the cluster or for its quota, incomplete, backing off) keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import attrgetter

from muster.scheduling.gang import Gang
from muster.scheduling.placing.placement import shrunk, sizes
from muster.scheduling.snapshot import Queue


def in_order(gangs: Iterable[Gang]) -> list[Gang]:
    """The gangs by turn."""
    by_arrival = sorted(gangs, key=attrgetter("arrived", "name"))
    return sorted(by_arrival, key=attrgetter("priority"), reverse=True)


def is_ready(gang: Gang, now: float) -> bool:
    """Say whether all pods of the gang are there, and it does not back off."""
    return not gang.absent and gang.not_before <= now


class Quotas:
    """GPUs that each queue holds, beside what it may hold."""

    def __init__(self, queues: Mapping[str, Queue], gangs: Iterable[Gang]) -> None:
        self._queues = queues
        self.held: dict[str, int] = {}
        """Counted for queues that have a quota."""
        self.kept: dict[str, int] = {}
        """GPUs of a quota that gangs which wait for GPUs will need."""
        self.limited = {name for name, queue in queues.items() if queue.quota is not None}
        """The queues that have a quota."""
        for gang in gangs if self.limited else ():
            if gang.placement and gang.queue in self.limited:
                self.add(gang.queue, gang.held)

    def limit(self, queue: str) -> int | None:
        found = self._queues.get(queue)
        return found.quota if found else None

    def add(self, queue: str, gpus: int) -> None:
        self.held[queue] = self.held.get(queue, 0) + gpus

    def keep(self, queue: str, gpus: int) -> None:
        self.kept[queue] = self.kept.get(queue, 0) + gpus

    def allows(self, gang: Gang, gpus: int) -> bool:
        limit = self.limit(gang.queue)
        return limit is None or self.held.get(gang.queue, 0) + self.kept.get(gang.queue, 0) + gpus <= limit

    def within(self, gang: Gang) -> Gang | None:
        """The gang in the largest size that the quota allows now; None where it allows none."""
        if self.limit(gang.queue) is None:
            return gang
        if gang.fewest is None and gang.asked is None:
            return gang if self.allows(gang, gang.gpus) else None
        versions = (replace(gang, tasks=shrunk(gang.tasks, size)) for size in sizes(gang))
        return next((version for version in versions if self.allows(gang, version.gpus)), None)

    def used(self, queue: str) -> str:
        """Say how much of a quota is used."""
        used = f"queue {queue} uses {self.held.get(queue, 0)} of {self.limit(queue)} GPUs"
        kept = self.kept.get(queue, 0)
        return f"{used}, and {kept} are kept for gangs ahead" if kept else used

    def ever_allows(self, gang: Gang, gpus: int) -> bool:
        limit = self.limit(gang.queue)
        return limit is None or gpus <= limit


class Claims:
    """What waiting gangs keep from those behind them: nodes, and the quota of queues."""

    def __init__(self) -> None:
        self.nodes: dict[str, Gang] = {}
        self.queues: dict[str, Gang] = {}
        self._keepers: dict[int, Gang] = {}
        """For sets of nodes that are kept, whom others come after (by identity: gangs that may use the same nodes ask with the
        same tuple)."""
        self._looked: dict[int, int] = {}
        """For sets of nodes that were looked at, how many nodes were claimed then."""

    def keeper(self, names: tuple[str, ...]) -> Gang | None:
        """The gang that keeps the first of these nodes, where somebody waits for each of them."""
        found = self._keepers.get(id(names))
        if found is None and len(self.nodes) > self._looked.get(id(names), 0):
            self._looked[id(names)] = len(self.nodes)
            if names and all(name in self.nodes for name in names):
                found = self._keepers[id(names)] = self.nodes[names[0]]
        return found

    def ahead(self, names: tuple[str, ...]) -> Gang | None:
        """The gang that keeps the first of these nodes that is kept."""
        for name in names:
            if name in self.nodes:
                return self.nodes[name]
        return None

    def claim_nodes(self, gang: Gang, names: Iterable[str]) -> None:
        for name in names:
            self.nodes.setdefault(name, gang)

    def claim_queue(self, gang: Gang) -> None:
        self.queues.setdefault(gang.queue, gang)
