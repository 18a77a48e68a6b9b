"""Backfill: what later gangs may have while earlier ones wait, without knowing how long a job runs.

A waiting gang must not start later because one behind it went first. Any GPU that the waiting gang could use may be the last
one that it needs, so a later gang may only have what the waiting one could not use anyway:

- a gang that waits for GPUs reserves every node that it may use, and what it needs of its queue's quota (`Quotas.reserve`);
- a gang that waits for its quota reserves the GPUs on which it would start now (admission takes them), and its queue's quota;
- a gang that cannot start whatever ends (too large for the cluster or for its quota, incomplete, backing off) reserves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.scheduling.gang import Gang
from muster.scheduling.topology.fleet import Demands


class Backfill:
    """Nodes and queues that waiting gangs reserve from the gangs behind them."""

    def __init__(self) -> None:
        self._nodes: dict[str, Gang] = {}
        self._queues: dict[str, Gang] = {}
        self._blocking: dict[Demands, Gang] = {}
        """For demands whose every node is reserved, the gang that blocks them."""
        self._reserved_when_asked: dict[Demands, int] = {}
        """For demands that were open, how many nodes were reserved at that time."""

    def blocking(self, demands: Demands, nodes: tuple[str, ...]) -> Gang | None:
        """Return the gang that reserves the first of these nodes, where each of them is reserved."""
        gang = self._blocking.get(demands)
        if gang is None and len(self._nodes) > self._reserved_when_asked.get(demands, 0):
            self._reserved_when_asked[demands] = len(self._nodes)
            if nodes and all(name in self._nodes for name in nodes):
                gang = self._blocking[demands] = self._nodes[nodes[0]]
        return gang

    def ahead(self, nodes: Iterable[str]) -> Gang | None:
        """Return the gang that reserves the first reserved node of these."""
        return next((self._nodes[name] for name in nodes if name in self._nodes), None)

    def reserve_nodes(self, gang: Gang, nodes: Iterable[str]) -> list[str]:
        """Reserve nodes for a waiting gang; return those that were not reserved yet."""
        new = [name for name in nodes if name not in self._nodes]
        self._nodes.update(dict.fromkeys(new, gang))
        return new

    def first_in(self, queue: str) -> Gang | None:
        """Return the gang that waits for the quota of a queue, if one does."""
        return self._queues.get(queue)

    def reserve_queue(self, gang: Gang) -> None:
        """Let the rest of the gang's queue wait behind it."""
        self._queues.setdefault(gang.queue, gang)
