"""The network between nodes: its bandwidth, and the time that a gang needs to exchange gradients.

A gang on several nodes sums its gradients inside each node first, then between nodes, with one process a node (as in NCCL's
trees and hierarchical all-reduce). So the GPUs of a node share its network cards, and only the exchange between nodes crosses
the network. Bandwidths are in GB/s. Racks and blocks share their uplinks, so bandwidth falls with distance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from muster.scheduling.profile import Shape
from muster.scheduling.topology.links import UNLIMITED
from muster.scheduling.topology.node import Level, Node

GOODPUT = 0.45
"""The share of a card's rate that training gets: 2.2 of 5 GB/s by the jobs over 40 Gb/s of Gandiva (OSDI'18, figure 2)."""
UPLINK = {Level.NODE: 1.0, Level.RACK: 1.0, Level.BLOCK: 0.5, Level.CLUSTER: 0.25}
"""The share of its cards' rate that a node gets over this distance when all nodes send: 2:1 at each tier above the rack, a
common oversubscription of Clos networks (Al-Fares, SIGCOMM'08, section 2.1, reports 2.5:1 to 8:1 in all)."""


def between(names: Iterable[str], nodes: Mapping[str, Node]) -> float:
    """Return the GB/s that the slowest of these nodes can send to the farthest other one; infinite for a single node."""
    members = [nodes[name] for name in names]
    if len(members) < 2:
        return UNLIMITED
    return min(node.nic_gbps for node in members) * GOODPUT * UPLINK[level(members)]


def level(members: Iterable[Node]) -> Level:
    """Return the nearest level that has all these nodes in one domain; nodes without a rack are taken to be near each other."""
    members = list(members)
    return next(level for level in Level if len({_place(node)[level:] for node in members}) <= 1)


def _place(node: Node) -> tuple[str, ...]:
    """Where a node is, from near to far, by level."""
    return (node.name, node.rack, node.block, "")


@lru_cache(maxsize=4096)
def exchange(shape: Shape, sharers: int = 0) -> float:
    """Return the seconds in which GPUs of this shape sum 1 GB, while `sharers` other gangs use the same cards.

    A ring of n passes 2 (n - 1) / n of the data over its slowest hop (Patarasuk and Yuan, 2009).
    """
    inside = max(shape.counts, default=1)
    return _ring(inside) / shape.gbps + network(shape, sharers)


def network(shape: Shape, sharers: int = 0) -> float:
    """Return the part of `exchange` that crosses the network, in seconds."""
    return _ring(len(shape.counts)) * (1 + sharers) / shape.between


def _ring(members: int) -> float:
    return 2 * (members - 1) / members if members else 0.0
