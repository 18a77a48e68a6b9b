"""Why a node has too few free GPUs for a pod, in a sentence that ends up in `kubectl describe pod`.

Each answer is also a verdict on preemption: unresolvable means that no pod could be evicted to make room, since what is
missing is reserved, broken or not there. kube-scheduler prints every distinct sentence once, with the number of nodes.
"""

from __future__ import annotations

from typing import NamedTuple

from muster.scheduling.ledger import Holding, Source, unheld
from muster.scheduling.topology.links import GpuSet, indices
from muster.scheduling.topology.node import Node
from muster_extender.reservations import GuardedView

MOST_SENTENCES = 16
"""Distinct sentences in one answer; a pod's condition holds them all, so a large cluster gets plain ones beyond that."""


class Refusal(NamedTuple):
    """Why a node is refused, and whether evicting pods could not help."""

    unresolvable: bool
    sentence: str
    passing: bool = False
    """It may end without any change of the node: pods that may be on their way to it go elsewhere."""


def too_few(view: GuardedView, node: Node, count: int) -> Refusal:
    """Say why `node` has no `count` free GPUs: how many are free, and who has the others."""
    reserved = [
        (task, holding)
        for task, _ in view.ledger.on_node(node.name)
        if (holding := view.ledger.holding(task, Source.RESERVATION)) is not None and holding.node == node.name
    ]
    unreserved = unheld(node.machine, node.healthy, [holding for _, holding in reserved])
    parts = [f"{node.free.bit_count()} of {node.machine.gpus} free"]
    if taken := (node.healthy & ~unreserved).bit_count():
        parts.append(f"{taken} reserved for {_jobs(view, reserved)}")
    if held := unreserved.bit_count() - node.free.bit_count():
        parts.append(f"{held} held by other pods")
    if broken := node.machine.gpus - node.healthy.bit_count():
        parts.append(f"{broken} unhealthy")
    return Refusal(unreserved.bit_count() < count, f"needs {gpus(count)}: {', '.join(parts)}")


def plain(count: int, unresolvable: bool) -> str:
    """Say the same without numbers of the node, for an answer about many nodes."""
    return f"needs {gpus(count)}: fewer are free, {'the others are reserved' if unresolvable else 'other pods hold the rest'}"


def holders(view: GuardedView, node: str, wanted: GpuSet, task: str) -> str:
    """Name who but `task` holds any of the GPUs `wanted` of a node: "vision/vgg16 and 1 other", or "" for nobody."""
    named = {
        view.reservations[other].job.key if other in view.reservations else other
        for other, holding in view.ledger.on_node(node, but=task)
        if holding.gpus & wanted
    }
    return _listed(sorted(named))


def gpus(count: int) -> str:
    """Return "1 GPU" or "4 GPUs"."""
    return "1 GPU" if count == 1 else f"{count} GPUs"


def numbered(which: GpuSet) -> str:
    """Return "GPU 3", "GPUs 0,1" or "no GPUs"."""
    if not which:
        return "no GPUs"
    return f"GPU{'s' if which.bit_count() > 1 else ''} {','.join(map(str, indices(which)))}"


def _jobs(view: GuardedView, reserved: list[tuple[str, Holding]]) -> str:
    """Name the job with the most GPUs first: it is the one to ask."""
    amounts: dict[str, int] = {}
    for task, holding in reserved:
        job = view.reservations[task].job.key if task in view.reservations else task
        amounts[job] = amounts.get(job, 0) + holding.size
    return _listed(sorted(amounts, key=lambda job: (-amounts[job], job)))


def _listed(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{names[0]} and {len(names) - 1} other{'s' if len(names) > 2 else ''}"
