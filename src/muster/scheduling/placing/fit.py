"""Does a placement still fit? The one check of GPUs that are wanted against those that are there and free.

The core asks it before one decision relies on another, the operator before it writes a placement, the extender before it lets
a pod onto its node. What a gang has on a node already counts as free to it: the caller says so in `own`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from muster.scheduling.resources import WHOLE, Parts
from muster.scheduling.topology.links import GpuSet, gpu_set
from muster.scheduling.topology.node import Node

NO_GPUS: Mapping[str, GpuSet] = {}


class Misfit(NamedTuple):
    """Why the GPUs wanted of one node cannot be had: those that do not work or do not exist, and those that others hold."""

    unusable: GpuSet = 0
    held: GpuSet = 0


def misfit(wanted: GpuSet, healthy: GpuSet, free: GpuSet) -> Misfit | None:
    """Return what keeps the GPUs `wanted` of a node from being taken; None if nothing does."""
    if not wanted & ~(healthy & free):
        return None
    return Misfit(wanted & ~healthy, wanted & healthy & ~free)


def available(free: GpuSet, parts: Parts, share: int) -> GpuSet:
    """Return the GPUs of which `share` thousandths can be had: the free ones, and those that are held in part."""
    if share >= WHOLE or not parts:
        return free
    return free | gpu_set([gpu for gpu, left in parts if left >= share])


def misfits(
    wanted: Mapping[str, GpuSet], nodes: Mapping[str, Node], own: Mapping[str, GpuSet] = NO_GPUS, share: int = WHOLE
) -> dict[str, Misfit]:
    """Return, by node, what keeps a whole placement from being taken; empty if it fits.

    `wanted` and `own` are GPUs by node (`gpus_by_node` of a placement); a node that is not in `nodes` takes no pods.
    """
    problems: dict[str, Misfit] = {}
    for name, gpus in wanted.items():
        node = nodes.get(name)
        if node is None:
            problems[name] = Misfit(unusable=gpus)
        elif (problem := misfit(gpus, node.healthy, available(node.free, node.parts, share) | own.get(name, 0))) is not None:
            problems[name] = problem
    return problems
