"""A node of the API server as the core sees it: machine type, healthy GPUs, resources, rack and block.

Anybody with the right to nodes may write anything into one. What cannot be used of it is left out, and said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from muster.allocation.pods import COUNTED_APART
from muster.api import names, topology
from muster.kube.objects import Node
from muster.kube.quantity import BadQuantity, milli, whole
from muster.scheduling.resources import Amounts, Resources
from muster.scheduling.topology import node as core
from muster.scheduling.topology.eligibility import Taint
from muster.scheduling.topology.links import MOST_GPUS, BadLinks, GpuSet, gpu_set
from muster.scheduling.topology.machine import MachineType, machine_type, unknown_machine


class Translation(NamedTuple):
    """A node as the core sees it, None if it cannot be used; and what is the matter with it, "" if nothing is."""

    node: core.Node | None
    problem: str


class _Hardware(NamedTuple):
    machine: MachineType
    healthy: GpuSet
    problem: str = ""


def translate(node: Node) -> Translation:
    """Translate a node as if nobody held anything on it."""
    try:
        return _translate(node)
    except BadQuantity as error:
        return Translation(None, f"nothing is placed on it: an amount in status.allocatable cannot be read: {error}")


def unusable(node: Node, readable: bool) -> core.Unusable | None:
    """Return a node that takes no pods, and why; None if it takes some."""
    if node.spec.unschedulable:
        why = "are cordoned"
    elif not node.ready:
        why = "are not ready"
    elif not readable:
        why = "have an amount in status.allocatable that cannot be read"
    else:
        return None
    bare = core.Node(node.metadata.name, unknown_machine(0), 0, 0, labels=node.metadata.labels or {}, taints=_taints(node))
    return core.Unusable(bare, why)


def _translate(node: Node) -> Translation:
    allocatable = node.status.allocatable or {}
    hardware = _hardware(node, whole(allocatable.get(names.GPU, 0)))
    labels = node.metadata.labels or {}
    resources = Resources(
        milli(allocatable.get("cpu", 0)),
        whole(allocatable.get("memory", 0)),
        whole(allocatable.get("pods", 110)),
        _others(allocatable),
    )
    facts = core.Node(
        name=node.metadata.name,
        machine=hardware.machine,
        healthy=hardware.healthy,
        free=hardware.healthy,
        resources=resources,
        allocatable=resources,
        rack=labels.get(names.RACK, ""),
        block=labels.get(names.BLOCK, ""),
        labels=labels,
        taints=_taints(node),
    )
    return Translation(facts, hardware.problem)


def _taints(node: Node) -> tuple[Taint, ...]:
    return tuple(Taint(t.key, t.value, t.effect) for t in node.spec.taints or ())


def _others(allocatable: Mapping[str, str | int]) -> Amounts:
    """What the node has by name."""
    amounts = ((name, whole(amount)) for name, amount in allocatable.items() if name not in COUNTED_APART)
    return tuple(sorted((name, amount) for name, amount in amounts if amount))


def _hardware(node: Node, offered: int) -> _Hardware:
    """What the agent published, but no more GPUs than the kubelet offers; unknown links where it cannot be used."""
    count = min(offered, MOST_GPUS)
    too_many = f"it offers {offered} GPUs, of which the first {MOST_GPUS} are used" if offered > MOST_GPUS else ""
    text = node.metadata.annotation(names.TOPOLOGY)
    try:
        return _published(text, count, too_many) if text else _Hardware(unknown_machine(count), gpu_set(range(count)), too_many)
    except (BadLinks, msgspec.MsgspecError, topology.TooLong) as error:
        ignored = f"annotation {names.TOPOLOGY} is ignored ({error}); its links are assumed to be unknown until it is valid"
        return _Hardware(unknown_machine(count), gpu_set(range(count)), ignored)


def _published(text: str, count: int, problem: str) -> _Hardware:
    published = topology.decode(text)
    machine = machine_type(published.links)
    if machine.gpus != len(published.gpus):
        raise BadLinks(f"it lists {len(published.gpus)} GPUs but links of {machine.gpus}")
    healthy = [index for index, gpu in enumerate(published.gpus) if gpu.healthy][:count]
    return _Hardware(machine, gpu_set(healthy), problem)
