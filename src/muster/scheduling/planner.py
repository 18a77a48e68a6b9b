"""plan and introspect: what the operator, and the simulator, call.

Two kinds of pass (Gandiva, OSDI'18, section 3.1). The reactive one answers an event (an arrival, a departure, a failure) and
touches little; the introspective one comes every slice and judges what earlier decisions brought. Gangs that share nothing are
admitted whole, in turn (`admission`); those that let themselves be suspended, packed or resized are the policy's.

Same snapshot, same decisions: every ordering ends in a name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from muster.scheduling.admission import admit
from muster.scheduling.decisions import Decision
from muster.scheduling.mechanisms.board import Board
from muster.scheduling.policies import gandiva, muster
from muster.scheduling.settings import DEFAULTS, Policy, Settings
from muster.scheduling.snapshot import Gang, Snapshot


def plan(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Decide for every gang that waits or wants to move, and for those that share what they hold."""
    if settings.policy is Policy.GANDIVA:
        return _gandiva(snapshot, now, settings, gandiva.react)
    admitted = admit(snapshot, now, settings)
    if not (any(map(muster.may_claim, admitted)) and any(gang.sharing.slices for gang in snapshot.gangs)):
        return admitted
    board = Board(snapshot, now, (decision for decision in admitted if not muster.leaves_to_rank(decision)))
    muster.react(board, settings)
    return board.decided()


def introspect(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Judge what was tried, and share the GPUs anew."""
    if settings.policy is Policy.GANDIVA:
        return _gandiva(snapshot, now, settings, gandiva.introspect)
    if not any(map(_can_change, snapshot.gangs)):
        return ()
    admitted = admit(snapshot, now, settings)
    board = Board(snapshot, now, (decision for decision in admitted if not muster.leaves_to_rank(decision)))
    muster.introspect(board, settings)
    return board.decided()


def _gandiva(
    snapshot: Snapshot, now: float, settings: Settings, act: Callable[[Board, Settings], None]
) -> Sequence[Decision]:
    """The paper's policy for gangs that take turns; the others are admitted as ever."""
    admitted = admit(snapshot, now, settings, lambda gang: not gang.sharing.slices)
    if not any(gang.sharing.slices or gang.asked is not None for gang in snapshot.gangs):
        return admitted
    board = Board(snapshot, now, admitted)
    act(board, settings)
    return board.decided()


def _can_change(gang: Gang) -> bool:
    """Whether an introspective pass may find something to do for the gang."""
    return gang.sharing.slices or gang.asked is not None
