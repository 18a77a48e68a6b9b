"""From decisions to writes: one executor a verb, each verb matched.

Writes of one plan about the same gang run in the order of the decisions, one after the other, and end with the first that
fails; those of different gangs run concurrently. A failed write is left to the next plan, which sees what came true; so is a
write that came too late, since its gang has changed. A gang with work in flight is left alone and planned again after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import assert_never

from muster.kube.errors import Conflict, KubeError
from muster.scheduling.decisions import (
    Decision,
    Grow,
    Join,
    Migrate,
    Move,
    Pack,
    Place,
    Preempt,
    Reason,
    Requeue,
    Resize,
    Resume,
    Shrink,
    Suspend,
    Unpack,
    Verb,
    Wait,
)
from muster.scheduling.gang import Gang, describe, gpus_by_node
from muster.scheduling.naming import named
from muster.scheduling.placing.fit import misfits
from muster.scheduling.snapshot import Snapshot
from muster_operator import metrics
from muster_operator.controller import Context, Controller, NotExecutable, owner_of
from muster_operator.planning.stopping import with_pods
from muster_operator.work_queue import RETRY_SECONDS, Work, all_of

VERBS: frozenset[Verb] = frozenset({Place, Move, Resize, Requeue, Preempt, Wait})
"""The verbs that the operator can execute."""
FAULT_SECONDS = 30.0
"""Before a decision that muster failed to carry out by a fault of its own is planned again, if nothing changes before."""
Write = Callable[[], Work]


async def carry_out(
    context: Context, controllers: Sequence[Controller], decisions: Sequence[Decision], snapshot: Snapshot, now: float
) -> Sequence[Wait]:
    """Write everything that the decisions about a snapshot say; return which gangs wait then, and why."""
    execution = Execution(context, controllers, snapshot, now)
    for decision in decisions:
        if not isinstance(decision, Wait):
            metrics.DECISIONS.labels(type(decision).__name__, decision.reason).inc()
            with context.reporter.contained(f"{decision.gang.name}: a decision cannot be carried out"):
                execution.add(decision)
    await execution.run()
    waits = execution.waits + [decision for decision in decisions if isinstance(decision, Wait)]
    waits = [with_pods(context.stores.view, wait) for wait in waits]
    for reason, alike in groupby(waits, attrgetter("reason")):
        metrics.DECISIONS.labels(Wait.__name__, reason).inc(sum(1 for _ in alike))
    if ends := [wait.until for wait in waits if wait.until is not None]:
        context.work_queue.plan_by(min(ends))
    return waits


class Execution:
    """The writes of one plan, in a chain for each gang."""

    def __init__(self, context: Context, controllers: Sequence[Controller], snapshot: Snapshot, now: float) -> None:
        self._work_queue, self._reporter, self._controllers = context.work_queue, context.reporter, controllers
        self._snapshot, self._now = snapshot, now
        self._chains: dict[str, list[Write]] = {}
        self.waits: list[Wait] = []
        """The gangs that wait because of what was decided about them or others."""

    def add(self, decision: Decision) -> None:
        """Have a decision carried out by `run`; raise NotExecutable if nobody can."""
        match decision:
            case Place():
                self._assign(decision, lambda owner: owner.place(decision, self._now))
            case Move():
                self._assign(decision, lambda owner: owner.move(decision, self._now))
            case Resize():
                self._assign(decision, lambda owner: owner.resize(decision, self._now))
            case Requeue(gang, reason, message):
                self._requeue(gang, reason, message)
            case Preempt():
                self._preempt(decision)
            case Wait():
                pass  # told to people once everything is written
            case Join() | Resume() | Migrate() | Pack() | Unpack() | Grow() | Shrink() | Suspend():
                raise NotExecutable(
                    f"gang {decision.gang.name}: the planner decided {type(decision).__name__}, which this operator cannot"
                    " execute; Settings.verbs must leave it out"
                )
            case _:
                assert_never(decision)

    async def run(self) -> None:
        """Write the chains concurrently, each in order."""
        await all_of(self._guarded(name, _in_order(writes)) for name, writes in self._chains.items())

    def _assign(self, decision: Place | Move | Resize, write: Callable[[Controller], Work]) -> None:
        """Write a placement if its GPUs are free by now, or the gang's own; else the gang waits for pods that stop."""
        gang = decision.gang
        if misfits(gpus_by_node(decision.placement), self._snapshot.nodes, own=gpus_by_node(gang.placement)):
            message = f"waits for pods that are stopping; then has {describe(decision.placement)}"
            self.waits.append(Wait(gang, Reason.PODS_STOPPING, message, keeps=decision.placement))
        else:
            self._write(gang, write)

    def _requeue(self, gang: Gang, reason: Reason, message: str) -> None:
        """Take a gang off its GPUs and queue it again."""
        self._write(gang, lambda owner: owner.requeue(gang, reason, message, self._now))

    def _preempt(self, decision: Preempt) -> None:
        """Requeue every victim; the gang that takes their place waits until they have stopped."""
        gang = decision.gang
        for victim in decision.victims:
            self._requeue(victim, Reason.PREEMPTED, f"preempted by {named(gang, victim.namespace)}, {_stronger(gang, victim)}")
        self.waits.append(Wait(gang, decision.reason, decision.message))

    def _write(self, gang: Gang, write: Callable[[Controller], Work]) -> None:
        """Add a write to its gang's chain, unless the gang has work in flight: then it is planned again after that."""
        owner = self._owner(gang)
        if not owner.defer(gang.name):
            self._chains.setdefault(gang.name, []).append(lambda: write(owner))

    def _owner(self, gang: Gang) -> Controller:
        owner = owner_of(gang.name, self._controllers)
        if owner is None:
            raise NotExecutable(f"gang {gang.name} belongs to no controller")
        return owner

    async def _guarded(self, name: str, work: Work) -> None:
        """Wait for writes about a gang; what fails is left to the next plan, later where the fault is muster's own."""
        try:
            await work
        except Conflict:  # the gang has changed since the snapshot
            self._work_queue.plan_after_news()
        except Exception as error:
            self._reporter.failed(f"{name}: a decision could not be written", error)
            pause = RETRY_SECONDS if isinstance(error, KubeError) else FAULT_SECONDS
            self._work_queue.plan_in(pause)


def _stronger(gang: Gang, victim: Gang) -> str:
    """Which of its priorities a gang preempts another by."""
    by_class = gang.priority > victim.priority
    return f"which has priority {gang.priority if by_class else gang.local_priority}"


async def _in_order(writes: Iterable[Write]) -> None:
    for write in writes:
        await write()
