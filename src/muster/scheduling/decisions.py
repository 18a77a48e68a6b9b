"""What the planner answers: values with a reason, in the order in which they are to be carried out.

Deciding changes nothing. The caller carries the decisions out and may fail half-way: the next snapshot shows what came true,
and the next plan goes on from there. A `Reason` is a word for machines; the message is a sentence with both numbers.

Each class is a verb. A caller names the verbs that it can execute in `Settings.verbs`, and the planner decides nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, get_args

from muster.scheduling.gang import Effect, Gang, Placement


class Reason(StrEnum):
    """Why a gang waits, goes, or is moved."""

    PLACED = "Placed"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    NEVER_FITS = "NeverFits"
    QUOTA_EXHAUSTED = "QuotaExhausted"
    OVER_QUOTA = "OverQuota"
    RESOURCE_QUOTA = "ExceedsResourceQuota"
    QUEUE_NOT_FOUND = "QueueNotFound"
    NOT_FOUND = "NotFound"
    BEHIND_IN_QUEUE = "BehindInQueue"
    PODS_ABSENT = "PodsAbsent"
    BACK_OFF = "BackOff"
    PODS_STOPPING = "PodsStopping"
    PREEMPTING = "Preempting"
    PREEMPTED = "Preempted"
    MIGRATED = "Migrated"
    RESIZED = "Resized"
    NO_OTHER_PLACE = "NoOtherPlace"
    NOT_THERE = "NotThere"
    UNPLANNABLE = "Unplannable"
    TIME_SLICED = "TimeSliced"
    PACKED = "Packed"
    UNDONE = "Undone"
    LOCALITY = "Locality"
    INTERFERENCE = "Interference"
    DEFRAGMENTED = "Defragmented"
    BALANCED = "Balanced"
    FASTER_GPUS = "FasterGPUs"
    GPUS_IDLE = "GPUsIdle"
    GPUS_NEEDED = "GPUsNeeded"


@dataclass(frozen=True, slots=True)
class Assignment:
    """Base of the verbs that give a gang a placement; the class says why, and so what undoes it."""

    gang: Gang
    placement: Placement
    reason: Reason
    message: str
    effect: Effect | None = None
    """What was measured, and what is expected of the decision; the next introspective pass judges it."""


@dataclass(frozen=True, slots=True)
class Place(Assignment):
    """Start a gang that has no placement."""


@dataclass(frozen=True, slots=True)
class Move(Assignment):
    """Start a gang elsewhere because its user, or whoever drains its node, asked for it."""


@dataclass(frozen=True, slots=True)
class Resize(Assignment):
    """Start a gang in the size to which its user scaled it."""


@dataclass(frozen=True, slots=True)
class Join(Assignment):
    """Give a gang a placement among gangs that take turns there; it runs when its turn comes."""


@dataclass(frozen=True, slots=True)
class Resume(Assignment):
    """Let a suspended gang go on."""


@dataclass(frozen=True, slots=True)
class Migrate(Assignment):
    """Let a running gang go on elsewhere for the sake of speed: its own, or that of gangs to come."""


@dataclass(frozen=True, slots=True)
class Pack(Assignment):
    """Let a gang run on GPUs on which another gang, `onto`, runs as well."""

    onto: str = ""


@dataclass(frozen=True, slots=True)
class Unpack(Join):
    """Undo a Pack: the gang takes turns again with the gangs whose GPUs it shared."""


@dataclass(frozen=True, slots=True)
class Grow(Assignment):
    """Give an elastic gang more GPUs."""


@dataclass(frozen=True, slots=True)
class Shrink(Assignment):
    """Take GPUs from an elastic gang."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Take a gang off its GPUs at the next mini-batch; it keeps its placement and waits there for its turn."""

    gang: Gang
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """Take a gang off its GPUs and queue it again, so that gangs that rank before it can have them."""

    gang: Gang
    reason: Reason
    message: str


class Wait(NamedTuple):  # a pass makes thousands
    """Leave the gang as it is. `until` is when the answer changes by time alone, if it does.

    `keeps` is the placement in which it will start when stopping pods have gone: in this pass no other gang gets these GPUs.
    """

    gang: Gang
    reason: Reason
    message: str
    until: float | None = None
    keeps: Placement = ()
    position: int = 0
    """The gang's position among those of its queue that wait, from 1; 0 where nobody has counted."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """Take `victims` off their GPUs and queue them again, so that `gang` can have them.

    `keeps` is the placement in which it will start then, which may be idle in part: in this pass no other gang gets these GPUs.
    """

    gang: Gang
    victims: tuple[Gang, ...]
    reason: Reason
    message: str
    keeps: Placement = ()


Admission = Place | Move | Resize | Wait | Preempt
"""What admission answers for a gang that waits, or is to move or to be resized."""
AnyAssignment = Place | Move | Resize | Join | Resume | Migrate | Pack | Unpack | Grow | Shrink
Decision = AnyAssignment | Suspend | Requeue | Wait | Preempt
Verb = type[Decision]
VERBS: frozenset[Verb] = frozenset(get_args(Decision))
"""Every verb: what the simulator can execute."""
