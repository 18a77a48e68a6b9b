"""DLJobs and their pods as the operator reads them, told by the few fields that a test is about.

Jobs go through `job.decode`, pods through `manifests.pod`: what a test sees is what the operator would have seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from muster.api import names
from muster.api.status import TaskPlacement
from muster.kube.objects import Pod
from muster.scheduling.gang import Assigned, Placement
from muster.scheduling.topology.links import gpu_set
from muster_operator.dljob import manifests
from muster_operator.dljob.decoding import decode
from muster_operator.dljob.gang import tasks_of
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record

NOW = 1_800_000_000.0
"""Seconds since 1970 at which tests begin."""
BORN = NOW - 60
Json = dict[str, Any]


def time(seconds: float) -> str:
    """A time as the API server writes it."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def template(gpus: int = 2, **spec: Any) -> Json:
    """A pod template of one container that asks for GPUs; `spec` has further fields of the pod's spec."""
    resources = {"limits": {names.GPU: gpus}} if gpus else {}
    return {"spec": {"containers": [{"name": "train", "image": "torch", "resources": resources}], **spec}}


def roles(workers: int = 2, gpus: int = 2, **others: int) -> Json:
    """Roles of a job: workers with GPUs, and so many pods without of each of the others."""
    plain = {name: {"replicas": count, "template": template(0)} for name, count in others.items()}
    return {"worker": {"replicas": workers, "template": template(gpus)}, **plain}


def dljob(
    name: str = "vgg16",
    *,
    status: Json | None = None,
    annotations: Mapping[str, str] | None = None,
    metadata: Json | None = None,
    **spec: Any,
) -> Json:
    """A DLJob as JSON: two workers of two GPUs unless `roles` says otherwise."""
    meta = {
        "name": name,
        "namespace": "vision",
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": time(BORN),
        "annotations": dict(annotations or {}),
        **(metadata or {}),
    }
    return {"metadata": meta, "spec": {"roles": roles(), **spec}, "status": status}


def job(name: str = "vgg16", **fields: Any) -> Job:
    """The same, as the operator reads it."""
    found = decode(json.dumps(dljob(name, **fields)).encode())
    assert isinstance(found, Job), found.problem
    return found


def after(one: Job, change: Callable[[Record], object], at: float = NOW) -> Job:
    """The job once a change of its status is written."""
    record = Record(one, at)
    change(record)
    return replace(one, status=record.status)


def spots(one: Job, nodes: Iterable[str] = ("n1", "n2")) -> Placement:
    """A placement of the whole job, its pods in turn on these nodes."""
    taken: dict[str, int] = {}
    turn = list(nodes)
    placement = []
    for rank, task in enumerate(tasks_of(one)):
        node = turn[rank % len(turn)]
        first = taken.get(node, 0)
        taken[node] = first + task.gpus
        placement.append(Assigned(task, node, gpu_set(range(first, first + task.gpus)), rank))
    return tuple(placement)


def placed(one: Job, nodes: Iterable[str] = ("n1", "n2"), at: float = NOW) -> Job:
    """The job with a reservation on these nodes."""
    placement = spots(one, nodes)
    return after(one, lambda record: record.admit(placement, "Placed", "GPUs found"), at)


def started(one: Job, nodes: Iterable[str] = ("n1", "n2"), at: float = NOW) -> Job:
    """The job with a reservation, and all of it running."""
    return after(placed(one, nodes, at), Record.run, at)


def pod_json(
    one: Job, place: TaskPlacement, phase: str = "Running", *, bound: bool = True, made_of: Json | None = None, **status: Any
) -> Json:
    """The pod of a placed job as the API server has it, bound to its node unless it is not; of a plain template by default."""
    body = manifests.pod(one, place, one.status.placement, made_of or template(one.shapes[place.role].gpus))
    body["metadata"] |= {"uid": f"uid-{place.pod}-{one.status.attempt}", "creationTimestamp": time(NOW), "resourceVersion": "1"}
    if bound:
        body["spec"]["nodeName"] = place.node
    return body | {"status": {"phase": phase, **status}}


def pod_of(one: Job, place: TaskPlacement, phase: str = "Running", *, bound: bool = True, **status: Any) -> Pod:
    """The same, as the operator reads it."""
    return msgspec.convert(json.loads(json.dumps(pod_json(one, place, phase, bound=bound, **status))), Pod)


def pods_of(one: Job, phase: str = "Running", **fields: Any) -> dict[str, Pod]:
    """All pods of a placed job by name, in one phase."""
    return {place.pod: pod_of(one, place, phase, **fields) for place in one.status.placement}


def changed(pod: Pod, *, annotations: Mapping[str, str] | None = None, leaving: bool = False) -> Pod:
    """The pod with further annotations, or on its way out."""
    meta = pod.metadata
    more: Json = {"annotations": {**(meta.annotations or {}), **(annotations or {})}}
    if leaving:
        more["deletion_timestamp"] = datetime.fromtimestamp(NOW, UTC)
    return msgspec.structs.replace(pod, metadata=msgspec.structs.replace(meta, **more))


def condition(kind: str, status: str = "True", *, reason: str = "", message: str = "", since: float = NOW) -> Json:
    """A pod's condition."""
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time(since)}


def container(name: str = "train", **state: Any) -> Json:
    """A container's status, in one state: waiting={...} or terminated={...}."""
    return {"name": name, "state": state}
