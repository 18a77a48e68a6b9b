"""A DLJob as the gang that the planner sees, and a gang's placement as the status has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from muster.allocation.reservations import Reserving
from muster.api import names
from muster.api.status import DLJobStatus, RoleName, TaskPlacement
from muster.kube.objects import Pod
from muster.scheduling.gang import Assigned, Gang, Placement, Sensitivity, Sharing, Task
from muster.scheduling.relations import Relations
from muster.scheduling.resource_quota import Charge
from muster.scheduling.resources import NOTHING, Resources
from muster.scheduling.topology.links import MOST_GPUS, GpuSet, gpu_set, indices
from muster.scheduling.topology.node import Level
from muster_operator.defaults import Defaults
from muster_operator.dljob.completion import completed_shape
from muster_operator.dljob.job import Job
from muster_operator.dljob.manifests import has_service
from muster_operator.dljob.rendezvous import outlives_change
from muster_operator.dljob.resources import Priorities, Priority
from muster_operator.storage.storage import NO_STORAGE, GangStorage, PodsOfOneKind
from muster_operator.timestamps import stamp

FAILS_THERE = 2
"""Failures of the program on one node from which on another is preferred: once may be chance."""
NOTES = frozenset({"ChangePending", "ChangeWithdrawn"})
"""Events of a timeline that change nothing of a job."""
PLAIN = Priority()
"""The priority of a job where there is no PriorityClass."""
_LEVELS = {"Node": Level.NODE, "Rack": Level.RACK, "Block": Level.BLOCK, None: Level.CLUSTER}


def tasks_of(job: Job) -> tuple[Task, ...]:
    """Return the pods that the job wants, as tasks."""
    return tuple(_task(job, role, index) for role, count in job.replicas.items() for index in range(count))


def _tasks_left(job: Job) -> tuple[Task, ...]:
    """Return the tasks of a gang as it is to go on: without those that have ended, where a change starts only some anew."""
    over = {place.pod for place in job.status.placement if place.ended and outlives_change(job, place.role)}
    return tuple(task for task in tasks_of(job) if task.name not in over)


def _task(job: Job, role: RoleName, index: int) -> Task:
    shape = job.shapes[role]
    name = names.pod_name(job.meta.name, role, index)
    return Task(name, shape.gpus, shape.resources, shape.where, role, index, relations=_relations(shape, index))


def _relations(shape: Task, index: int) -> Relations:
    """What all pods of a role are to rules; with the index of each only where the role's own rules ask for it."""
    relations = shape.relations
    if any(each.key == names.INDEX for rule in relations.rules for each in rule.selector or ()):
        return relations._replace(labels=tuple(sorted([*relations.labels, (names.INDEX, str(index))])))
    return relations


def resources_of(defaults: Defaults, job: Reserving, role: str) -> Resources:
    """Return what a pod of a job takes besides GPUs: a gang has it from its placement on, before there are pods."""
    shape = completed_shape(job, role, defaults.of(job.meta.namespace)) if isinstance(job, Job) else None
    return shape.resources if shape is not None else NOTHING


def placement_of(job: Job) -> Placement:
    """Return the placement in the job's status, whether it fits the job or not (see `placement_check`); never raises."""
    holding = (place for place in job.status.placement if not place.ended)
    return tuple(Assigned(_placed_task(job, place), place.node, _gpus(place), place.rank) for place in holding)


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
    return charge._replace(priority_class=job.spec.priority_class_name or charge.priority_class or priority.default)


def priority_of(job: Job, classes: Priorities, pods: Iterable[Pod]) -> Priority:
    """Return the lowest priority of the gang's pods, so that no pod lends its own to the others.

    A pod that exists has what it was admitted with, whatever has become of its class since.
    """
    named = job.spec.priority_class_name
    priority = classes.lowest({named} if named else {charge.priority_class for charge in job.charges.values()})
    placed = {place.pod for place in job.status.placement}
    admitted = [
        (pod.spec.priority, pod.spec.preemption_policy != "Never")
        for pod in pods
        if pod.metadata.name in placed and pod.spec.priority is not None
    ]
    if not admitted:
        return priority
    value, preempts = min(admitted)
    return priority._replace(value=value, preempts=preempts)


def _fails_on(status: DLJobStatus) -> set[str]:
    """The nodes on which the program fails."""
    return {each.node for each in status.failures if each.times >= FAILS_THERE}


def kinds_of_pods(job: Job) -> dict[str, PodsOfOneKind]:
    """Return the roles whose pods use claims."""
    return {role: PodsOfOneKind(uses, job.replicas[role]) for role, uses in job.volumes}


def _with_volumes(job: Job, storage: GangStorage) -> Job:
    """The job with what its volumes ask of the nodes of its pods."""
    shapes = {
        role: replace(shape, where=shape.where._replace(volumes=where)) if (where := storage.of(role)) else shape
        for role, shape in job.shapes.items()
    }
    return replace(job, shapes=shapes)


def keeps_turn(job: Job) -> bool:
    """Say whether a job that ran was requeued by nobody's fault (a drain, say), for the first time in a row."""
    events = [past.event for past in job.status.timeline if past.event not in NOTES]
    return job.status.phase == "Queued" and events[-2:] == ["Running", "Requeued"]


def gang_of(job: Job, priority: Priority = PLAIN, storage: GangStorage = NO_STORAGE, *, stopping: bool = False) -> Gang:
    """Return the gang that a job is to the planner. Against other namespaces only its PriorityClass counts.

    `stopping`: pods of an earlier placement have not ended yet.
    """
    job = _with_volumes(job, storage) if storage.where else job
    spec, status, placement = job.spec, job.status, job.spec.placement
    leave = job.meta.annotation(names.MIGRATE)
    arrived = status.queued_at or job.meta.creation_timestamp
    return Gang(
        name=job.key,
        queue=f"{job.meta.namespace}/{spec.queue}",
        arrived=stamp(arrived),
        tasks=_tasks_left(job),
        namespace=job.meta.namespace or "",
        priority=priority.value,
        local_priority=spec.priority,
        preempts=priority.preempts,
        start_failed=status.failed_start is not None,
        missing="" if status.placement else priority.missing or storage.missing,
        charges=tuple((role, _classed(charge, job, priority)) for role, charge in job.charges.items()),
        service=has_service(job),
        placement=placement_of(job),
        spread=placement.policy == "Spread",
        required=_LEVELS[placement.required],
        preferred=_LEVELS[placement.preferred],
        sensitivity=Sensitivity(placement.sensitivity),
        fewest=spec.elastic.min_replicas if spec.elastic else None,
        not_before=stamp(status.not_before),
        stopping=stopping,
        keeps_turn=keeps_turn(job),
        started=stamp(status.started_at),
        preemptible=True,
        leave=leave.strip() if leave is not None else None,
        resize=job.is_resized,
        avoid=job.lessons.avoid.union(status.avoid, _fails_on(status)),
        refused=job.lessons.refused,
        sharing=Sharing(slices=spec.sharing.time_slicing),
        running=not status.placement or status.started_at is not None,
        since=stamp(status.started_at if status.placement else status.released_at or arrived),
        attained=status.gpu_seconds,
    )
