"""How well a node suits a pod that passed the filter: prioritize, as a pure function, from 0 (worst) to 10 (best).

It matters to ungated pods only: pods that the operator places have one node. Nodes are ranked, and only their order counts:
pack, 2 GPUs or more   the best links for this number of GPUs, then the fewest GPUs left free
pack, 1 GPU            what costs the node the least of its links (so that fast machines stay whole), then the fewest left
spread                 the most GPUs free, then the best links

Nodes with the same machine type and free GPUs are one case: a cluster of thousands of nodes has dozens of cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from muster.allocation.pods import gpus_of
from muster.allocation.view import ClusterView
from muster.kube.objects import Pod
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.machine import MachineType

BEST = 10
Key = tuple[float, ...]


class Policy(StrEnum):
    """Whether pods go close together or far apart."""

    PACK = "pack"
    SPREAD = "spread"


def prioritize(view: ClusterView, pod: Pod, nodes: list[str], policy: Policy) -> list[tuple[str, int]]:
    """Score each of `nodes` for `pod`; all 0 where it asks for no GPUs, and 0 where there are too few."""
    count, usable = gpus_of(pod), view.usable()
    if count <= 0:
        return [(name, 0) for name in nodes]
    cases: dict[str, tuple[MachineType, GpuSet]] = {}
    for name in nodes:
        node = usable.get(name)
        if node is not None and node.free.bit_count() >= count:
            cases[name] = (node.machine, node.free)
    scores = scored(set(cases.values()), count, policy)
    return [(name, scores[cases[name]] if name in cases else 0) for name in nodes]


def scored(cases: Iterable[tuple[MachineType, GpuSet]], count: int, policy: Policy) -> dict[tuple[MachineType, GpuSet], int]:
    """Score each case; the best alone gets 10, the others 9 down to 0 in their order, equal ones the same."""
    keys = {case: sort_key(*case, count, policy) for case in cases}
    order = {key: position for position, key in enumerate(sorted(set(keys.values())))}
    last = max(len(order) - 1, 1)
    return {case: BEST - -(-BEST * order[key] // last) for case, key in keys.items()}


def sort_key(machine: MachineType, free: GpuSet, count: int, policy: Policy) -> Key:
    """Return the sort key of a case: the best case comes first."""
    left = free.bit_count()
    links = -machine.score(free, count)
    if policy is Policy.SPREAD:
        return (-left, links)
    if count > 1:
        return (links, left)
    loss = machine.usefulness(free) - machine.usefulness(free & ~machine.leftover(free, count))
    return (loss, left)
