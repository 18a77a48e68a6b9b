"""The DLQueue controller's front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muster.allocation.unplanned import Unplanned
from muster.scheduling.decisions import Wait
from muster.scheduling.gang import Gang
from muster.scheduling.snapshot import Queue
from muster_operator.controller import Context, Controller
from muster_operator.dlqueue.usage import DLQUEUES, DLQueue, heads_of, news, quotas, status_of
from muster_operator.reporting import about
from muster_operator.work_queue import Key

SAME_COUNTS_SECONDS = 10.0
"""Least time between two writes about a queue of which the second only brings another sentence."""


class DLQueues(Controller):
    """DLQueues: each plan reads their quotas and leads to their status."""

    kind = "DLQueue"

    def __init__(self, context: Context) -> None:
        self._queues = context.stores.of(DLQUEUES)
        self._unplanned = Unplanned(context.stores.view)
        self._work_queue, self._api_writer, self._reporter = context.work_queue, context.api_writer, context.reporter
        self._wanted: dict[str, Mapping[str, Any]] = {}
        """What the status of each queue is to say, by the last plan."""
        self._rests: dict[str, float] = {}
        """Until when a queue is told no other sentence alone."""
        self._queues.subscribe(self._changed)

    def queues(self) -> Mapping[str, Queue]:
        return quotas(self._queues.values(), self._unplanned)

    def report(self, gangs: Sequence[Gang], waits: Sequence[Wait]) -> None:
        """Have each queue's status written as of the plan that was just made: new counts at once, a new sentence at leisure."""
        if not len(self._queues):
            return
        by_queue: dict[str, list[Gang]] = {}
        for gang in gangs:
            by_queue.setdefault(gang.queue, []).append(gang)
        heads, others = heads_of(waits), self._unplanned.by_queue() + self._unplanned.stopping_by_queue()
        for queue in self._queues.values():
            name = queue.metadata.key
            with self._reporter.contained(f"status of DLQueue {name}"):
                self._wanted[name] = status_of(queue, by_queue.get(name, ()), others.get(name, 0), heads.get(name))
                self._mark(queue)

    def reconcile(self, name: str, now: float) -> None:  # noqa: ARG002 (nothing of a queue is dated)
        """Start the write of a queue's status, if it says something else."""
        queue, key = self._queues.get(name), Key(self.kind, name)
        if queue is None:
            self._wanted.pop(name, None)
            self._rests.pop(name, None)
        elif name in self._wanted and news(queue, self._wanted[name]) and not self._work_queue.is_busy(key):
            self._work_queue.start(key, self._write(queue, self._wanted[name]))

    def _mark(self, queue: DLQueue) -> None:
        """Have a queue's status written, if it says something else: now, or when its sentence has stood a while."""
        name = queue.metadata.key
        changed = news(queue, self._wanted[name])
        rest = self._rests.get(name, 0.0) - self._work_queue.pace()
        if changed and (changed != {"message"} or rest <= 0):
            self._work_queue.mark(Key(self.kind, name))
        elif changed:
            self._work_queue.mark_in(Key(self.kind, name), rest)

    async def _write(self, queue: DLQueue, status: Mapping[str, Any]) -> None:
        self._rests[queue.metadata.key] = self._work_queue.pace() + SAME_COUNTS_SECONDS
        await self._api_writer.patch_status(DLQUEUES, queue.metadata, dict(status))

    def _changed(self, old: DLQueue | None, new: DLQueue | None) -> None:
        if new is not None and new.flaw:
            self._reporter.event(about("DLQueue", new.metadata), "Warning", "Unreadable", new.flaw)
        obj = new or old
        if obj is not None and new is None:
            self._work_queue.mark(Key(self.kind, obj.metadata.key))
        if old is None or new is None or old.quota != new.quota:
            self._work_queue.plan_now()
