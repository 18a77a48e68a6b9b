"""Who runs where: the neighbours of a gang, and the shape of a placement.

Neighbours meet in three places, each with its own loss (Gandiva, OSDI'18, figures 3, 4 and 10): on the same GPU, under the
same PCIe switch, and at the network card of a node when both are spread over several. What a gang loses there is measured
(`profile`) or predicted (`rates`); here is only who meets whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muster.scheduling.gang import Gang, Placement
from muster.scheduling.profile import CoLocation, Shape, Via
from muster.scheduling.topology.links import UNLIMITED, GpuSet
from muster.scheduling.topology.network import between
from muster.scheduling.topology.node import Node


def gpus_by_node(placement: Placement) -> dict[str, GpuSet]:
    """The GPUs of a placement on each of its nodes."""
    found: dict[str, GpuSet] = {}
    for place in placement:
        if place.gpus:
            found[place.node] = found.get(place.node, 0) | place.gpus
    return found


def gpus_of(placement: Placement) -> int:
    """The number of GPUs of a placement."""
    return sum(place.gpus.bit_count() for place in placement)


def shape(placement: Placement, nodes: Mapping[str, Node]) -> Shape:
    """The shape of a placement."""
    return shape_of(gpus_by_node(placement), nodes)


def shape_of(gpus: Mapping[str, GpuSet], nodes: Mapping[str, Node]) -> Shape:
    """The shape of GPUs by node."""
    models = "+".join(sorted({nodes[name].model for name in gpus}))
    counts = tuple(sorted((held.bit_count() for held in gpus.values()), reverse=True))
    hops = min((nodes[name].machine.ring(held) for name, held in gpus.items() if held & (held - 1)), default=UNLIMITED)
    return Shape(models, counts, hops, between(gpus, nodes))


class Occupancy:
    """The gangs that run, by node; kept up to date by `add` and `remove`."""

    def __init__(self, gangs: Iterable[Gang] = ()) -> None:
        self.on_node: dict[str, dict[str, tuple[Gang, GpuSet]]] = {}
        for gang in gangs:
            if gang.placement and gang.running:
                self.add(gang)

    def add(self, gang: Gang) -> None:
        for name, gpus in gpus_by_node(gang.placement).items():
            self.on_node.setdefault(name, {})[gang.name] = (gang, gpus)

    def remove(self, gang: Gang) -> None:
        for name in gpus_by_node(gang.placement):
            self.on_node.get(name, {}).pop(gang.name, None)

    def co_location(self, name: str, gpus: Mapping[str, GpuSet], nodes: Mapping[str, Node]) -> CoLocation:
        """The company that gang `name` has, or would have, on these GPUs by node."""
        return tuple(sorted(self.neighbours(name, gpus, nodes).values()))

    def neighbours(self, name: str, gpus: Mapping[str, GpuSet], nodes: Mapping[str, Node]) -> dict[str, tuple[Via, str]]:
        """The gangs that gang `name` meets, or would meet, on these GPUs by node: where they hurt most, and their kind."""
        met: dict[str, tuple[Via, str]] = {}
        for node, held in gpus.items():
            machine = nodes[node].machine
            for other, (gang, theirs) in self.on_node.get(node, {}).items():
                if other == name:
                    continue
                if held & theirs:
                    met[other] = (Via.GPU, kind_of(gang))
                elif len(gpus) > 1 and other not in met and any(place.node != node for place in gang.placement):
                    met[other] = (Via.NIC, kind_of(gang))
                elif machine.switched(held) & theirs and other not in met:
                    met[other] = (Via.SWITCH, kind_of(gang))
        return met


def kind_of(gang: Gang) -> str:
    """The kind whose measurements hold for the gang: the declared one, else its own."""
    return gang.kind or gang.name
