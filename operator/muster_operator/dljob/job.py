"""A DLJob as the operator keeps it; and as the gang that the planner sees.

The models of muster.api read spec and status. Of the pod templates only the shape is kept: what a pod asks for, and of which
nodes. So a job takes the same memory however long its templates are; they are read again when pods are made (`templates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import ValidationError

from muster.allocation.pods import charge_of, constraint_of, gpus_of, resources_of
from muster.api import names
from muster.api.dljob import SpecOf
from muster.api.status import DLJobStatus, RoleName, TaskPlacement
from muster.kube import paths
from muster.kube.objects import DLJob, Meta, Pod, PodSpec, ReservationStatus, Reserved, Struct, decoder
from muster.scheduling.gang import Assigned, Gang, Placement, Sensitivity, Sharing, Task
from muster.scheduling.resource_quota import Charge
from muster.scheduling.topology.eligibility import ANYWHERE
from muster.scheduling.topology.links import MOST_GPUS, GpuSet, gpu_set, indices
from muster.scheduling.topology.node import Level
from muster_operator.dljob.resources import Priority
from muster_operator.resources import Resource
from muster_operator.timestamps import stamp

PLAIN = Priority()
"""The priority of a job where there is no PriorityClass."""
_LEVELS = {"Node": Level.NODE, "Rack": Level.RACK, "Block": Level.BLOCK, None: Level.CLUSTER}
MOST_BYTES = 128 << 10
"""Of all roles of a job, as JSON: room for a script or two, where templates have some thousand. Each pod is a copy of one."""
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
    flaw: str = ""
    """Why no pod can be made of its templates, as far as muster sees; shapes and charges say nothing then."""

    @property
    def metadata(self) -> Meta:
        """The metadata, as stores ask for it."""
        return self.meta

    @property
    def reserved(self) -> ReservationStatus:
        """What the status reserves, as the view asks for it."""
        entries = [Reserved(place.pod, place.node, place.gpus) for place in self.status.placement]
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
    def waits_for(self) -> str | None:
        """The reason for which the job was last said to wait."""
        return next((c.reason for c in self.status.conditions if c.type == "Admitted" and c.status == "False"), None)

    @property
    def replicas(self) -> dict[RoleName, int]:
        return self.spec.roles

    @property
    def gpus(self) -> int:
        return sum(self.shapes[role].gpus * count for role, count in self.replicas.items())


class _Template(Struct, frozen=True):
    spec: PodSpec


class _Size(Struct, frozen=True):
    replicas: int = 1


class _Role(Struct, frozen=True):
    template: _Template


R = TypeVar("R")


class _Roles(Struct, Generic[R], frozen=True):
    """The roles as the operator reads them, in the order in which the planner sees them."""

    worker: R
    chief: R | None = None
    ps: R | None = None
    evaluator: R | None = None

    def present(self) -> dict[RoleName, R]:
        roles: dict[RoleName, R | None] = {
            "chief": self.chief,
            "worker": self.worker,
            "ps": self.ps,
            "evaluator": self.evaluator,
        }
        return {name: role for name, role in roles.items() if role}


class _Object(msgspec.Struct):
    metadata: Meta
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"null")


_decode_object = decoder(_Object)
_decode_reserving = decoder(DLJob)
_decode_fields = decoder(dict[str, msgspec.Raw])
_decode_sizes = decoder(_Roles[_Size])
_decode_roles = decoder(_Roles[_Role])


def decode(body: bytes | msgspec.Raw) -> Job | Unreadable:
    """Decode a DLJob; raise MsgspecError where not even what it reserves can be read."""
    obj = _decode_object(body)
    try:
        status = DLJobStatus.model_validate_json(bytes(obj.status)) if bytes(obj.status) != b"null" else DLJobStatus()
        fields = _decode_fields(obj.spec)
        roles = fields.pop("roles", msgspec.Raw(b"null"))
        sizes = msgspec.json.encode({name: size.replicas for name, size in _decode_sizes(roles).present().items()})
        spec = Spec.model_validate_json(msgspec.json.encode(fields | {"roles": msgspec.Raw(sizes)}))
        return _short(_with_shapes(Job(obj.metadata, spec, status, {}, {}), roles))
    except (ValidationError, msgspec.MsgspecError, ValueError) as error:
        problem = f"DLJob {obj.metadata.key} cannot be read ({error}); is the CRD of this muster version installed?"
        return Unreadable(obj.metadata, _decode_reserving(body).reserved, problem)


def _with_shapes(job: Job, roles: msgspec.Raw) -> Job:
    """The job with what its pods ask for, or with what is wrong with its templates."""
    size = len(bytes(roles))
    if size > MOST_BYTES and not job.status.placement:
        return replace(job, flaw=f"its roles have {size} bytes, more than the {MOST_BYTES} that muster takes", **_nothing(job))
    try:
        pods = {name: Pod(Meta(name=""), role.template.spec) for name, role in _decode_roles(roles).present().items()}
        shapes = {name: _shape(name, pod) for name, pod in pods.items()}
        return replace(job, shapes=shapes, charges={name: charge_of(pod) for name, pod in pods.items()})
    except (msgspec.MsgspecError, ValueError) as error:
        return replace(job, flaw=f"a template of its roles is no pod template: {error}", **_nothing(job))


def _nothing(job: Job) -> dict[str, Any]:
    """Shapes and charges of pods that ask for nothing."""
    nothing = Pod(Meta(name=""), PodSpec())
    return {
        "shapes": {role: _shape(role, nothing) for role in job.replicas},
        "charges": {role: charge_of(nothing) for role in job.replicas},
    }


def _short(job: Job) -> Job:
    """Drop what only a plan asks about, constraints for one, where there is none: what changes that brings the JSON again."""
    if job.plannable:
        return job
    shapes = {role: replace(shape, where=ANYWHERE) for role, shape in job.shapes.items()}
    return replace(job, shapes=shapes, charges=dict.fromkeys(job.charges, Charge()))


DLJOBS: Resource[Job | Unreadable] = Resource(paths.MUSTER, "dljobs", decode)


def _shape(role: RoleName, pod: Pod) -> Task:
    return Task("", gpus_of(pod), resources_of(pod), constraint_of(pod.spec), role)


def tasks_of(job: Job) -> tuple[Task, ...]:
    """Return the pods that the job wants, as tasks."""
    return tuple(_task(job, role, index) for role, count in job.replicas.items() for index in range(count))


def _task(job: Job, role: RoleName, index: int) -> Task:
    shape = job.shapes[role]
    return Task(names.pod_name(job.meta.name, role, index), shape.gpus, shape.resources, shape.where, role, index)


def placement_of(job: Job) -> Placement:
    """Return the placement in the job's status, whether it fits the job or not (see `placement_check`); never raises."""
    return tuple(Assigned(_placed_task(job, place), place.node, _gpus(place), place.rank) for place in job.status.placement)


def _placed_task(job: Job, place: TaskPlacement) -> Task:
    if place.role in job.shapes:
        return _task(job, place.role, place.index)
    return Task(place.pod, len(place.gpus), role=place.role, index=place.index)


def _gpus(place: TaskPlacement) -> GpuSet:
    return gpu_set([gpu for gpu in place.gpus if 0 <= gpu < MOST_GPUS])


def written(placement: Placement) -> list[TaskPlacement]:
    """Return a placement as status.placement has it, by rank."""
    return [
        TaskPlacement(
            pod=place.task.name,
            role=place.task.role,  # type: ignore[arg-type]
            index=place.task.index,
            rank=place.rank,
            node=place.node,
            gpus=list(indices(place.gpus)),
        )
        for place in placement
    ]


def held_gang(job: Job) -> Gang | None:
    """Return what a job holds by its status alone, as a gang that stays as it is; None if it holds nothing."""
    placement = tuple(
        Assigned(Task(place.pod, len(place.gpus), role=place.role), place.node, _gpus(place), place.rank)
        for place in job.status.placement
    )
    namespace, tasks = job.meta.namespace or "", tuple(assigned.task for assigned in placement)
    return Gang(job.key, f"{namespace}/{job.spec.queue}", 0.0, tasks, namespace, placement=placement) if placement else None


def _classed(charge: Charge, job: Job, priority: Priority) -> Charge:
    """What a pod counts, under the PriorityClass that it will have."""
    return charge._replace(priority_class=job.spec.priority_class_name or charge.priority_class or priority.name)


def gang_of(job: Job, priority: Priority = PLAIN) -> Gang:
    """Return the gang that a job is to the planner. Against other namespaces only its PriorityClass counts."""
    spec, status, placement = job.spec, job.status, job.spec.placement
    leave = job.meta.annotation(names.MIGRATE)
    arrived = status.queued_at or job.meta.creation_timestamp
    return Gang(
        name=job.key,
        queue=f"{job.meta.namespace}/{spec.queue}",
        arrived=stamp(arrived),
        tasks=tasks_of(job),
        namespace=job.meta.namespace or "",
        priority=priority.value,
        local_priority=spec.priority,
        preempts=priority.preempts,
        missing="" if status.placement else priority.missing,
        charges=tuple((role, _classed(charge, job, priority)) for role, charge in job.charges.items()),
        placement=placement_of(job),
        spread=placement.policy == "Spread",
        required=_LEVELS[placement.required],
        preferred=_LEVELS[placement.preferred],
        sensitivity=Sensitivity(placement.sensitivity),
        fewest=spec.elastic.min_replicas if spec.elastic else None,
        not_before=stamp(status.not_before),
        started=stamp(status.started_at),
        preemptible=True,
        leave=leave.strip() if leave is not None else None,
        resize=job.is_resized,
        avoid=frozenset(status.avoid),
        sharing=Sharing(slices=spec.sharing.time_slicing),
        running=not status.placement or status.started_at is not None,
        since=stamp(status.started_at if status.placement else status.released_at or arrived),
        attained=status.gpu_seconds,
    )
