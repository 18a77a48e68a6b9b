"""The planner: what the operator and the simulator call.

Two kinds of pass (Gandiva, OSDI'18, section 3.1). The reactive one answers an event (an arrival, a departure, a failure) and
touches little; the introspective one comes every slice and judges what earlier decisions brought. Gangs that share nothing are
admitted whole, in turn (`admission`); those that let themselves be suspended, packed or resized are the policy's.

Same snapshot, same decisions: every ordering ends in a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from muster.scheduling.admission.admission import admit
from muster.scheduling.admission.queueing import is_ready
from muster.scheduling.decisions import Admission, Decision, Wait
from muster.scheduling.gang import Gang
from muster.scheduling.gang_index import GangIndex
from muster.scheduling.planner_cache import PlannerCache
from muster.scheduling.policies.gandiva import policy as gandiva
from muster.scheduling.policies.muster import policy as muster
from muster.scheduling.session import Session
from muster.scheduling.settings import DEFAULTS, Policy, Settings
from muster.scheduling.snapshot import Snapshot


class Planner:
    """The planner with a memory: it answers as `plan` and `introspect` do, sooner where little changed since it was last asked.

    Memory is by identity: nodes and gangs that did not change should be the same objects in the next snapshot.
    """

    def __init__(self, settings: Settings = DEFAULTS) -> None:
        self.settings = settings
        self._memory = PlannerCache()
        self._at_rest: Snapshot | None = None
        """The last snapshot in which there was nothing to introspect."""

    def plan(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Decide for every gang that waits or wants to move, and for those that share what they hold."""
        with self._remembering():
            if self.settings.policy is Policy.GANDIVA:
                return self._gandiva(snapshot, now, gandiva.react)
            admitted = self._admit(snapshot, now)
            gang_index = self._memory.gang_index
            if not (
                gang_index.elastic
                or (gang_index.slicing and any(isinstance(one, Wait) and muster.may_claim(one) for one in admitted))
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
            gang_index = self._memory.follow(snapshot.gangs)
            if not _can_change(gang_index) or not (snapshot.profiles or gang_index.waiting or gang_index.sized):
                self._at_rest = snapshot
                return ()
            return self._muster(snapshot, now, self._admit(snapshot, now), muster.introspect)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """Forget everything where a pass fails: what it left half done would have those after it fail, or decide wrongly."""
        try:
            yield
        except BaseException:
            self._memory, self._at_rest = PlannerCache(), None
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
        if not _can_change(self._memory.gang_index):
            return admitted
        return self._act(snapshot, now, admitted, act)

    def _act(self, snapshot: Snapshot, now: float, decided: Iterable[Decision], act: Act) -> Sequence[Decision]:
        session = Session(snapshot, now, decided, self._memory)
        act(session, self.settings)
        return session.decided()


Act = Callable[[Session, Settings], None]
"""A pass of a policy."""


def plan(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Make one reactive pass, from nothing."""
    return Planner(settings).plan(snapshot, now)


def introspect(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Make one introspective pass, from nothing."""
    return Planner(settings).introspect(snapshot, now)


def _can_change(gang_index: GangIndex) -> bool:
    """Whether an introspective pass may find something to do for one of the gangs."""
    return bool(gang_index.slicing or gang_index.sized)
