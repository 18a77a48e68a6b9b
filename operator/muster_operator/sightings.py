"""Since when this operator has seen pods, and seen them refused by kube-scheduler, by its own clock.

The API server's and kube-scheduler's times are by the clocks of other hosts, which may be minutes off: how long something has
lasted is counted from when it was seen here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from muster.kube.objects import Pod
from muster_operator.stores import Stores
from muster_operator.work_queue import WorkQueue


class _Sighting(NamedTuple):
    uid: str
    first: float
    refused: float | None


class Sightings:
    """Pods that are not bound yet, as the store brings them."""

    def __init__(self, stores: Stores, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        self._seen: dict[str, _Sighting] = {}
        for pod in stores.view.pods.values():
            self._changed(None, pod)
        stores.view.pods.subscribe(self._changed)

    def dated(self, pod: Pod) -> Pod:
        """Return a pod with the times at which it was first seen, and seen refused, in place of those by other clocks."""
        seen = self._known(pod)
        if seen is None:
            return pod
        first = msgspec.structs.replace(pod.metadata, creation_timestamp=self._date(seen.first))
        since = self._date(seen.first if seen.refused is None else seen.refused)
        conditions = [
            msgspec.structs.replace(each, last_transition_time=since) if each.type == "PodScheduled" else each
            for each in pod.status.conditions or ()
        ]
        return msgspec.structs.replace(pod, metadata=first, status=msgspec.structs.replace(pod.status, conditions=conditions))

    def lapse(self, pod: Pod, seconds: float) -> float:
        """Return when a pod will have been seen for so long, by the clock that dates; 0 if it has been, or is not known.

        To a tenth of a second: the two clocks never differ by quite the same, and while nothing changes the date is to stay.
        """
        seen = self._known(pod)
        if seen is None or seen.first + seconds <= self._work_queue.pace():
            return 0.0
        return round(self._date(seen.first + seconds).timestamp(), 1)

    def _known(self, pod: Pod) -> _Sighting | None:
        seen = self._seen.get(pod.metadata.key)
        return seen if seen is not None and seen.uid == pod.metadata.uid else None

    def _date(self, pace: float) -> datetime:
        """A time of the clock that paces as one of the clock that dates."""
        return datetime.fromtimestamp(self._work_queue.clock() - (self._work_queue.pace() - pace), UTC)

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or new.spec.node_name or new.finished:
            gone = new or old
            if gone is not None:
                self._seen.pop(gone.metadata.key, None)
            return
        pace, before = self._work_queue.pace(), self._seen.get(new.metadata.key)
        if before is None or before.uid != new.metadata.uid:
            before = _Sighting(new.metadata.uid, pace, None)
        refused = (pace if before.refused is None else before.refused) if new.refused else None
        self._seen[new.metadata.key] = before._replace(refused=refused)
