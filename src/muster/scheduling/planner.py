"""The planner: what the operator and the simulator call.

Two kinds of pass (Gandiva, OSDI'18, section 3.1). The reactive one answers an event (an arrival, a departure, a failure) and
changes little; the introspective one comes every slice and judges what earlier decisions brought. Gangs that share nothing are
admitted whole, in queue order (`admission`); those that may be suspended, packed or resized are the policy's.

The contract
- A caller makes one `Planner` and asks it from one thread: `plan` after events, `introspect` once a slice.
- A snapshot is a value: the planner reads it, keeps what it needs of it, and changes nothing in it. Gangs, nodes and profiles
  that did not change should be the same objects in the next snapshot: comparing then costs a look at each. Equal ones that were
  made anew give the same answer, later.
- The same snapshot gives the same decisions, whatever was asked before: every ordering ends in a name.
- Decisions are to be carried out in order. None relies on an earlier one having succeeded: the next snapshot shows what came
  true, and the next plan goes on from there.
- Only verbs of `Settings.verbs` are decided.
- A pass that raises leaves nothing behind: the next one starts from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from muster.scheduling.admission.admission import admit
from muster.scheduling.decisions import Admission, Decision
from muster.scheduling.gang import Gang
from muster.scheduling.planner_cache import PlannerCache
from muster.scheduling.policies.gandiva import policy as gandiva
from muster.scheduling.policies.muster import policy as muster
from muster.scheduling.session import Session
from muster.scheduling.settings import DEFAULTS, Policy, Settings
from muster.scheduling.snapshot import Snapshot


class Planner:
    """Answers as `plan` and `introspect` do, sooner where little changed since it was last asked."""

    def __init__(self, settings: Settings = DEFAULTS) -> None:
        self.settings = settings
        self.cache = PlannerCache()

    def plan(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Decide for every gang that waits or is to change, and for those that share what they hold."""
        with self._session(snapshot, now) as session:
            if self.settings.policy is Policy.GANDIVA:
                _gandiva(session, gandiva.react)
            else:
                _muster(session, muster.react)
            return session.decided()

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Judge what was tried, and share the GPUs anew."""
        with self._session(snapshot, now) as session:
            if self.settings.policy is Policy.GANDIVA:
                _gandiva(session, gandiva.introspect)
            elif session.index.shares and (snapshot.profiles or session.index.waiting or session.index.sized):
                _muster(session, muster.introspect, always=True)
            return session.decided()

    @contextmanager
    def _session(self, snapshot: Snapshot, now: float) -> Iterator[Session]:
        """Open a session on what is kept, and take back at its end what it decided; forget all where it fails."""
        try:
            session = Session(snapshot, now, self.settings, self.cache)
            with session.occupancy.trial(), session.capacity.trial():
                yield session
        except BaseException:
            self.cache = PlannerCache()
            raise


def plan(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Make one reactive pass, from nothing."""
    return Planner(settings).plan(snapshot, now)


def introspect(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Make one introspective pass, from nothing."""
    return Planner(settings).introspect(snapshot, now)


def _muster(session: Session, act: Callable[[Session], None], *, always: bool = False) -> None:
    """Ours: gangs that share leave it to their rank where they start."""
    admitted = _admitted(session)
    acts = always or muster.has_work(session, admitted)
    session.apply_all(decision for decision in admitted if not (acts and muster.leaves_to_rank(decision)))
    if acts:
        act(session)


def _gandiva(session: Session, act: Callable[[Session], None]) -> None:
    """The paper's for gangs that take turns; the others, and those that cannot start yet, are admitted as ever."""
    session.apply_all(_admitted(session, lambda gang: not gang.sharing.slices or not gang.is_ready(session.now)))
    if session.index.shares:
        act(session)


def _admitted(session: Session, which: Callable[[Gang], bool] | None = None) -> list[Admission]:
    """What admission decides; what waiting gangs reserve there does not bind the policy."""
    with session.trial():
        return admit(session, which)
