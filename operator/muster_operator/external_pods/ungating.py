"""Ungating: the patch that removes a pod's gate and pins it, and what makes many such patches safe.

N patches are not atomic. So the placement of a gang of several pods is first written to its first pod (muster.dev/reservation)
and removed at the end: an operator that restarts in between reads it there and goes on.

Gates cannot be put back. An ungated pod that cannot start is deleted with the rest of its gang, and comes back gated: its
controller creates it again, or muster does for a bare pod (see `requeue`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Annotated, Any

import msgspec

from muster.allocation.pods import pinned_to
from muster.api import names
from muster.kube.objects import Pod
from muster.scheduling.gang import Assigned, Placement
from muster.scheduling.topology.links import gpu_set, indices
from muster_operator.external_pods.gangs import PodGang, gang_name, is_external, is_over
from muster_operator.pinning import UNSCHEDULABLE_SECONDS, pinned
from muster_operator.pod_faults import is_refused, is_rejected, start_fault
from muster_operator.timestamps import stamp


class _Entry(msgspec.Struct):
    node: Annotated[str, msgspec.Meta(min_length=1)]
    gpus: list[Annotated[int, msgspec.Meta(ge=0, lt=100)]]
    rank: int


def reservation(gang: PodGang) -> Placement | None:
    """Return the placement that was reserved for a gang before its first pod was ungated; unreadable text counts as none.

    A reservation counts only once a pod is ungated. Users can write annotations, but only the operator removes gates: so no
    user can write a gang past its queue and quota.
    """
    text = next((t for pod in gang.members if (t := pod.metadata.annotation(names.RESERVATION))), None)
    entries = _entries(text)
    if entries is None or all(pod.gated for pod in gang.members):
        return None
    tasks = {task.name: task for task in gang.gang.tasks}
    return tuple(
        Assigned(tasks[name], entry.node, gpu_set(entry.gpus), entry.rank)
        for name, entry in entries.items()
        if name in tasks and tasks[name].gpus == len(set(entry.gpus))
    )


def _entries(text: str | None) -> dict[str, _Entry] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, _Entry]) if text else None
    except msgspec.MsgspecError:
        return None


def reservation_text(placement: Placement) -> str:
    """Return a placement as the annotation muster.dev/reservation has it."""
    entries = {a.task.name: {"node": a.node, "gpus": indices(a.gpus), "rank": a.rank} for a in placement}
    return json.dumps(entries, sort_keys=True)


def fulfilled(pods: Collection[Pod]) -> list[Pod]:
    """Return the pods that still carry a gang's reservation although every pod of the gang is ungated."""
    waiting = {gang_name(pod) for pod in pods if pod.gated}
    return [pod for pod in pods if pod.metadata.annotation(names.RESERVATION) is not None and gang_name(pod) not in waiting]


def misplaced(pods: Collection[Pod]) -> list[Pod]:
    """Return the pods that are not where they were placed: bound to another node than their pin, or not as reserved.

    Two operators of which one was stopped, and did not know, could ungate pods of one gang by two placements.
    """
    reserved: dict[tuple[str, str], _Entry] = {}
    for pod in pods:
        entries = _entries(pod.metadata.annotation(names.RESERVATION)) or {}
        reserved |= {(gang_name(pod), name): entry for name, entry in entries.items()}
    return [pod for pod in pods if _is_misplaced(pod, reserved.get((gang_name(pod), pod.metadata.name)))]


def _is_misplaced(pod: Pod, entry: _Entry | None) -> bool:
    pin, gpus = pinned_to(pod.spec), pod.metadata.annotation(names.GPUS)
    if not is_external(pod) or pod.gated or pod.finished or pod.leaving or pin is None or not gpus:
        return False
    node = pod.spec.node_name or pin
    return node != pin or (entry is not None and (node, gpus) != (entry.node, ",".join(map(str, sorted(entry.gpus)))))


def ungating_patch(pod: Pod, affinity: dict[str, Any] | None, assigned: Assigned) -> dict[str, Any]:
    """Return the one merge patch that ungates and pins a pod and names its GPUs."""
    gates = [{"name": gate.name} for gate in pod.spec.scheduling_gates or () if gate.name != names.GATE]
    gpus = ",".join(map(str, indices(assigned.gpus)))
    return {
        "metadata": {"annotations": {names.RANK: str(assigned.rank), names.GPUS: gpus or None, names.WAITING: None}},
        "spec": {"schedulingGates": gates, "affinity": pinned(affinity, assigned.node)},
    }


def stranded(pod: Pod, alive: Callable[[str], bool], now: float) -> tuple[bool, float | None]:
    """Return whether an ungated pod cannot start on its node; and if that is not certain yet, when to check again.

    Once it is bound, that is its gang's matter: a pod alone holds nobody up while it waits for its image, until its deadline.
    """
    if not is_external(pod) or pod.gated or is_over(pod) or pod.leaving or not pod.metadata.annotation(names.RANK):
        return False, None
    if is_rejected(pod):
        return True, None
    if pod.spec.node_name:
        return bool(pod.metadata.label(names.GANG) and start_fault(pod)), None
    node = pinned_to(pod.spec)
    if node is None:
        return False, None
    scheduled = pod.condition("PodScheduled")
    if alive(node) and not is_refused(pod):
        return False, None
    since = scheduled.last_transition_time if scheduled else pod.metadata.creation_timestamp
    until = stamp(since) + UNSCHEDULABLE_SECONDS
    return until <= now, until if until > now else None
