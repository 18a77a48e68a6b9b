"""The life of a gang as the planner sees it: three states, and the verbs that lead from one to another.

A gang that arrives is queued, and one that ends is no longer in the snapshot; Wait changes nothing. The victims of a Preempt
are queued once their pods have gone, as after a Requeue.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from muster.scheduling import decisions as verb
from muster.scheduling.gang import Gang


class State(StrEnum):
    """Whether a gang has a placement, and whether it is on its GPUs."""

    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    """It has a placement, and waits there for its turn."""


TRANSITIONS: Mapping[tuple[State, State], tuple[verb.Verb, ...]] = {
    (State.QUEUED, State.RUNNING): (verb.Place, verb.Pack),
    (State.QUEUED, State.SUSPENDED): (verb.Join,),
    (State.RUNNING, State.QUEUED): (verb.Requeue, verb.Preempt, verb.Unpack),
    (State.RUNNING, State.RUNNING): (verb.Move, verb.Resize, verb.Migrate, verb.Grow, verb.Shrink),
    (State.RUNNING, State.SUSPENDED): (verb.Suspend, verb.Unpack),
    (State.SUSPENDED, State.QUEUED): (verb.Preempt,),
    (State.SUSPENDED, State.RUNNING): (verb.Resume, verb.Pack, verb.Migrate),
}
"""The verbs by which a gang comes from one state to another; of Preempt, its victims."""


def state_of(gang: Gang) -> State:
    """Return the state of a gang."""
    if not gang.placement:
        return State.QUEUED
    return State.RUNNING if gang.running else State.SUSPENDED


def diagram() -> str:
    """Return the states and verbs as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.QUEUED}: arrives", f"    {State.RUNNING} --> [*]: ends"]
    for (before, after), verbs in TRANSITIONS.items():
        lines.append(f"    {before} --> {after}: {', '.join(each.__name__ for each in verbs)}")
    return "\n".join(lines)
