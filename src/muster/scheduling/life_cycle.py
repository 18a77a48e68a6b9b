"""The life of a gang as the planner sees it: three states, and the verbs that lead from one to another.

A gang that arrives is queued, and one that ends is no longer in the snapshot; Wait changes nothing. The victims of a Preempt
are queued once their pods have gone, as after a Requeue.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import groupby

from muster.scheduling.decisions import (
    Grow,
    Join,
    Migrate,
    Move,
    Pack,
    Place,
    Preempt,
    Requeue,
    Resize,
    Resume,
    Shrink,
    Suspend,
    Unpack,
    Verb,
)
from muster.scheduling.gang import Gang


class State(StrEnum):
    """Whether a gang has a placement, and whether it is on its GPUs."""

    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    """It has a placement, and waits there for its turn."""


Transition = tuple[State, Verb, State]

_QUEUED, _RUNNING, _SUSPENDED = State
TRANSITIONS: tuple[Transition, ...] = (
    (_QUEUED, Place, _RUNNING),
    (_QUEUED, Pack, _RUNNING),
    (_QUEUED, Join, _SUSPENDED),
    (_SUSPENDED, Resume, _RUNNING),
    (_SUSPENDED, Pack, _RUNNING),
    (_SUSPENDED, Migrate, _RUNNING),
    (_SUSPENDED, Preempt, _QUEUED),
    (_RUNNING, Suspend, _SUSPENDED),
    (_RUNNING, Unpack, _SUSPENDED),
    (_RUNNING, Unpack, _QUEUED),
    (_RUNNING, Requeue, _QUEUED),
    (_RUNNING, Preempt, _QUEUED),
    (_RUNNING, Move, _RUNNING),
    (_RUNNING, Resize, _RUNNING),
    (_RUNNING, Migrate, _RUNNING),
    (_RUNNING, Grow, _RUNNING),
    (_RUNNING, Shrink, _RUNNING),
)
"""From a state, by a verb, to a state; of Preempt, that of its victims."""


def state_of(gang: Gang) -> State:
    """Return the state of a gang."""
    if not gang.placement:
        return State.QUEUED
    return State.RUNNING if gang.running else State.SUSPENDED


def diagram() -> str:
    """Return the states and verbs as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.QUEUED}: arrives", f"    {State.RUNNING} --> [*]: ends"]
    by_ends = sorted(TRANSITIONS, key=lambda transition: (transition[0], transition[2]))
    for (before, after), transitions in groupby(by_ends, key=lambda transition: (transition[0], transition[2])):
        lines.append(f"    {before} --> {after}: {', '.join(verb.__name__ for _, verb, _ in transitions)}")
    return "\n".join(lines)
