"""One plan: take a snapshot, ask the planner, have its decisions carried out, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from muster.scheduling import planner
from muster.scheduling.decisions import Decision
from muster.scheduling.planner import Planner
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Snapshot
from muster_operator import metrics
from muster_operator.controller import Context, Controller, owner_of
from muster_operator.failing_nodes import FailingNodes
from muster_operator.node_problems import NodeProblems
from muster_operator.planning.executors import carry_out
from muster_operator.planning.isolation import Isolation
from muster_operator.planning.snapshot import Snapshots
from muster_operator.planning.telling import Telling
from muster_operator.reporting import about_node, in_words

Pass = Callable[..., Sequence[Decision]]


class Planning:
    """Plans over the gangs of all controllers."""

    def __init__(self, context: Context, controllers: Sequence[Controller], settings: Settings) -> None:
        self.planner = Planner(settings)
        self._context, self._work_queue, self._controllers = context, context.work_queue, controllers
        self._reporter = context.reporter
        self._snapshots = Snapshots(context.stores.view, controllers, context.reporter, self._work_queue.plan_soon)
        self._isolation = Isolation(self._set_aside)
        self.telling = Telling(context, lambda gang: owner_of(gang, controllers))
        NodeProblems(context)
        FailingNodes(context)
        self._next_slice = 0.0

    async def run(self, now: float) -> None:
        """Make one plan over the cluster as it is now, and have it carried out."""
        for controller in self._controllers:
            with self._reporter.contained(f"preparing {controller.kind}s"):
                await controller.prepare(now)
        snapshot = self._snapshots.take()
        metrics.observe_gangs(snapshot.gangs)
        with metrics.PLAN_SECONDS.time():
            decisions = self._decide(snapshot, now)
        self._work_queue.decided()
        waits = await carry_out(self._context, self._controllers, decisions, snapshot, now)
        self.telling.hear(waits, now)
        for controller in self._controllers:
            with self._reporter.contained(f"statistics of {controller.kind}s"):
                controller.report(snapshot.gangs, waits)

    def _decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Ask the planner: for an introspective pass when a slice ends, else for a reactive one if any gang wants something."""
        if any(gang.sharing.slices for gang in snapshot.gangs):
            pace = self._work_queue.pace()
            due = self._next_slice <= pace
            self._next_slice = pace + self.planner.settings.slice_seconds if due else self._next_slice
            self._work_queue.plan_in(self._next_slice - pace)
            if due:
                return self._isolated(snapshot, self.planner.introspect, planner.introspect, now)
        if any(not gang.placement or gang.leave is not None or gang.resize for gang in snapshot.gangs):
            return self._isolated(snapshot, self.planner.plan, planner.plan, now)
        return ()

    def _isolated(self, snapshot: Snapshot, ask: Pass, afresh: Pass, now: float) -> Sequence[Decision]:
        """Ask for a pass, without the gangs and nodes over which the planner fails."""
        settings, isolation, pace = self.planner.settings, self._isolation, self._work_queue.pace()
        decisions = isolation.decide(snapshot, lambda some: ask(some, now), lambda some: afresh(some, now, settings), pace)
        for kind, aside in (("gang", isolation.gangs), ("node", isolation.nodes)):
            metrics.SET_ASIDE.labels(kind).set(len(aside))
        if isolation.again_at is not None:
            self._work_queue.plan_in(isolation.again_at - pace)
        return decisions

    def _set_aside(self, kind: str, name: str, error: Exception) -> None:
        """Report what planning leaves out; a gang is told in its turn why it waits."""
        self._reporter.failed(f"planning of {kind} {name}", error)
        if kind == "node":
            message = f"muster's planner fails over this node, so nothing is placed on it: {in_words(error)}"
            self._reporter.event(about_node(name), "Warning", "Unplannable", message)
