"""Interference avoidance: a placement away from neighbours, where those under the same switch or on the same cards would cost
more.

Neighbours slow each other (Gandiva, OSDI'18, figures 3 and 4), and what they lose is known or predicted (`speed.rates`). So a
placement is compared with one on GPUs that share no switch with any gang, and, for a gang of several nodes, on nodes whose
cards no other gang uses. That one is taken if it is worth clearly more to the gang and its neighbours together.
"""

from __future__ import annotations

from collections.abc import Collection

from muster.scheduling.gang import Gang, Placement, gpus_by_node
from muster.scheduling.occupancy import Occupancy
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster.scheduling.speed.rates import Rates
from muster.scheduling.topology.links import GpuSet

CLEARLY = 0.02
"""How much more a placement without neighbours has to be worth, for each GPU: less is within what measured rates vary."""


def avoid_interference(
    gang: Gang, placement: Placement, capacity: FreeCapacity, closed: Collection[str], occupancy: Occupancy, rates: Rates
) -> Placement:
    """Return the placement, or one without neighbours that is worth clearly more."""
    gpus = gpus_by_node(placement)
    if not occupancy.neighbours(gang.name, gpus, capacity.nodes):
        return placement
    several = len(gpus) > 1
    undisturbed = {name: _undisturbed(name, capacity, occupancy, several) for name in capacity.nodes}
    alone = find(gang, capacity.only(undisturbed), closed=closed)
    if alone is None:
        return placement
    gain = rates.worth(gang, gpus_by_node(alone), occupancy) - rates.worth(gang, gpus, occupancy)
    return alone if gain > CLEARLY * gang.gpus else placement


def _undisturbed(name: str, capacity: FreeCapacity, occupancy: Occupancy, several: bool) -> GpuSet:
    """The free GPUs of a node that share nothing with any gang that runs there."""
    free, machine = capacity.free[name], capacity.nodes[name].machine
    for gang, gpus in occupancy.residents(name).values():
        if gang.running:
            if several and any(assigned.node != name for assigned in gang.placement):
                return 0
            free &= ~machine.switched(gpus)
    return free
