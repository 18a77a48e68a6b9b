"""What a controller is to the rest of the operator: one kind of object, watched, decided about, written.

A controller subscribes to the stores that concern it and marks what changed. The loop has marked objects reconciled; planning
asks for gangs and has decisions about them carried out. A controller overrides the methods that its kind has a use for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from muster.scheduling.decisions import Move, Place, Reason, Resize, Wait
from muster.scheduling.gang import Gang
from muster.scheduling.resource_quota import ResourceQuota
from muster.scheduling.snapshot import Queue
from muster_operator.api_writer import ApiWriter
from muster_operator.node_loss import NodeLoss
from muster_operator.reporting import Reporter
from muster_operator.storage.storage import Storage
from muster_operator.stores import Stores
from muster_operator.work_queue import WorkQueue


@dataclass(frozen=True, slots=True)
class Context:
    """What every controller works with."""

    stores: Stores
    work_queue: WorkQueue
    api_writer: ApiWriter
    reporter: Reporter
    node_loss: NodeLoss
    storage: Storage


class News(Enum):
    """What people have not been told yet of why a gang waits."""

    NONE = auto()
    NUMBERS = auto()
    """The reason is the one that they know, the sentence is another."""
    REASON = auto()


class NotExecutable(Exception):
    """No controller can carry out what the planner decided: a fault of muster, not of its user."""


class Controller:
    """One kind of object. By default it has no gangs, and nothing is done about a single object."""

    kind: ClassVar[str]
    """The kind of the keys of the work queue that are this controller's."""

    def reconcile(self, name: str, now: float) -> None:
        """Start the next piece of work of a marked object, if there is one."""

    async def prepare(self, now: float) -> None:
        """Finish what has to be done before a plan."""

    def gangs(self) -> Collection[Gang]:
        """Return the gangs that a plan is to consider; the same objects while nothing about them changes."""
        return ()

    def queues(self) -> Mapping[str, Queue]:
        """Return the queues of gangs, with their quotas."""
        return {}

    def resource_quotas(self, gangs: Sequence[Gang]) -> Iterable[ResourceQuota]:  # noqa: ARG002
        """Return the resource quotas of namespaces, with what the placed ones of all gangs are still to take of them."""
        return ()

    def run_times(self) -> Sequence[float]:
        """Return how long gangs that ended lately ran, in seconds on the GPUs that they asked for."""
        return ()

    def owns(self, gang: str) -> bool:  # noqa: ARG002
        """Return whether a gang of the last plan is this controller's."""
        return False

    def defer(self, gang: str) -> bool:  # noqa: ARG002
        """Return whether a gang has work in flight, so that no decision about it may be written now; it is planned after."""
        return False

    async def place(self, decision: Place, now: float) -> None:
        """Start a waiting gang."""
        raise NotImplementedError

    async def move(self, decision: Move, now: float) -> None:
        """Start a running gang elsewhere."""
        raise NotImplementedError

    async def resize(self, decision: Resize, now: float) -> None:
        """Start a running gang in another size."""
        raise NotImplementedError

    async def requeue(self, gang: Gang, reason: Reason, message: str, now: float) -> None:
        """Take a gang off its GPUs and queue it again, for a gang that goes before it."""
        raise NotImplementedError

    def news(self, wait: Wait) -> News:  # noqa: ARG002
        """Return what people have not been told of why a gang waits; nothing where the gang is not what it was in that plan."""
        return News.NONE

    async def tell(self, wait: Wait, now: float) -> None:
        """Tell people why a gang waits, as it is now: they may have been told meanwhile."""

    def report(self, gangs: Sequence[Gang], waits: Sequence[Wait]) -> None:
        """Bring statistics up to date after a plan over `gangs`, of which those of `waits` wait, in queue order."""


def owner_of(gang: str, controllers: Iterable[Controller]) -> Controller | None:
    """Return the controller that a gang of the last plan belongs to; None if it is gone."""
    return next((controller for controller in controllers if controller.owns(gang)), None)
