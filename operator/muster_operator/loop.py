"""The one loop: reconcile what is marked, plan if a plan is due, wait for the next change."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from muster_operator.controller import Context, Controller
from muster_operator.planning.planning import Planning
from muster_operator.planning_health import PlanningHealth
from muster_operator.work_queue import RETRY_SECONDS, Key

log = logging.getLogger("muster.operator")


class Loop:
    """Bring every object to where it should be; run `run()` as a task."""

    def __init__(self, context: Context, controllers: Sequence[Controller], planning: Planning) -> None:
        self._stores, self._work_queue = context.stores, context.work_queue
        self._controllers = {controller.kind: controller for controller in (*controllers, planning.telling)}
        self._planning, self._reporter = planning, context.reporter
        self.health = PlanningHealth(context.work_queue)

    async def run(self) -> None:
        """Work until cancelled. Nothing is decided before every first list is in."""
        await self._stores.wait_synced()
        view = self._stores.view
        log.info("synced: %d nodes, %d pods, %d jobs", len(view.nodes), len(view.pods), len(view.jobs))
        try:
            while True:
                await self._turn(self._work_queue.clock())
                await self._work_queue.wait()
        finally:
            self._work_queue.stop()

    async def _turn(self, now: float) -> None:
        for key in self._work_queue.due():
            self._reconcile(key, now)
        if self._work_queue.plan_is_due():
            await self._plan(now)

    def _reconcile(self, key: Key, now: float) -> None:
        try:
            self._controllers[key.kind].reconcile(key.name, now)
        except Exception as error:  # a fault in one object must not stop the others
            self._work_queue.failed(key, error)
        else:
            self._work_queue.settled(key)

    async def _plan(self, now: float) -> None:
        self._work_queue.begin_plan()
        self.health.begin()
        try:
            await self._planning.run(now)
        except Exception as error:
            self.health.end(error)
            self._reporter.failed("planning", error)
            self._work_queue.plan_in(RETRY_SECONDS)
        else:
            self.health.end()
