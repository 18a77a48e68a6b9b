"""The cluster as a value: what the planner sees, and all that it sees.

The operator makes it from API objects, the simulator from its own state; neither does more than translate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from muster.scheduling.gang import Gang
from muster.scheduling.profile import Profile
from muster.scheduling.topology.node import Node


@dataclass(frozen=True, slots=True)
class Queue:
    """Gangs of one owner, with the GPUs that they may hold together; None is no limit."""

    name: str
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan depends on."""

    nodes: Mapping[str, Node]
    gangs: tuple[Gang, ...]
    queues: Mapping[str, Queue] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """What was measured of each kind of gang."""
    ended: tuple[float, ...] = ()
    """How long gangs that ended lately ran, in seconds on the GPUs that they asked for."""
