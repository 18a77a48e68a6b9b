"""DLQueues as the planner sees them, and what their gangs use of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from muster.allocation.unplanned import Unplanned
from muster.kube import paths
from muster.kube.objects import Meta, decoder
from muster.scheduling.decisions import Wait
from muster.scheduling.gang import Gang
from muster.scheduling.snapshot import Queue
from muster_operator.resources import Resource


@dataclass(frozen=True, slots=True)
class DLQueue:
    """What is kept of a DLQueue."""

    metadata: Meta
    quota: int | None
    """None for any number of GPUs."""
    status: Mapping[str, Any]
    """As it was written last."""
    flaw: str = ""
    """Why its spec cannot be read; then the quota is 0, so that nothing more starts in it."""


class _Object(msgspec.Struct):
    metadata: Meta
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: Any = None


class _Spec(msgspec.Struct):
    gpus: int | None = None


_decode_object = decoder(_Object)
_decode_spec = msgspec.json.Decoder(_Spec | None).decode


def decode(body: bytes | msgspec.Raw) -> DLQueue:
    """Decode a DLQueue; raise MsgspecError where not even its name can be read."""
    obj = _decode_object(body)
    status = obj.status if isinstance(obj.status, dict) else {}
    try:
        spec = _decode_spec(obj.spec)
    except msgspec.MsgspecError as error:
        return DLQueue(obj.metadata, 0, status, f"cannot be read, so no job of the queue starts: {error}")
    return DLQueue(obj.metadata, spec.gpus if spec else None, status)


DLQUEUES = Resource(paths.MUSTER, "dlqueues", decode)


def quotas(queues: Iterable[DLQueue], unplanned: Unplanned) -> dict[str, Queue]:
    """Return the queues as the planner sees them, by "NAMESPACE/NAME"."""
    keys = [(queue, queue.metadata.key) for queue in queues]
    others, stopping = (unplanned.by_queue(), unplanned.stopping_by_queue()) if keys else ({}, {})
    return {
        key: Queue(key, queue.quota, queue.metadata.namespace or "", others.get(key, 0), stopping.get(key, 0))
        for queue, key in keys
    }


def heads_of(waits: Iterable[Wait]) -> dict[str, Wait]:
    """Return the first gang that waits of each queue, and why; `waits` are in queue order."""
    heads: dict[str, Wait] = {}
    for wait in waits:
        if not wait.gang.placement:
            heads.setdefault(wait.gang.queue, wait)
    return heads


def status_of(queue: DLQueue, gangs: Sequence[Gang], others: int = 0, head: Wait | None = None) -> dict[str, Any]:
    """Return the status of a queue with these gangs, with the GPUs of pods that are no gang's, and with why its head waits."""
    placed = [gang for gang in gangs if gang.placement]
    return {
        "observedGeneration": queue.metadata.generation,
        "gpusInUse": sum(gang.held for gang in placed) + others,
        "pending": len(gangs) - len(placed),
        "running": len(placed),
        "message": queue.flaw or (f"{head.gang.name}: {head.message}" if head else ""),
    }


def news(queue: DLQueue, status: Mapping[str, Any]) -> set[str]:
    """Return the fields of which a queue's status says something else."""
    return {key for key, value in status.items() if queue.status.get(key, "" if key == "message" else None) != value}
