"""One node: its GPUs and their links, its rack and block, its free capacity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from muster.scheduling.resources import PLENTY, Parts, Resources
from muster.scheduling.topology.eligibility import Taint
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.machine import MachineType


class Level(IntEnum):
    """How far the tasks of a gang may be from each other, nearest first."""

    NODE = 0
    RACK = 1
    BLOCK = 2
    CLUSTER = 3


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `healthy` is the set of working GPUs, `free` its subset that no task holds."""

    name: str
    machine: MachineType
    healthy: GpuSet
    free: GpuSet
    model: str = ""
    """The model of its GPUs ("P100"): a job runs equally fast on nodes of one model."""
    leaving: GpuSet = 0
    """GPUs of pods that are terminating: soon free, with no need for a preemption."""
    nic_gbps: float = 12.0
    """GB/s of its network cards together; by default those of one card of 100 Gb/s."""
    resources: Resources = PLENTY
    """Free resources; negative where pods of other schedulers took too much."""
    allocatable: Resources = PLENTY
    """The resources of the empty node."""
    rack: str = ""
    block: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    parts: Parts = ()
    """The free parts of shared GPUs, none of which is in `free`. Kubernetes' device plugins know no parts."""

    def domain(self, level: Level) -> str:
        """Return the name of the node, rack, block or cluster that this node is in.

        A node outside every rack shares its rack with no other node, one outside every block only with those of its rack.
        """
        if level is Level.CLUSTER:
            return ""
        if level is Level.NODE:
            return self.name
        if level is Level.BLOCK and self.block:
            return self.block
        return f"{self.block}/{self.rack}" if self.rack else f"//{self.name}"  # a label of Kubernetes has no slash

    def is_outside(self, level: Level) -> bool:
        """Say whether it has no label that names its rack, or its block."""
        return (level is Level.RACK and not self.rack) or (level is Level.BLOCK and not self.block)


class Unusable(NamedTuple):
    """A node that takes no pods."""

    node: Node
    why: str
    """In words that say it of several nodes: "are cordoned"."""
