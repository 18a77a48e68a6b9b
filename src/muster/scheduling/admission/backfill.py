"""Backfill: what later gangs may have while earlier ones wait, without knowing how long a job runs.

A waiting gang must not start later because one behind it went first. Any GPU that the waiting gang could use may be the last
one that it needs, so a later gang may only have what the waiting one could not use anyway:

- a gang that waits for GPUs reserves every node that it may use, and what it needs of its queue's quota (`Quotas.reserve`);
- a gang that waits for its queue's quota reserves that quota from those behind it in the queue, and no GPUs: when quota comes
  free is its own queue's matter, and no other queue is to wait for it;
- a gang that cannot start whatever ends (too large for the cluster or for its quota, incomplete, backing off) reserves nothing,
- nor does one whose last start failed, so that it costs nobody anything;
- but one that was taken off its GPUs by nobody's fault keeps what it needs while its pods end and it backs off, the first time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from muster.scheduling.gang import Gang


class Backfill:
    """Nodes and queues that waiting gangs reserve from the gangs behind them."""

    def __init__(self) -> None:
        self.nodes: dict[str, Gang] = {}
        """The gang that reserves a node, by node."""
        self.queues: dict[str, Gang] = {}
        """The gang that waits for the quota of a queue, by queue."""
        self._blocking: dict[Hashable, Gang] = {}
        """By what stands for nodes that are all reserved, the gang that blocks them."""
        self._reserved_when_asked: dict[Hashable, int] = {}
        """By what stands for nodes of which some were open, how many nodes were reserved at that time."""

    def blocking(self, may_use: Hashable, nodes: tuple[str, ...]) -> Gang | None:
        """Return the gang that reserves the first of these nodes, where each is reserved; `may_use` stands for the nodes."""
        gang = self._blocking.get(may_use)
        if gang is None and len(self.nodes) > self._reserved_when_asked.get(may_use, 0):
            self._reserved_when_asked[may_use] = len(self.nodes)
            if nodes and all(name in self.nodes for name in nodes):
                gang = self._blocking[may_use] = self.nodes[nodes[0]]
        return gang

    def ahead(self, nodes: Iterable[str]) -> Gang | None:
        """Return the gang that reserves the first reserved node of these."""
        return next((self.nodes[name] for name in nodes if name in self.nodes), None)

    def reserve_queue(self, gang: Gang) -> None:
        """Reserve what comes free of its queue's quota for a gang that waits for it."""
        if not gang.start_failed:
            self.queues[gang.queue] = gang

    def reserve_nodes(self, gang: Gang, nodes: Iterable[str]) -> None:
        """Reserve nodes for a waiting gang, but for those that are reserved already."""
        if gang.start_failed:
            return
        self.nodes = dict.fromkeys(nodes, gang) | self.nodes
