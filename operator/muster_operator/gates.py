"""Pods that muster did not create (of a Job, a JobSet, a PyTorchJob, or bare), held by the gate muster.dev/gang, as gangs.

A pod alone is a gang of one; pods of a namespace with the same label muster.dev/gang are one gang, whole when there are as
many as the annotation muster.dev/gang-size says. One patch a pod drops the gate and pins it. N patches are not atomic, so the
placement of a gang of several is first written to its first pod (muster.dev/reservation) and taken off again at the end: who
starts again in between reads it there and goes on.

Gates cannot be put back. A pod that was let go and cannot start is deleted, with the rest of its gang, and comes again gated:
its controller makes it anew, or muster where it has none (see `requeue`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec

from muster.allocation.pods import constraint_of, gpus_of, pinned_to, pod_holding, resources_of
from muster.api import names
from muster.kube.objects import Pod
from muster.scheduling.gang import Assigned, Gang, Placement, Task
from muster.scheduling.topology.links import gpu_set, indices
from muster_operator.jobs import stamp
from muster_operator.lifecycle import REFUSED_SECONDS
from muster_operator.manifests import pinned
from muster_operator.record import FIRST_BACKOFF, doubled
from muster_operator.templates import requeues


@dataclass(frozen=True, slots=True)
class PodGang:
    """A gang and its gated pods by name."""

    gang: Gang
    pods: Mapping[str, Pod]
    members: tuple[Pod, ...]
    """All its pods, those already let go included, by name."""


def is_external(pod: Pod) -> bool:
    """Whether a pod names our scheduler and is no DLJob's: the label that frees it from the gate binds it to a reservation."""
    return pod.spec.scheduler_name == names.SCHEDULER and pod.metadata.label(names.JOB) is None


def counts(pod: Pod) -> bool:
    """Whether a pod is still of interest: it has not ended, or a promise to others of its gang is written on it."""
    return not pod.finished or pod.metadata.annotation(names.RESERVATION) is not None


def gang_name(pod: Pod) -> str:
    label = pod.metadata.label(names.GANG)
    return f"{pod.metadata.namespace}/gang:{label}" if label else f"{pod.metadata.namespace}/pod:{pod.metadata.name}"


def gangs_of(pods: Iterable[Pod], away: Mapping[str, int] | None = None) -> list[PodGang]:
    """Group pods into the gangs that still have a gated pod; `away` is how many of each gang are to be created again."""
    groups: dict[str, list[Pod]] = {}
    for pod in pods:
        if is_external(pod) and counts(pod) and not pod.leaving:
            groups.setdefault(gang_name(pod), []).append(pod)
    return [
        _gang(name, members, (away or {}).get(name, 0))
        for name, members in sorted(groups.items())
        if any(pod.gated for pod in members)
    ]


def _gang(name: str, members: list[Pod], away: int) -> PodGang:
    members.sort(key=lambda pod: pod.metadata.name)
    gated = {pod.metadata.name: pod for pod in members if pod.gated}
    gang = Gang(
        name=name,
        queue=f"{members[0].metadata.namespace}/default",
        arrived=min(_arrived(pod) for pod in members),
        tasks=tuple(_task(pod) for pod in gated.values()),
        priority=max(pod.spec.priority or 0 for pod in members),
        absent=max(away, max(_size(pod) for pod in members) - len(members)),
        not_before=max(_not_before(pod) for pod in gated.values()),
    )
    return PodGang(gang, gated, tuple(members))


def placed_gang(pod: Pod) -> Gang | None:
    """Return the gang of one, by its own name, that a pod is which was let go and has not ended."""
    holding = None if pod.gated else pod_holding(pod)
    if holding is None:
        return None
    task = _task(pod)
    name, queue = f"{pod.metadata.namespace}/pod:{pod.metadata.name}", f"{pod.metadata.namespace}/default"
    return Gang(name, queue, 0.0, (task,), placement=(Assigned(task, holding.node, holding.gpus),))


def _task(pod: Pod) -> Task:
    return Task(pod.metadata.name, gpus_of(pod), resources_of(pod), constraint_of(pod.spec))


def _size(pod: Pod) -> int:
    text = pod.metadata.annotation(names.GANG_SIZE) or ""
    return int(text) if text.isdecimal() and len(text) < 7 and pod.metadata.label(names.GANG) else 1


def _arrived(pod: Pod) -> float:
    """When a pod first came. Users can write that too: it takes them no further than the priority they may choose."""
    created = stamp(pod.metadata.creation_timestamp)
    try:
        return min(created, datetime.fromisoformat(pod.metadata.annotation(names.QUEUED_AT) or "").timestamp())
    except (ValueError, OverflowError):
        return created


def _not_before(pod: Pod) -> float:
    times = requeues(pod.metadata.annotations or {})
    return stamp(pod.metadata.creation_timestamp) + doubled(FIRST_BACKOFF, times - 1) if times else 0.0


def reservation(found: PodGang) -> Placement | None:
    """Read the placement that was promised to a gang of several before its pods were let go; a text that is none is none.

    It counts once a pod was let go. Before that it would bind nobody but who asks to be placed past queue and quota: users
    can write annotations, but gates are dropped by the operator.
    """
    text = next((t for pod in found.members if (t := pod.metadata.annotation(names.RESERVATION))), None)
    if text is None or all(pod.gated for pod in found.members):
        return None
    try:
        entries = msgspec.json.decode(text, type=dict[str, _Entry])
    except msgspec.MsgspecError:
        return None
    tasks = {task.name: task for task in found.gang.tasks}
    return tuple(
        Assigned(tasks[name], entry.node, gpu_set(entry.gpus), entry.rank)
        for name, entry in entries.items()
        if name in tasks and tasks[name].gpus == len(set(entry.gpus))
    )


def fulfilled(pods: Collection[Pod]) -> list[Pod]:
    """Return the pods that still have a gang's placement written on them although every pod of it was let go."""
    waiting = {gang_name(pod) for pod in pods if pod.gated}
    return [pod for pod in pods if pod.metadata.annotation(names.RESERVATION) is not None and gang_name(pod) not in waiting]


class _Entry(msgspec.Struct):
    node: Annotated[str, msgspec.Meta(min_length=1)]
    gpus: list[Annotated[int, msgspec.Meta(ge=0, lt=100)]]
    rank: int


def reservation_text(placement: Placement) -> str:
    """Write a placement as the annotation muster.dev/reservation has it."""
    entries = {a.task.name: {"node": a.node, "gpus": indices(a.gpus), "rank": a.rank} for a in placement}
    return json.dumps(entries, sort_keys=True)


def release(pod: Pod, affinity: dict[str, Any] | None, place: Assigned) -> dict[str, Any]:
    """Return the one merge patch that drops the gate, pins the pod and tells it its GPUs; refused if the pod changed."""
    gates = [{"name": gate.name} for gate in pod.spec.scheduling_gates or () if gate.name != names.GATE]
    gpus = ",".join(map(str, indices(place.gpus)))
    return {
        "metadata": {
            "resourceVersion": pod.metadata.resource_version,
            "annotations": {names.RANK: str(place.rank), names.GPUS: gpus or None, names.WAITING: None},
        },
        "spec": {"schedulingGates": gates, "affinity": pinned(affinity, place.node)},
    }


def stranded(pod: Pod, alive: Callable[[str], bool], now: float) -> tuple[bool, float | None]:
    """Say whether a pod that was let go cannot start where it is pinned, and else when to look again."""
    if not is_external(pod) or pod.gated or pod.finished or pod.leaving or pod.spec.node_name:
        return False, None
    node = pinned_to(pod.spec)
    if node is None or not pod.metadata.annotation(names.GPUS):
        return False, None
    refused = pod.condition("PodScheduled")
    if alive(node) and not pod.refused:
        return False, None
    until = stamp(refused.last_transition_time if refused else pod.metadata.creation_timestamp) + REFUSED_SECONDS
    return until <= now, until if until > now else None
