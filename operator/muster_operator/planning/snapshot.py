"""From stores and controllers to the snapshot that the planner sees.

The planner compares a snapshot with the last one by value. Objects that are the same as before compare at once, so what has not
changed is the same object: the view sees to it for nodes, and each controller for its gangs, also for those that it translated
again and that are equal to what they were (only the status message of a job has changed, say).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from muster.allocation.bystanders import Bystanders
from muster.allocation.view import ClusterView
from muster.scheduling.gang import Gang
from muster.scheduling.profile import Profile
from muster.scheduling.residents import Bystander
from muster.scheduling.resource_quota import ResourceQuota
from muster.scheduling.snapshot import Queue, Snapshot
from muster_operator.controller import Controller
from muster_operator.reporting import Reporter

T = TypeVar("T")

NOTHING_MEASURED: Mapping[str, Profile] = {}
"""The operator has no measured rates yet; one object, so that the planner sees that nothing changed."""


class Snapshots:
    """Takes snapshots, and remembers the last one."""

    def __init__(
        self, view: ClusterView, controllers: Sequence[Controller], reporter: Reporter, plan: Callable[[], None] = lambda: None
    ) -> None:
        """`plan` has a plan made: a pod that left may have been what a gang's rules between pods were about."""
        self._view, self._controllers, self._reporter, self._plan = view, controllers, reporter, plan
        self._bystanders = Bystanders(view, self._left)
        self._waits_by_rule: bool | None = None
        """Whether a gang with rules between pods waits; None where nobody has asked since the last snapshot."""
        self._last = Snapshot({}, (), profiles=NOTHING_MEASURED)

    def take(self) -> Snapshot:
        """Return the cluster as the stores have it now."""
        gangs = tuple(chain.from_iterable(map(self._gangs_of, self._controllers)))
        queues: dict[str, Queue] = {}
        for controller in self._controllers:
            queues |= self._queues_of(controller)
        self._waits_by_rule = None
        self._last = Snapshot(
            self._view.usable(),
            _same(self._last.gangs, gangs),
            _same(self._last.queues, queues),
            NOTHING_MEASURED,
            _same(self._last.ended, self._run_times(gangs)),
            tuple(quota for controller in self._controllers for quota in self._resource_quotas_of(controller, gangs)),
            bystanders=self._bystanders.by_node(),
            unusable=_same(self._last.unusable, self._view.unusable()),
        )
        return self._last

    def _left(self, pod: Bystander) -> None:
        """Plan, where a pod that left or changed may have kept a gang waiting."""
        if self._waits_by_rule is None:
            waiting = (gang for gang in self._last.gangs if not gang.placement)
            self._waits_by_rule = any(task.relations.rules for gang in waiting for task in gang.tasks[:1])
        if self._waits_by_rule or pod.relations.rules:
            self._plan()

    def _gangs_of(self, controller: Controller) -> Collection[Gang]:
        """The gangs of a controller; where it fails, those of the last snapshot."""
        with self._reporter.contained(f"gangs of {controller.kind}s"):
            return controller.gangs()
        return [gang for gang in self._last.gangs if controller.owns(gang.name)]

    def _queues_of(self, controller: Controller) -> Mapping[str, Queue]:
        """The queues of a controller; where it fails, those of the last snapshot: no quota lapses."""
        with self._reporter.contained(f"queues of {controller.kind}s"):
            return controller.queues()
        return self._last.queues

    def _resource_quotas_of(self, controller: Controller, gangs: Sequence[Gang]) -> Iterable[ResourceQuota]:
        """The resource quotas of a controller; where it fails, those of the last snapshot."""
        with self._reporter.contained(f"resource quotas of {controller.kind}s"):
            return controller.resource_quotas(gangs)
        return self._last.resource_quotas

    def _run_times(self, gangs: Sequence[Gang]) -> tuple[float, ...]:
        """How long gangs ran that ended lately; only gangs that share their time are ranked by it."""
        if not any(gang.sharing.slices for gang in gangs):
            return ()
        return tuple(seconds for controller in self._controllers for seconds in controller.run_times())


def _same(before: T, after: T) -> T:
    """The earlier of two equal values."""
    return before if before is after or before == after else after
