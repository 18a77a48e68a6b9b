"""Quotas: GPUs that each queue holds, and those that it reserves for its waiting gangs, compared with what it may hold.

The resource quotas of namespaces (`resource_quota`) bind as well, but are no queue's: no gang waits behind another for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from muster.scheduling.counting import counted
from muster.scheduling.gang import Gang, Placement, gpus_of
from muster.scheduling.resource_quota import Budgets, ResourceQuota, Shortfall
from muster.scheduling.snapshot import Queue

MOST_NAMED = 10
"""Queues that a message names."""


class Quotas:
    """GPUs held and reserved by queue, counted for queues that have a quota; and what is left of resource quotas."""

    def __init__(
        self, queues: Mapping[str, Queue], gangs: Iterable[Gang] = (), resource_quotas: Iterable[ResourceQuota] = ()
    ) -> None:
        self.limits = {name: queue.quota for name, queue in queues.items() if queue.quota is not None}
        """The GPUs that a queue may hold, by queue; those without a limit are not in it."""
        self._queues = queues
        self._namespaces = {queue.namespace for queue in queues.values() if queue.namespace}
        """The namespaces in which a gang's queue has to exist."""
        self._stopping = {name: queues[name].stopping for name in self.limits if queues[name].stopping}
        self._held = {name: queues[name].others + queues[name].stopping for name in self.limits}
        self._reserved: dict[str, int] = {}
        self._budgets = Budgets(resource_quotas)
        for gang in gangs if self.limits else ():
            self.add(gang.queue, gang.held)

    def copy(self) -> Quotas:
        """Return quotas that hold and reserve the same, to be counted on from here."""
        twin = Quotas({})
        twin.limits, twin._held, twin._reserved = self.limits, dict(self._held), dict(self._reserved)
        twin._queues, twin._namespaces, twin._budgets = self._queues, self._namespaces, self._budgets.copy()
        twin._stopping = self._stopping
        return twin

    # Counting

    def once_gone(self, gangs: Collection[Gang]) -> Quotas:
        """Return the quotas as they will be once these gangs, and all pods on their way out, have gone."""
        if not self.limits or not (gangs or self._stopping):
            return self
        left = self.copy()
        left._stopping = {}
        for queue, gpus in self._stopping.items():
            left.add(queue, -gpus)
        for gang in gangs:
            left.add(gang.queue, -gang.held)
        return left

    def add(self, queue: str, gpus: int) -> None:
        """Count GPUs as held, or as released if negative."""
        if queue in self.limits:
            self._held[queue] = self._held.get(queue, 0) + gpus

    def place(self, gang: Gang, placement: Placement) -> None:
        """Count a gang at a new placement; what the old pods took of resource quotas comes back only when these have gone."""
        self.add(gang.queue, gpus_of(placement) - gang.held)
        if gang.namespace in self._budgets:
            self._budgets.take(gang.namespace, gang.added(placement))

    def reserve(self, queue: str, gpus: int) -> None:
        """Keep GPUs of a quota for a gang that waits."""
        if queue in self.limits:
            self._reserved[queue] = self._reserved.get(queue, 0) + gpus

    def drop_reservations(self) -> None:
        """Reserve nothing any more."""
        self._reserved.clear()

    # Asking

    def missing(self, gang: Gang) -> str:
        """Say that the gang's queue does not exist, where its namespace has queues; "" if it need not or does."""
        if gang.namespace not in self._namespaces or gang.queue in self._queues:
            return ""
        there = sorted(name for name, queue in self._queues.items() if queue.namespace == gang.namespace)
        more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
        return f"queue {gang.queue} does not exist; there are {', '.join(there[:MOST_NAMED])}{more}"

    def shortfall(self, gang: Gang, placement: Placement | None = None) -> Shortfall | None:
        """Return what a resource quota lacks for a placement of the gang, or for the gang in its smallest size."""
        if not gang.charges or gang.namespace not in self._budgets:
            return None
        pods = gang.charged_whole(gang.at_fewest().tasks) if placement is None else gang.added(placement)
        return self._budgets.shortfall(gang.namespace, pods)

    def allows(self, gang: Gang, gpus: int) -> bool:
        """Say whether the gang's queue may hold so many GPUs more now."""
        limit = self.limits.get(gang.queue)
        return limit is None or self._held.get(gang.queue, 0) + self._reserved.get(gang.queue, 0) + gpus <= limit

    def within(self, gang: Gang) -> Gang | None:
        """Return the gang in the largest size that the quotas allow now; None where they allow none."""
        if gang.queue not in self.limits and gang.namespace not in self._budgets:
            return gang
        if gang.fewest is None and gang.asked is None:
            return gang if self._allow(gang) else None
        versions = (gang.at_size(size) for size in gang.sizes())
        return next((version for version in versions if self._allow(version)), None)

    def _allow(self, gang: Gang) -> bool:
        if not self.allows(gang, gang.gpus):
            return False
        return not gang.charges or self._budgets.shortfall(gang.namespace, gang.charged_whole(gang.tasks)) is None

    def usage(self, queue: str) -> str:
        """Say how much of a quota is used."""
        used = f"queue {queue} uses {self._held.get(queue, 0)} of {counted(self.limits[queue], 'GPU')}"
        reserved, stopping = self._reserved.get(queue, 0), self._stopping.get(queue, 0)
        if stopping:
            used += f", {stopping} of them in pods that are stopping"
        return f"{used}, and {reserved} are reserved for gangs ahead" if reserved else used
