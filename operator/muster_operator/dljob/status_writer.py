"""Writes a job's edited status, and posts what is new in its timeline as Events."""

from __future__ import annotations

from dataclasses import replace

from muster.kube.events import EventType
from muster_operator.controller import Context
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record
from muster_operator.reporting import about

_WARNINGS = frozenset({"Failed", "Restarting", "Requeued", "Preempted", "Blocked", "SetAside"})
"""Timeline events that are posted as Warnings."""


class StatusWriter:
    """Writes records."""

    def __init__(self, context: Context) -> None:
        self._api_writer, self._reporter = context.api_writer, context.reporter

    async def write(self, record: Record) -> Job | None:
        """Write a status if anything in it has changed; return the job as it is then, None if it is gone; raise Conflict."""
        patch = record.patch()
        if not patch:
            return record.job
        changed = await self._api_writer.patch_status(DLJOBS, record.job.meta, patch)
        if changed is None:
            return None
        before = record.job.status.timeline
        for event in record.status.timeline:
            if event not in before:
                kind: EventType = "Warning" if event.event in _WARNINGS else "Normal"
                self._reporter.event(
                    about("DLJob", record.job.meta), kind, event.reason or event.event, event.message, occurrence=event.time
                )
        return replace(record.job, meta=changed.metadata, status=record.status)
