"""One plan: take a snapshot, ask the planner, have its decisions carried out, report."""

from __future__ import annotations

from collections.abc import Sequence

from muster.scheduling.decisions import Decision
from muster.scheduling.planner import Planner
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Snapshot
from muster_operator import metrics
from muster_operator.controller import Context, Controller
from muster_operator.planning.executors import carry_out
from muster_operator.planning.snapshot import Snapshots


class Planning:
    """Plans over the gangs of all controllers."""

    def __init__(self, context: Context, controllers: Sequence[Controller], settings: Settings) -> None:
        self.planner = Planner(settings)
        self._context, self._work_queue, self._controllers = context, context.work_queue, controllers
        self._snapshots = Snapshots(context.stores.view, controllers)
        self._next_slice = 0.0

    async def run(self, now: float) -> None:
        """Make one plan over the cluster as it is now, and have it carried out."""
        for controller in self._controllers:
            await controller.prepare(now)
        snapshot = self._snapshots.take()
        metrics.observe_gangs(snapshot.gangs)
        with metrics.PLAN_SECONDS.time():
            decisions = self._decide(snapshot, now)
        await carry_out(self._context, self._controllers, decisions, snapshot, now)
        for controller in self._controllers:
            await controller.report(snapshot.gangs)

    def _decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Ask the planner: for an introspective pass when a slice ends, else for a reactive one if any gang wants something."""
        if any(gang.sharing.slices for gang in snapshot.gangs):
            due = self._next_slice <= now
            self._next_slice = now + self.planner.settings.slice_seconds if due else self._next_slice
            self._work_queue.plan_by(self._next_slice)
            if due:
                return self.planner.introspect(snapshot, now)
        if any(not gang.placement or gang.leave is not None or gang.resize for gang in snapshot.gangs):
            return self.planner.plan(snapshot, now)
        return ()
