"""Tell people what happened to their objects, as core/v1 Events that `kubectl describe` shows.

Events are a courtesy: recording one never blocks and never raises, the queue is bounded, what does not fit or cannot be
posted is dropped and counted. The same words about the same object within the window are posted once, and posts are paced,
so that events do not compete with the writes that matter. core/v1 rather than events.k8s.io/v1: old kubectl dates it right.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import KubeError

log: Final = logging.getLogger(__name__)

NAMESPACE_SHARE: Final = 4
"""One namespace takes at most this part of the queue: the objects of one user, however many, silence no other's."""
LONGEST_MESSAGE: Final = 1024
"""Characters; the limit of the API for an Event's message."""

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Reference:
    """The object that an event is about; `namespace` is "" if it has none."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


class Recorder:
    """Post events about objects; run `run()` as a task. `dropped` and `posted` count events."""

    def __init__(
        self,
        client: Client,
        component: str,
        instance: str = "",
        *,
        window_seconds: float = 300.0,
        queue: int = 1000,
        per_second: float = 50.0,
        now: Callable[[], float] = time.time,
        pace: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` dates what is posted, and may be set back; the window counts by `pace`, which never is."""
        self.posted = self.dropped = 0
        self._client = client
        self._source = {"component": component, "host": instance}
        self._window = window_seconds
        self._pause = 1.0 / per_second
        self._now, self._pace = now, pace
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(queue)
        self._share = max(1, queue // NAMESPACE_SHARE)
        self._queued: Counter[str] = Counter()
        """The events in the queue by namespace."""
        self._said: dict[tuple[Reference, str, str, datetime | None], float] = {}

    def event(self, about: Reference, type: EventType, reason: str, message: str, occurrence: datetime | None = None) -> None:
        """Queue an event, unless the same reason and message were posted about the object within the window; never raises.

        The same words about another `occurrence` are another event: a job that is preempted twice is told so twice.
        """
        pace = self._pace()
        said = (about, reason, message, occurrence)
        if said in self._said and pace - self._said[said] < self._window:
            return
        namespace = about.namespace or "default"
        body = _body(about, type, reason, message, self._source, namespace, self._now())
        if self._queue.full() or self._queued[namespace] >= self._share:
            self.dropped += 1
            return
        self._queue.put_nowait((namespace, body))
        self._queued[namespace] += 1
        self._said.pop(said, None)  # the dictionary stays in order of time
        self._said[said] = pace
        self._forget(pace)

    async def run(self) -> None:
        """Post what is queued until cancelled."""
        while True:
            namespace, body = await self._queue.get()
            self._queued[namespace] -= 1
            if not self._queued[namespace]:
                del self._queued[namespace]
            await self._post(namespace, body)
            self._queue.task_done()
            await asyncio.sleep(self._pause)

    async def drain(self, seconds: float) -> None:
        """Wait until the queue is posted, `seconds` at most: for the end of a process, while `run` still runs."""
        try:
            await asyncio.wait_for(self._queue.join(), seconds)
        except TimeoutError:
            log.info("%d events left unposted", self._queue.qsize())

    async def _post(self, namespace: str, body: dict[str, Any]) -> None:
        try:
            await self._client.create(paths.events(namespace), body)
            self.posted += 1
        except (KubeError, ValueError) as error:  # ValueError: a namespace or name that is none
            self.dropped += 1
            log.info("event %s about %s not posted: %s", body["reason"], body["involvedObject"]["name"], error)

    def _forget(self, pace: float) -> None:
        while (oldest := next(iter(self._said))) and pace - self._said[oldest] >= self._window:
            del self._said[oldest]


def _body(
    about: Reference, type: EventType, reason: str, message: str, source: dict[str, str], namespace: str, now: float
) -> dict[str, Any]:
    """Build the Event; its name is unique by time, as client-go's."""
    at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name[:230]}.{time.time_ns():x}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "namespace": about.namespace,
            "uid": about.uid,
        },
        "type": type,
        "reason": reason,
        "message": message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…",
        "source": source,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
