"""One node: its GPUs and their links, where it stands, what is free on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

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
    """One node. `healthy` are the GPUs that work, `free` those of them that nobody holds."""

    name: str
    machine: MachineType
    healthy: GpuSet
    free: GpuSet
    model: str = ""
    """What its GPUs are called ("P100"): a job runs equally fast on nodes of one model."""
    leaving: GpuSet = 0
    """GPUs that pods on their way out still hold: free soon, without anybody else having to go."""
    nic_gbps: float = 12.0
    """GB/s that its network cards carry together; where nobody says, those of one of 100 Gb/s."""
    resources: Resources = PLENTY
    """What is free beside GPUs; negative where pods of other schedulers took too much."""
    allocatable: Resources = PLENTY
    """What there is beside GPUs when nobody holds any of it."""
    rack: str = ""
    block: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    parts: Parts = ()
    """What is free of GPUs that tasks share; none of them is in `free`. Kubernetes' device plugins know no parts."""

    def domain(self, level: Level) -> str:
        """The name of the node, rack, block or cluster that this node is in."""
        if level is Level.CLUSTER:
            return ""
        return (self.name, f"{self.block}/{self.rack}", self.block)[level]
