"""The one loop: what changed is brought one step further, then everything is planned, then it rests until the bell rings."""

from __future__ import annotations

import asyncio
import logging

from muster.scheduling.settings import Settings
from muster_operator import metrics
from muster_operator.planning import Planning
from muster_operator.steps import Steps
from muster_operator.work_queue import NEVER, RETRY_SECONDS, WorkQueue

log = logging.getLogger("muster.operator")

PLAN_SECONDS = 0.05
"""Least time between two plans: what arrives in between is planned together."""


class Controller:
    """Bring every job to where it should be; run `run()` as a task."""

    def __init__(self, work_queue: WorkQueue, settings: Settings) -> None:
        self._work_queue = work_queue
        self._steps, self._planning = Steps(work_queue), Planning(work_queue, settings)
        self._planned = 0.0

    async def run(self) -> None:
        """Work until cancelled. Nothing is decided before every first list is in."""
        await self._work_queue.stores.wait_synced()
        view = self._work_queue.view
        log.info("synced: %d nodes, %d pods, %d jobs", len(view.nodes), len(view.pods), len(view.jobs))
        try:
            while True:
                await self._turn(self._work_queue.clock())
                await self._rest()
        finally:
            self._work_queue.stop()

    async def _turn(self, now: float) -> None:
        for key in self._work_queue.due(now):
            try:
                self._steps.look_at(key, now)
            except Exception:
                self._failed(f"looking at {key}")
                self._work_queue.requeue_at[key] = now + RETRY_SECONDS
        if max(self._work_queue.plan_at, self._planned + PLAN_SECONDS) <= now:
            self._work_queue.plan_at, self._planned = NEVER, now
            try:
                await self._planning.run(now)
            except Exception:
                self._failed("planning")
                self._work_queue.plan_by(now + RETRY_SECONDS)

    def _failed(self, what: str) -> None:
        """A fault in one job, or in one plan, must not end the others': it is told, and tried again."""
        metrics.ERRORS.inc()
        log.exception("%s failed; tries again in %.0f s", what, RETRY_SECONDS)

    async def _rest(self) -> None:
        """Sleep until something changes or is due."""
        next_plan = max(self._work_queue.plan_at, self._planned + PLAN_SECONDS)
        due = min([next_plan, *self._work_queue.requeue_at.values()])
        try:
            async with asyncio.timeout(max(0.0, due - self._work_queue.clock()) if due != NEVER else None):
                await self._work_queue.changed.wait()
        except TimeoutError:
            pass
        self._work_queue.changed.clear()
