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
    specs = {queue.metadata.key: _decode_spec(queue.spec) for queue in queues}
    return {key: Queue(key, spec.gpus if spec else None) for key, spec in specs.items()}


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
    before = msgspec.json.decode(queue.status) or {}
    return all(before.get(key) == value for key, value in status.items())
