"""A policy under watch: each of its answers is checked against what every policy must keep.

- Every decision has a reason and a sentence.
- A gang is put whole: one of its allowed sizes, each task once, each with as many GPUs as it asks for.
- No GPU is given twice (the engine refuses that by itself), and none that is out of order.
- Work is conserved: no gang that shares is left waiting while idle GPUs would hold it.
- Nobody who takes turns waits longer than the turns of those who share its GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from muster.scheduling.decisions import Decision, Preempt, Put, Wait
from muster.scheduling.mechanisms.board import Board
from muster.scheduling.placement import Shortage, place
from muster.scheduling.snapshot import Gang, Placement, Snapshot
from muster.simulator.engine import Policy


class Broken(Exception):
    """A policy broke one of its promises; the message says which, when and for which gang."""


class Checked:
    """A policy whose every answer is checked; `slack` bounds a wait for a turn, in turns of those it shares GPUs with."""

    def __init__(self, policy: Policy, slack: float = 3.0) -> None:
        self.period = policy.period
        self._policy, self._slack = policy, slack
        self.asked = 0
        """How often the policy was asked."""
        self._passed_over: dict[str, int] = {}
        """Slices since a gang that waits for its turn could have had it."""

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return self._checked(snapshot, now, self._policy.react(snapshot, now))

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        decisions = self._checked(snapshot, now, self._policy.introspect(snapshot, now))
        starved = list(self._starved(Board(snapshot, now, decisions)))
        if starved:
            raise Broken(f"at {now:g} s: {'; '.join(starved)}")
        return decisions

    def _checked(self, snapshot: Snapshot, now: float, decisions: Sequence[Decision]) -> Sequence[Decision]:
        self.asked += 1
        complaints = [*complaints_about(decisions), *unused(snapshot, now, decisions)]
        if complaints:
            raise Broken(f"at {now:g} s: {'; '.join(complaints)}")
        return decisions

    def _starved(self, board: Board) -> Iterable[str]:
        """Gangs that were passed over for more slices than the turns of those who share their GPUs explain."""
        passed_over = {}
        for gang in board.gangs.values():
            if not gang.placement or gang.running:
                continue
            others = [other for node in board.spots(gang) for other in board.on(node)]
            if all(other.sharing.slices and other.priority <= gang.priority for other in others):
                passed_over[gang.name] = self._passed_over.get(gang.name, 0) + 1
                heaviest = max(other.sharing.weight for other in others)
                turns = len(others) * max(1.0, heaviest / gang.sharing.weight)
                if passed_over[gang.name] > self._slack * turns:
                    yield f"{gang.name} was passed over {passed_over[gang.name]} times among {len(others)} gangs"
        self._passed_over = passed_over


def complaints_about(decisions: Iterable[Decision]) -> Iterable[str]:
    """Say what is wrong with decisions by themselves."""
    for decision in decisions:
        if not decision.reason or not decision.message:
            yield f"{type(decision).__name__} of {decision.gang.name} has no reason"
        if isinstance(decision, Put) and decision.placement:
            yield from split(decision.gang, decision.placement)


def split(gang: Gang, placement: Placement) -> Iterable[str]:
    """Say what keeps a placement from being the whole gang."""
    names = [place.task.name for place in placement]
    workers = sorted(place.task.index for place in placement if place.task.role == "worker")
    others = {task.name for task in gang.tasks if task.role != "worker"}
    fewest = gang.fewest if gang.fewest is not None else gang.asked if gang.asked is not None else len(gang.tasks) - len(others)
    if len(set(names)) != len(names) or not others <= set(names):
        yield f"{gang.name} is not put whole: {len(placement)} places"
    if workers != list(range(len(workers))) or len(workers) < fewest:
        yield f"{gang.name} has workers {workers}, needs {fewest} at least"
    for place in placement:
        if place.gpus.bit_count() != place.task.gpus:
            yield f"{place.task.name} has {place.gpus.bit_count()} GPUs, asks for {place.task.gpus}"


def unused(snapshot: Snapshot, now: float, decisions: Sequence[Decision]) -> Iterable[str]:
    """Say which gangs that share wait although idle GPUs would hold them."""
    if any(isinstance(decision, Preempt) for decision in decisions):
        return  # the GPUs of its victims come free after this pass
    board = Board(snapshot, now, decisions)
    tried: set[object] = set()
    for decision in decisions:
        gang = decision.gang
        shape = (tuple((task.gpus, task.where) for task in gang.tasks), gang.required, gang.fewest)
        if isinstance(decision, Wait) and decision.until is None and gang.sharing.slices and shape not in tried:
            tried.add(shape)
            if not board.gangs[gang.name].placement and not isinstance(place(gang, board.room), Shortage):
                yield f"{gang.name} waits ({decision.reason}) although idle GPUs would hold it"
