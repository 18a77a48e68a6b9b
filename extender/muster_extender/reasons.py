"""Why a node has too few free GPUs for a pod, as a sentence that ends up in `kubectl describe pod`.

Each answer is also a verdict on preemption: "unresolvable" means that evicting pods could not help, since the missing GPUs are
reserved, broken or not there. kube-scheduler prints every distinct sentence once, with the number of nodes.
"""

from __future__ import annotations

from typing import NamedTuple

from muster.allocation.holding import Holding, Source
from muster.allocation.ledger import unheld
from muster.allocation.view import ClusterView
from muster.scheduling.counting import counted
from muster.scheduling.naming import FOREIGN
from muster.scheduling.topology.links import GpuSet, indices
from muster.scheduling.topology.node import Node

MOST_SENTENCES = 16
"""Distinct sentences in one answer; a pod's condition holds them all, so a large cluster gets plain ones beyond that."""


class Refusal(NamedTuple):
    """Why a node is refused, and whether evicting pods could not help."""

    unresolvable: bool
    sentence: str
    transient: bool = False
    """Only assumed pods stand in the way: the refusal may end without any change of the node."""


def too_few(view: ClusterView, node: Node, count: int, reader: str) -> Refusal:
    """Return why `node` has fewer than `count` free GPUs: how many are free, and who has the others.

    Jobs of the namespace `reader` are named.
    """
    reserved = [
        (task, holding)
        for task, _ in view.ledger.on_node(node.name)
        if (holding := view.ledger.holding(task, Source.RESERVATION)) is not None and holding.node == node.name
    ]
    unreserved = unheld(node.machine, node.healthy, [holding for _, holding in reserved])
    parts = [f"{node.free.bit_count()} of {node.machine.gpus} free"]
    if taken := (node.healthy & ~unreserved).bit_count():
        parts.append(f"{taken} reserved for {_jobs(view, reserved, reader)}")
    if held := unreserved.bit_count() - node.free.bit_count():
        parts.append(f"{held} held by other pods")
    if broken := node.machine.gpus - node.healthy.bit_count():
        parts.append(f"{broken} unhealthy")
    return Refusal(unreserved.bit_count() < count, f"needs {gpus(count)}: {', '.join(parts)}")


def plain(count: int, unresolvable: bool) -> str:
    """Return the same without the numbers of the node, for an answer about many nodes."""
    return f"needs {gpus(count)}: fewer are free, {'the others are reserved' if unresolvable else 'other pods hold the rest'}"


def holders(view: ClusterView, node: str, wanted: GpuSet, task: str) -> str:
    """Return who other than `task` holds any of the GPUs `wanted` of a node, as the task's owner may read it; "" for nobody."""
    names = {_holder(view, other) for other, holding in view.ledger.on_node(node, but=task) if holding.gpus & wanted}
    return _listed(sorted(names), _namespace(task)) if names else ""


def gpus(count: int) -> str:
    """Return "1 GPU" or "4 GPUs"."""
    return counted(count, "GPU")


def numbered(which: GpuSet) -> str:
    """Return "GPU 3", "GPUs 0,1" or "no GPUs"."""
    if not which:
        return "no GPUs"
    return f"GPU{'s' if which.bit_count() > 1 else ''} {','.join(map(str, indices(which)))}"


def _jobs(view: ClusterView, reserved: list[tuple[str, Holding]], reader: str) -> str:
    """The jobs that reserve, the one with the most GPUs first."""
    amounts: dict[str, int] = {}
    for task, holding in reserved:
        job = _holder(view, task)
        amounts[job] = amounts.get(job, 0) + holding.size
    return _listed(sorted(amounts, key=lambda job: (-amounts[job], job)), reader)


def _holder(view: ClusterView, task: str) -> str:
    """The job that reserves for a task, or the pod itself."""
    reservation = view.reservations.get(task)
    return reservation.job.key if reservation else task


def _listed(names: list[str], reader: str) -> str:
    """The first of the reader's namespace, and how many more there are: "vision/vgg16 and 1 other"."""
    first = next((name for name in names if _namespace(name) == reader), FOREIGN)
    others = len(names) - 1
    return f"{first} and {others} other{'s' if others > 1 else ''}" if others else first


def _namespace(key: str) -> str:
    return key.partition("/")[0]
