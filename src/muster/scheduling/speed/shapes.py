"""The shape of a placement."""

from __future__ import annotations

from collections.abc import Mapping

from muster.scheduling.gang import Placement, gpus_by_node
from muster.scheduling.profile import Shape
from muster.scheduling.topology.links import UNLIMITED, GpuSet
from muster.scheduling.topology.network import between
from muster.scheduling.topology.node import Node


def shape(placement: Placement, nodes: Mapping[str, Node]) -> Shape:
    """Return the shape of a placement."""
    return shape_of(gpus_by_node(placement), nodes)


def shape_of(gpus: Mapping[str, GpuSet], nodes: Mapping[str, Node]) -> Shape:
    """Return the shape of GPUs by node."""
    models = "+".join(sorted({nodes[name].model for name in gpus}))
    counts = tuple(sorted((held.bit_count() for held in gpus.values()), reverse=True))
    ring = min((nodes[name].machine.ring(held) for name, held in gpus.items() if held & (held - 1)), default=UNLIMITED)
    return Shape(models, counts, ring, between(gpus, nodes))
