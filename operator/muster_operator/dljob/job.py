"""A DLJob as the operator keeps it.

The models of muster.api read spec and status. Of the pod templates only the shape is kept: what a pod asks for, and of which
nodes. So a job takes the same memory however long its templates are; they are read again when pods are made (`templates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from muster.api import names
from muster.api.dljob import SpecOf
from muster.api.status import DLJobStatus, RoleName
from muster.kube.objects import Meta, ReservationStatus, Reserved
from muster.scheduling.gang import Task
from muster.scheduling.resource_quota import Charge
from muster_operator.lessons import Lessons
from muster_operator.storage.needs import Uses

Spec = SpecOf[dict[RoleName, int]]
"""The spec of a DLJob with the number of pods of each role in place of the roles."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A DLJob that this version of the operator cannot read: the CRD in the cluster is of another version."""

    metadata: Meta
    reserved: ReservationStatus
    problem: str


@dataclass(frozen=True, slots=True)
class Job:
    """A DLJob. `shapes` has what one pod of each role asks for."""

    meta: Meta
    spec: Spec
    status: DLJobStatus
    shapes: Mapping[RoleName, Task]
    charges: Mapping[RoleName, Charge]
    """What one pod of each role counts in the resource quotas of its namespace."""
    packed: Mapping[RoleName, bytes] = field(default_factory=dict)
    """That of each template from which shapes and charges follow once admission plugins have added theirs; see `completion`."""
    host_network: frozenset[RoleName] = frozenset()
    """The roles whose pods use the network of their node."""
    volumes: tuple[tuple[RoleName, Uses], ...] = ()
    """The roles whose pods use claims, with these."""
    flaw: str = ""
    """Why no pod can be made of its templates, as far as muster sees; shapes and charges say nothing then."""

    @property
    def metadata(self) -> Meta:
        """The metadata, as stores ask for it."""
        return self.meta

    @property
    def reserved(self) -> ReservationStatus:
        """What the status reserves, as the view asks for it."""
        holding = (place for place in self.status.placement if not place.ended)
        entries = [Reserved(place.pod, place.node, place.gpus, place.role) for place in holding]
        return ReservationStatus(self.status.attempt, entries)

    @property
    def key(self) -> str:
        return self.meta.key

    @property
    def finished(self) -> bool:
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def suspended(self) -> bool:
        """Whether the user wants the job off its GPUs: the annotation says so, or the field where there is none."""
        asked = self.meta.annotation(names.SUSPEND)
        return asked == "true" if asked in ("true", "false") else self.spec.suspend

    @property
    def migrates(self) -> bool:
        """Whether the user wants the job moved."""
        return self.meta.annotation(names.MIGRATE) is not None

    @property
    def is_resized(self) -> bool:
        """Whether the user has scaled the job since its placement was made."""
        return bool(self.status.placement) and self.status.wanted_replicas not in (None, self.replicas["worker"])

    @property
    def has_wishes(self) -> bool:
        """Whether the user wants a job that holds GPUs moved or resized."""
        return bool(self.status.placement) and (self.migrates or self.is_resized)

    @property
    def plannable(self) -> bool:
        """Whether the job by itself is a matter for the planner: it holds GPUs, or wants some."""
        if self.finished or self.meta.deletion_timestamp is not None:
            return False
        return bool(self.status.placement) or not (self.suspended or self.status.phase in ("Suspending", "Suspended"))

    @property
    def lessons(self) -> Lessons:
        """What earlier starts have taught."""
        return Lessons(tuple(self.status.refusals), self.status.failed_start)

    @property
    def waits_for(self) -> str | None:
        """The reason for which the job was last said to wait."""
        return next((c.reason for c in self.status.conditions if c.type == "Admitted" and c.status == "False"), None)

    @property
    def replicas(self) -> dict[RoleName, int]:
        return self.spec.roles

    @property
    def gpus(self) -> int:
        return sum(self.shapes[role].gpus * count for role, count in self.replicas.items())
