"""External pods as gangs.

A pod alone is a gang of one. Pods of a namespace with the same label muster.dev/gang are one gang, complete when there are as
many as the annotation muster.dev/gang-size says, those that have done their part included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from muster.allocation.pods import constraint_of, gpus_of, resources_of, stated_holding
from muster.allocation.relations import relations_of
from muster.allocation.trust import PLANNED
from muster.allocation.unplanned import queue_of
from muster.api import names, texts
from muster.kube.objects import Pod
from muster.scheduling.gang import Assigned, Gang, Task
from muster_operator.backoff import FIRST_BACKOFF, doubled
from muster_operator.external_pods import failed_starts
from muster_operator.external_pods.membership import size_of
from muster_operator.external_pods.templates import requeues
from muster_operator.lessons import NOTHING_LEARNT, Lessons
from muster_operator.pod_faults import is_rejected
from muster_operator.storage.needs import uses_of
from muster_operator.storage.storage import NO_STORAGE, GangStorage, PodsOfOneKind
from muster_operator.timestamps import stamp


@dataclass(frozen=True, slots=True)
class PodGang:
    """A gang and its gated pods by name."""

    gang: Gang
    pods: Mapping[str, Pod]
    members: tuple[Pod, ...]
    """All its pods by name, those that are ungated already included."""


def is_external(pod: Pod) -> bool:
    """Return whether a pod names our scheduler and is not a DLJob's.

    The label of DLJobs' pods frees a pod from the gate; in return the extender binds it to a reservation.
    """
    return pod.spec.scheduler_name == names.SCHEDULER and pod.metadata.label(names.JOB) is None


def is_over(pod: Pod) -> bool:
    """Return whether a pod has finished, and comes again by its controller or not at all.

    A bare pod that its kubelet rejected has never run: muster had placed it there, and queues it again.
    """
    return pod.finished and not (is_rejected(pod) and pod.metadata.controller is None)


def counts(pod: Pod) -> bool:
    """Return whether a pod still matters: it is not over, or it carries the reservation of its gang."""
    return not is_over(pod) or pod.metadata.annotation(names.RESERVATION) is not None


def back_off(pod: Pod) -> float:
    """Return for how many seconds a pod that was requeued is not planned; 0 for one that was not."""
    times = requeues(pod.metadata.annotations or {})
    return doubled(FIRST_BACKOFF, times - 1) if times else 0.0


def gang_name(pod: Pod) -> str:
    """Return the name of the gang that a pod belongs to."""
    label = pod.metadata.label(names.GANG)
    return f"{pod.metadata.namespace}/gang:{label}" if label else f"{pod.metadata.namespace}/pod:{pod.metadata.name}"


def grouped(pods: Iterable[Pod]) -> dict[str, tuple[Pod, ...]]:
    """Return the pods of each gang that still has a gated one, by gang and by name."""
    groups: dict[str, list[Pod]] = {}
    for pod in pods:
        if is_external(pod) and counts(pod) and not pod.leaving:
            groups.setdefault(gang_name(pod), []).append(pod)
    return {
        name: tuple(sorted(members, key=lambda pod: pod.metadata.name))
        for name, members in sorted(groups.items())
        if any(pod.gated for pod in members)
    }


def gangs_of(pods: Iterable[Pod], away: Mapping[str, int] | None = None, *, vouched: bool = True) -> list[PodGang]:
    """Return the gangs that still have a gated pod; `away` has how many pods of each gang are yet to be created again."""
    return [pod_gang(name, members, (away or {}).get(name, 0), vouched=vouched) for name, members in grouped(pods).items()]


def pod_gang(
    name: str,
    members: Sequence[Pod],
    away: int = 0,
    done: int = 0,
    unplannable: str = "",
    not_before: float = 0.0,
    lessons: Lessons = NOTHING_LEARNT,
    storage: GangStorage = NO_STORAGE,
    *,
    vouched: bool = True,
) -> PodGang:
    """Return a gang from its pods; `away` are yet to be created again, `done` have ended and do not come again.

    `unplannable` is the sentence about what keeps it from being planned at all; `not_before` the date of our clock at which its
    back-off ends; `vouched`: nobody but muster can have written the first arrival of its pods. `lessons` are what its earlier
    starts have taught, `storage` is what its volumes need.
    """
    gated = {pod.metadata.name: pod for pod in members if pod.gated}
    gang = Gang(
        name=name,
        queue=queue_of(members[0]),
        arrived=min(_arrived(pod, vouched) for pod in members),
        tasks=tuple(_task(pod, storage) for pod in gated.values()),
        namespace=members[0].metadata.namespace or "",
        priority=max(pod.spec.priority or 0 for pod in members),
        preempts=all(pod.spec.preemption_policy != "Never" for pod in members),
        start_failed=lessons.failed is not None,
        absent=max(away, max(_size(pod) for pod in members) - len(members) - done),
        not_before=not_before,
        missing=storage.missing,
        unplannable=unplannable or failed_starts.set_aside(lessons),
        avoid=lessons.avoid,
        refused=lessons.refused,
    )
    return PodGang(gang, gated, tuple(members))


def with_first(gang: PodGang, first: Pod) -> PodGang:
    """Return a gang whose first pod was changed by a write."""
    name = first.metadata.name
    pods = {**gang.pods, name: first} if name in gang.pods else gang.pods
    return replace(gang, pods=pods, members=(first, *gang.members[1:]))


def placed_gang(pod: Pod) -> Gang | None:
    """Return an ungated pod as a gang of one that holds what the pod says; None for a pod that says nothing.

    Its queue's quota counts that, whether the cluster does or not: a pod that comes to it later was planned within the quota.
    """
    holding = None if pod.gated else stated_holding(pod, PLANNED)
    if holding is None:
        return None
    task = _task(pod)
    namespace = pod.metadata.namespace or ""
    name = f"{namespace}/pod:{pod.metadata.name}"
    return Gang(name, queue_of(pod), 0.0, (task,), namespace, placement=(Assigned(task, holding.node, holding.gpus),))


def _task(pod: Pod, storage: GangStorage = NO_STORAGE) -> Task:
    where = constraint_of(pod.spec)._replace(volumes=storage.of(pod.metadata.name))
    return Task(pod.metadata.name, gpus_of(pod), resources_of(pod), where, relations=relations_of(pod))


def kinds_of_pods(pods: Iterable[Pod]) -> dict[str, PodsOfOneKind]:
    """Return the pods that are still to get a node and use claims, each by itself, since each may use others."""
    using = (pod for pod in pods if pod.gated and pod.spec.volumes)
    return {pod.metadata.name: PodsOfOneKind(uses_of(pod.spec, pod.metadata.name)) for pod in using}


def _size(pod: Pod) -> int:
    return size_of(pod) or 1 if pod.metadata.label(names.GANG) else 1


def _arrived(pod: Pod, vouched: bool) -> float:
    """When a pod first arrived: a requeued one keeps its place, where nobody else can have given it that."""
    created = stamp(pod.metadata.creation_timestamp)
    queued = texts.time(pod.metadata.annotation(names.QUEUED_AT)) if vouched else None
    return created if queued is None else min(created, queued)
