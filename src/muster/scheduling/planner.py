"""The planner: what the operator and the simulator call.

Two kinds of pass (Gandiva, OSDI'18, section 3.1). The reactive one answers an event (an arrival, a departure, a failure) and
touches little; the introspective one comes every slice and judges what earlier decisions brought. Gangs that share nothing are
admitted whole, in turn (`admission`); those that let themselves be suspended, packed or resized are the policy's.

Same snapshot, same decisions: every ordering ends in a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from muster.scheduling.admission import admit
from muster.scheduling.census import Census
from muster.scheduling.decisions import Admission, Decision, Wait
from muster.scheduling.mechanisms.board import Board
from muster.scheduling.memory import Memory
from muster.scheduling.policies import gandiva, muster
from muster.scheduling.queueing import is_ready
from muster.scheduling.settings import DEFAULTS, Policy, Settings
from muster.scheduling.snapshot import Gang, Snapshot


class Planner:
    """The planner with a memory: it answers as `plan` and `introspect` do, sooner where little changed since it was last asked.

    Memory is by identity: nodes and gangs that did not change should be the same objects in the next snapshot.
    """

    def __init__(self, settings: Settings = DEFAULTS) -> None:
        self.settings = settings
        self._memory = Memory()
        self._at_rest: Snapshot | None = None
        """The last snapshot in which there was nothing to introspect."""

    def plan(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Decide for every gang that waits or wants to move, and for those that share what they hold."""
        with self._remembering():
            if self.settings.policy is Policy.GANDIVA:
                return self._gandiva(snapshot, now, gandiva.react)
            admitted = self._admit(snapshot, now)
            census = self._memory.census
            if not (
                census.elastic or (census.slicing and any(isinstance(one, Wait) and muster.may_claim(one) for one in admitted))
            ):
                return admitted
            return self._muster(snapshot, now, admitted, muster.react)

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Judge what was tried, and share the GPUs anew."""
        with self._remembering():
            if self.settings.policy is Policy.GANDIVA:
                return self._gandiva(snapshot, now, gandiva.introspect)
            if snapshot is self._at_rest:
                return ()
            census = self._memory.follow(snapshot.gangs)
            if not _can_change(census) or not (snapshot.profiles or census.waiting or census.sized):
                self._at_rest = snapshot
                return ()
            return self._muster(snapshot, now, self._admit(snapshot, now), muster.introspect)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """Forget everything where a pass fails: what it left half done would have those after it fail, or decide wrongly."""
        try:
            yield
        except BaseException:
            self._memory, self._at_rest = Memory(), None
            raise

    def _admit(self, snapshot: Snapshot, now: float, which: Callable[[Gang], bool] | None = None) -> list[Admission]:
        return admit(snapshot, now, self.settings, memory=self._memory, which=which)

    def _muster(self, snapshot: Snapshot, now: float, admitted: Iterable[Admission], act: Act) -> Sequence[Decision]:
        """Ours for gangs that share: they leave it to their rank where they start."""
        decided = (decision for decision in admitted if isinstance(decision, Wait) or not muster.leaves_to_rank(decision))
        return self._act(snapshot, now, decided, act)

    def _gandiva(self, snapshot: Snapshot, now: float, act: Act) -> Sequence[Decision]:
        """The paper's for gangs that take turns; the others, and those that cannot start yet, are admitted as ever."""
        admitted = self._admit(snapshot, now, lambda gang: not gang.sharing.slices or not is_ready(gang, now))
        if not _can_change(self._memory.census):
            return admitted
        return self._act(snapshot, now, admitted, act)

    def _act(self, snapshot: Snapshot, now: float, decided: Iterable[Decision], act: Act) -> Sequence[Decision]:
        board = Board(snapshot, now, decided, self._memory)
        act(board, self.settings)
        return board.decided()


Act = Callable[[Board, Settings], None]
"""A pass of a policy."""


def plan(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Make one reactive pass, from nothing."""
    return Planner(settings).plan(snapshot, now)


def introspect(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Make one introspective pass, from nothing."""
    return Planner(settings).introspect(snapshot, now)


def _can_change(census: Census) -> bool:
    """Whether an introspective pass may find something to do for one of the gangs."""
    return bool(census.slicing or census.sized)
