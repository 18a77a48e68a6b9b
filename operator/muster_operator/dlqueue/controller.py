"""The DLQueue controller's front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from muster.allocation.unplanned import Unplanned
from muster.kube.errors import Conflict, KubeError
from muster.scheduling.gang import Gang
from muster.scheduling.snapshot import Queue
from muster_operator.controller import Context, Controller
from muster_operator.dlqueue.usage import DLQUEUES, DLQueue, is_current, quotas, status_of
from muster_operator.reporting import about
from muster_operator.work_queue import RETRY_SECONDS


class DLQueues(Controller):
    """DLQueues: nothing is done about a single one; each plan reads their quotas and leads to their status."""

    kind = "DLQueue"

    def __init__(self, context: Context) -> None:
        self._queues = context.stores.of(DLQUEUES)
        self._unplanned = Unplanned(context.stores.view)
        self._work_queue, self._api_writer, self._reporter = context.work_queue, context.api_writer, context.reporter
        self._queues.subscribe(self._changed)

    def queues(self) -> Mapping[str, Queue]:
        others = self._unplanned.by_queue() if len(self._queues) else {}
        return quotas(self._queues.values(), others)

    async def report(self, gangs: Sequence[Gang]) -> None:
        """Write each queue's status as of the plan that was just made."""
        by_queue: dict[str, list[Gang]] = {}
        for gang in gangs if len(self._queues) else ():
            by_queue.setdefault(gang.queue, []).append(gang)
        others = self._unplanned.by_queue() if len(self._queues) else {}
        for queue in list(self._queues.values()):
            with self._reporter.contained(f"status of DLQueue {queue.metadata.key}"):
                status = status_of(queue, by_queue.get(queue.metadata.key, []), others.get(queue.metadata.key, 0))
                if not is_current(queue, status):
                    await self._write(queue, status)

    async def _write(self, queue: DLQueue, status: dict[str, object]) -> None:
        try:
            await self._api_writer.patch_status(DLQUEUES, queue.metadata, status)
        except Conflict:
            self._work_queue.plan_after_news()
        except KubeError as error:
            self._reporter.failed(f"status of DLQueue {queue.metadata.key}", error)
            self._work_queue.plan_in(RETRY_SECONDS)

    def _changed(self, old: DLQueue | None, new: DLQueue | None) -> None:
        if new is not None and new.flaw:
            self._reporter.event(about("DLQueue", new.metadata), "Warning", "Unreadable", new.flaw)
        if old is None or new is None or old.quota != new.quota:
            self._work_queue.plan_now()
