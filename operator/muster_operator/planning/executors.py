"""From decisions to writes: one executor a verb, each verb matched.

Writes of one plan about the same gang run in the order of the decisions, one after the other, and end with the first that
fails; those of different gangs run concurrently. A failed write is left to the next plan, which sees what came true. A gang
with work in flight is left alone and planned again after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import assert_never

from muster.kube.errors import KubeError
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
from muster.scheduling.placing.fit import misfits
from muster.scheduling.snapshot import Snapshot
from muster_operator import metrics
from muster_operator.controller import Context, Controller, NotExecutable
from muster_operator.work_queue import RETRY_SECONDS, Work, all_of

VERBS: frozenset[Verb] = frozenset({Place, Move, Resize, Requeue, Preempt, Wait})
"""The verbs that the operator can execute."""
Write = Callable[[], Work]


class Executors:
    """Carries the decisions of a plan out through the controllers that own the gangs."""

    def __init__(self, context: Context, controllers: Sequence[Controller]) -> None:
        self._work_queue, self._reporter, self._controllers = context.work_queue, context.reporter, controllers

    async def carry_out(self, decisions: Iterable[Decision], snapshot: Snapshot, now: float) -> None:
        """Write everything that the decisions say, then tell the gangs that wait, and wait for both."""
        chains: dict[str, list[Write]] = {}
        waits: list[Wait] = []
        for decision in decisions:
            metrics.DECISIONS.labels(type(decision).__name__, decision.reason).inc()
            for gang, write in self._writes(decision, snapshot, now, waits):
                chains.setdefault(gang.name, []).append(write)
        await all_of(self._guarded(name, _in_order(writes)) for name, writes in chains.items())
        await all_of(self._guarded(name, work) for name, work in self._tell(waits, now))

    def _writes(self, decision: Decision, snapshot: Snapshot, now: float, waits: list[Wait]) -> Iterator[tuple[Gang, Write]]:
        """The writes of one decision, each with the gang that it is about; gangs that wait are added to `waits`."""
        match decision:
            case Place() | Move() | Resize():
                yield from self._assign(decision, snapshot, now, waits)
            case Requeue(gang, reason, message):
                yield from self._requeue(gang, reason, message, now)
            case Preempt():
                yield from self._preempt(decision, now, waits)
            case Wait():
                waits.append(decision)
            case Join() | Resume() | Migrate() | Pack() | Unpack() | Grow() | Shrink() | Suspend():
                raise NotExecutable(
                    f"gang {decision.gang.name}: the planner decided {type(decision).__name__}, which this operator cannot"
                    " execute; Settings.verbs must leave it out"
                )
            case _:
                assert_never(decision)

    def _assign(
        self, decision: Place | Move | Resize, snapshot: Snapshot, now: float, waits: list[Wait]
    ) -> Iterator[tuple[Gang, Write]]:
        """Write a placement if its GPUs are free by now, or the gang's own; else the gang waits for pods that stop."""
        gang, owner = decision.gang, self._owner(decision.gang)
        if misfits(gpus_by_node(decision.placement), snapshot.nodes, own=gpus_by_node(gang.placement)):
            message = f"waits for pods that are stopping; then has {describe(decision.placement)}"
            waits.append(Wait(gang, Reason.PODS_STOPPING, message))
        elif not owner.defer(gang.name):
            yield gang, lambda: _assigned(owner, decision, now)

    def _requeue(self, gang: Gang, reason: Reason, message: str, now: float) -> Iterator[tuple[Gang, Write]]:
        """Take a gang off its GPUs, unless work is in flight for it."""
        owner = self._owner(gang)
        if not owner.defer(gang.name):
            yield gang, lambda: owner.requeue(gang, reason, message, now)

    def _preempt(self, decision: Preempt, now: float, waits: list[Wait]) -> Iterator[tuple[Gang, Write]]:
        """Requeue every victim; the gang that takes their place waits until they have stopped."""
        gang = decision.gang
        message = f"preempted by {gang.name}, which has priority {gang.priority}"
        for victim in decision.victims:
            yield from self._requeue(victim, Reason.PREEMPTED, message, now)
        waits.append(Wait(gang, decision.reason, decision.message))

    def _tell(self, waits: Iterable[Wait], now: float) -> Iterator[tuple[str, Work]]:
        """Have each gang told why it waits, and plan again when the answer changes by time alone."""
        for wait in waits:
            if wait.until is not None:
                self._work_queue.plan_by(wait.until)
            work = self._owner(wait.gang).tell(wait, now)
            if work is not None:
                yield wait.gang.name, work

    def _owner(self, gang: Gang) -> Controller:
        owner = next((controller for controller in self._controllers if controller.owns(gang.name)), None)
        if owner is None:
            raise NotExecutable(f"gang {gang.name} belongs to no controller")
        return owner

    async def _guarded(self, name: str, work: Work) -> None:
        """Wait for writes about a gang; what fails is left to the next plan."""
        try:
            await work
        except KubeError as error:
            self._reporter.failed(f"{name}: a decision could not be written", error)
            self._work_queue.plan_by(self._work_queue.clock() + RETRY_SECONDS)


def _assigned(owner: Controller, decision: Place | Move | Resize, now: float) -> Work:
    """The write of a placement, by its verb."""
    match decision:
        case Place():
            return owner.place(decision, now)
        case Move():
            return owner.move(decision, now)
        case Resize():
            return owner.resize(decision, now)
        case _:
            assert_never(decision)


async def _in_order(writes: Iterable[Write]) -> None:
    for write in writes:
        await write()
