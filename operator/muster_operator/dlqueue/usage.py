"""DLQueues as the planner sees them, and what their gangs use of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from muster.kube import paths
from muster.kube.objects import DLQueue
from muster.scheduling.gang import Gang
from muster.scheduling.snapshot import Queue
from muster_operator.resources import Resource

DLQUEUES = Resource(paths.MUSTER, "dlqueues", DLQueue)


class _Spec(msgspec.Struct):
    gpus: int | None = None


_decode_spec = msgspec.json.Decoder(_Spec | None).decode


def quotas(queues: Iterable[DLQueue]) -> dict[str, Queue]:
    """Return the queues as the planner sees them, by "NAMESPACE/NAME"."""
    return {queue.metadata.key: Queue(queue.metadata.key, quota_of(queue)) for queue in queues}


def quota_of(queue: DLQueue) -> int | None:
    """Return the quota of a queue; of one that cannot be read 0, so that nothing more starts in it."""
    try:
        spec = _decode_spec(queue.spec)
    except msgspec.MsgspecError:
        return 0
    return spec.gpus if spec else None


def flaw_of(queue: DLQueue) -> str:
    """Return why the spec of a queue cannot be read; "" if it can."""
    try:
        _decode_spec(queue.spec)
    except msgspec.MsgspecError as error:
        return f"cannot be read, so no job of the queue starts: {error}"
    return ""


def status_of(queue: DLQueue, gangs: Sequence[Gang]) -> dict[str, Any]:
    """Return the status of a queue with these gangs."""
    placed = [gang for gang in gangs if gang.placement]
    return {
        "observedGeneration": queue.metadata.generation,
        "gpusInUse": sum(gang.held for gang in placed),
        "pending": len(gangs) - len(placed),
        "running": len(placed),
    }


def is_current(queue: DLQueue, status: dict[str, Any]) -> bool:
    """Return whether a queue's status says so already."""
    before = msgspec.json.decode(queue.status)
    return isinstance(before, dict) and all(before.get(key) == value for key, value in status.items())
