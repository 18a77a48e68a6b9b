"""A node of the API server as the core sees it: machine type, healthy GPUs, resources, rack and block."""

from __future__ import annotations

import logging

import msgspec

from muster.api import names, topology
from muster.kube.objects import Node
from muster.kube.quantity import milli, whole
from muster.scheduling.resources import Resources
from muster.scheduling.topology import node as core
from muster.scheduling.topology.eligibility import Taint
from muster.scheduling.topology.links import BadLinks, GpuSet, gpu_set
from muster.scheduling.topology.machine import MachineType, machine_type, unknown_machine

log = logging.getLogger(__name__)


def node_facts(node: Node) -> core.Node:
    """Translate a node as if nobody held anything on it."""
    allocatable = node.status.allocatable or {}
    machine, healthy = _gpus(node, whole(allocatable.get(names.GPU, 0)))
    labels = node.metadata.labels or {}
    resources = Resources(
        milli(allocatable.get("cpu", 0)), whole(allocatable.get("memory", 0)), whole(allocatable.get("pods", 110))
    )
    return core.Node(
        name=node.metadata.name,
        machine=machine,
        healthy=healthy,
        free=healthy,
        resources=resources,
        allocatable=resources,
        rack=labels.get(names.RACK, ""),
        block=labels.get(names.BLOCK, ""),
        labels=labels,
        taints=tuple(Taint(t.key, t.value, t.effect) for t in node.spec.taints or ()),
    )


def _gpus(node: Node, count: int) -> tuple[MachineType, GpuSet]:
    """The machine type and the healthy GPUs: what the agent published, but no more GPUs than the kubelet offers."""
    text = node.metadata.annotation(names.TOPOLOGY)
    if text:
        try:
            published = topology.decode(text)
            machine = machine_type(published.links)
            healthy = [index for index, gpu in enumerate(published.gpus) if gpu.healthy][:count]
            if machine.gpus == len(published.gpus) >= len(healthy):
                return machine, gpu_set(healthy)
            problem = f"it lists {len(published.gpus)} GPUs but links of {machine.gpus}"
        except (BadLinks, msgspec.MsgspecError) as error:
            problem = str(error)
        log.warning(
            "node %s: annotation %s is ignored (%s); its links are assumed to be unknown until the agent publishes it again",
            node.metadata.name,
            names.TOPOLOGY,
            problem,
        )
    return unknown_machine(count), gpu_set(range(count))
