"""The cluster as a value: all that the planner sees.

The operator translates API objects into a snapshot, the simulator its own state; neither does more than translate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from muster.scheduling.gang import Gang
from muster.scheduling.profile import Profile
from muster.scheduling.residents import Bystanders
from muster.scheduling.resource_quota import ResourceQuota
from muster.scheduling.topology.node import Node, Unusable


@dataclass(frozen=True, slots=True)
class Queue:
    """The gangs of one owner, with the GPUs that they may hold together; None means no limit."""

    name: str
    quota: int | None = None
    namespace: str = ""
    """Whose it is; where a namespace has queues, its gangs need one that exists."""
    others: int = 0
    """GPUs of its pods that are no gang's, since no plan gave them any: they count as held."""
    stopping: int = 0
    """GPUs of pods on their way out that are no gang's any more: they count as held until the pods have gone."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan depends on."""

    nodes: Mapping[str, Node]
    gangs: tuple[Gang, ...]
    queues: Mapping[str, Queue] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """The measurements of each kind of gang, or of one gang."""
    ended: tuple[float, ...] = ()
    """The running times of gangs that ended lately, in seconds on the GPUs that they asked for."""
    resource_quotas: tuple[ResourceQuota, ...] = ()
    bystanders: Bystanders = field(default_factory=dict)
    """Bound pods by node; those that are tasks of gangs may be among them."""
    unusable: Mapping[str, Unusable] = field(default_factory=dict)
    """The nodes that take no pods: nothing is planned onto them, but reasons and rules between pods count them."""
