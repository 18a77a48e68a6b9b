"""plan and introspect: what the operator, and the simulator, call.

Two kinds of pass (Gandiva, OSDI'18, section 3.1). The reactive one answers an event (an arrival, a departure, a failure) and
touches little; the introspective one comes every slice and judges what earlier decisions brought. Gangs that share nothing are
admitted whole, in turn (`admission`); those that let themselves be suspended, packed or resized are the policy's.

Same snapshot, same decisions: every ordering ends in a name.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.scheduling.admission import admit
from muster.scheduling.decisions import Decision
from muster.scheduling.mechanisms.board import Board
from muster.scheduling.policies import gandiva, muster
from muster.scheduling.settings import DEFAULTS, Policy, Settings
from muster.scheduling.snapshot import Gang, Snapshot


def plan(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Decide for every gang that waits or wants to move, and for those that share what they hold."""
    shared = any(map(_shares, snapshot.gangs))
    if not shared:
        return admit(snapshot, now, settings)
    if settings.policy is Policy.GANDIVA:
        board = Board(snapshot, now, admit(snapshot, now, settings, lambda gang: not gang.sharing.slices))
        gandiva.react(board, settings)
    else:
        board = Board(snapshot, now, admit(snapshot, now, settings))
        muster.react(board, settings)
    return board.decided()


def introspect(snapshot: Snapshot, now: float, settings: Settings = DEFAULTS) -> Sequence[Decision]:
    """Judge what was tried, and share the GPUs anew."""
    if not any(map(_shares, snapshot.gangs)):
        return ()
    if settings.policy is Policy.GANDIVA:
        board = Board(snapshot, now)
        gandiva.introspect(board, settings)
    else:
        board = Board(snapshot, now, admit(snapshot, now, settings))
        muster.introspect(board, settings)
    return board.decided()


def _shares(gang: Gang) -> bool:
    return gang.sharing.slices or gang.sharing.packs or gang.asked is not None
