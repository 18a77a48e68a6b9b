"""A place away from neighbours, where those under the same switch or on the same network cards would cost more.

Neighbours slow each other (Gandiva, OSDI'18, figures 3 and 4), and what they lose is known or predicted (`rates`). So a place
that was found is held against one on GPUs that share no switch with anybody, and, for a gang of several nodes, on nodes whose
cards nobody else uses. Where that is worth clearly more to the gang and its neighbours together, it is taken.
"""

from __future__ import annotations

from muster.scheduling.gang import Gang, Placement
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster.scheduling.speed.occupancy import Occupancy, gpus_by_node
from muster.scheduling.speed.rates import Rates
from muster.scheduling.topology.links import GpuSet

CLEARLY = 0.02
"""How much more a quiet place has to be worth, for each GPU: less is within what measured rates vary."""


def quieter(gang: Gang, found: Placement, capacity: FreeCapacity, running: Occupancy, rates: Rates) -> Placement:
    """Return the place that was found, or a quiet one that is worth clearly more."""
    if not running.neighbours(gang.name, gpus_by_node(found), capacity.nodes):
        return found
    several = len(gpus_by_node(found)) > 1
    alone = find(gang, capacity.only({name: _quiet(name, capacity, running, several) for name in capacity.nodes}))
    if alone is None:
        return found
    gain = rates.worth(gang, gpus_by_node(alone), running) - rates.worth(gang, gpus_by_node(found), running)
    return alone if gain > CLEARLY * gang.gpus else found


def _quiet(name: str, capacity: FreeCapacity, running: Occupancy, several: bool) -> GpuSet:
    """The free GPUs of a node that share nothing with anybody who runs there."""
    free, machine = capacity.free[name], capacity.nodes[name].machine
    for other, theirs in running.on_node.get(name, {}).values():
        if several and any(place.node != name for place in other.placement):
            return 0
        free &= ~machine.switched(theirs)
    return free
