"""Quotas: GPUs that each queue holds, and those that it reserves for its waiting gangs, compared with what it may hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muster.scheduling.gang import Gang
from muster.scheduling.snapshot import Queue


class Quotas:
    """GPUs held and reserved by queue; counted for queues that have a quota."""

    def __init__(self, queues: Mapping[str, Queue], gangs: Iterable[Gang] = ()) -> None:
        self.limits = {name: queue.quota for name, queue in queues.items() if queue.quota is not None}
        """The GPUs that a queue may hold, by queue; those without a limit are not in it."""
        self._held: dict[str, int] = {}
        self._reserved: dict[str, int] = {}
        for gang in gangs if self.limits else ():
            self.add(gang.queue, gang.held)

    def copy(self) -> Quotas:
        """Return quotas that hold and reserve the same, to be counted on from here."""
        twin = Quotas({})
        twin.limits, twin._held, twin._reserved = self.limits, dict(self._held), dict(self._reserved)
        return twin

    def add(self, queue: str, gpus: int) -> None:
        """Count GPUs as held, or as released if negative."""
        if queue in self.limits:
            self._held[queue] = self._held.get(queue, 0) + gpus

    def reserve(self, queue: str, gpus: int) -> None:
        """Keep GPUs of a quota for a gang that waits."""
        if queue in self.limits:
            self._reserved[queue] = self._reserved.get(queue, 0) + gpus

    def drop_reservations(self) -> None:
        """Reserve nothing any more."""
        self._reserved.clear()

    def allows(self, gang: Gang, gpus: int) -> bool:
        """Say whether the gang's queue may hold so many GPUs more now."""
        limit = self.limits.get(gang.queue)
        return limit is None or self._held.get(gang.queue, 0) + self._reserved.get(gang.queue, 0) + gpus <= limit

    def within(self, gang: Gang) -> Gang | None:
        """Return the gang in the largest size that the quota allows now; None where it allows none."""
        if gang.queue not in self.limits:
            return gang
        if gang.fewest is None and gang.asked is None:
            return gang if self.allows(gang, gang.gpus) else None
        versions = (gang.at_size(size) for size in gang.sizes())
        return next((version for version in versions if self.allows(gang, version.gpus)), None)

    def usage(self, queue: str) -> str:
        """Say how much of a quota is used."""
        used = f"queue {queue} uses {self._held.get(queue, 0)} of {self.limits[queue]} GPUs"
        reserved = self._reserved.get(queue, 0)
        return f"{used}, and {reserved} are reserved for gangs ahead" if reserved else used
