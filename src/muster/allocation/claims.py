"""What is free on a node to one particular pod, by the right that the pod has.

A pod that owns a reservation has a right to its GPUs; a claim that rests on an annotation alone cannot take them away. A pod
without a reservation has a claim, no matter what its annotations say: it gets only what nobody holds.
"""

from __future__ import annotations

from muster.allocation.holding import Holding, Source
from muster.allocation.ledger import unheld
from muster.allocation.view import ClusterView
from muster.scheduling.topology.links import GpuSet


def free_to_owner(view: ClusterView, node: str, task: str) -> GpuSet:
    """Return the GPUs that are free to a pod that owns a reservation: mere claims of other pods do not count."""
    return _left(view, node, [holding for other, holding in view.ledger.on_node(node, but=task) if is_firm(view, other)])


def free_to_claim(view: ClusterView, node: str, task: str) -> GpuSet:
    """Return the GPUs that are free to a pod that owns no reservation: one in its name is somebody else's."""
    others = [holding for _, holding in view.ledger.on_node(node, but=task)]
    reserved = view.ledger.holding(task, Source.RESERVATION)
    if reserved is not None and reserved.node == node:
        others.append(reserved)
    return _left(view, node, others)


def is_firm(view: ClusterView, task: str) -> bool:
    """Return whether a task holds its GPUs by a reservation or because it is bound, and not by its annotation alone."""
    pod = view.pods.get(task)
    return task in view.reservations or pod is None or pod.spec.node_name is not None


def _left(view: ClusterView, name: str, others: list[Holding]) -> GpuSet:
    node = view.node(name)
    return unheld(node.machine, node.healthy, others) if node else 0
