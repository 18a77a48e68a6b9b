"""What the planner answers: values with a reason, in the order in which they are to be carried out.

Deciding changes nothing. Whoever called carries the decisions out and may fail half-way: the next snapshot shows what came
true, and the next plan goes on from there. A `Reason` is a word for machines; the message is a sentence with both numbers.

Most decisions put a gang somewhere (`Put`); the class says why it is done, and so what undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from muster.scheduling.gang import Effect, Gang, Placement


class Reason(StrEnum):
    """Why a gang waits, goes, or is moved."""

    PLACED = "Placed"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    NEVER_FITS = "NeverFits"
    QUOTA_EXHAUSTED = "QuotaExhausted"
    OVER_QUOTA = "OverQuota"
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
class Put:
    """Let the gang run on these GPUs from now on."""

    gang: Gang
    placement: Placement
    reason: Reason
    message: str
    effect: Effect | None = None
    """What was measured, and what is expected of the decision; the next introspective pass judges it."""


@dataclass(frozen=True, slots=True)
class Place(Put):
    """Start a gang that waits; for one that has a place already, move it here."""


@dataclass(frozen=True, slots=True)
class Join(Put):
    """Give a gang a place among those that take turns there; it runs when its turn comes."""


@dataclass(frozen=True, slots=True)
class Resume(Put):
    """Let a gang that was suspended go on."""


@dataclass(frozen=True, slots=True)
class Migrate(Put):
    """Let a gang go on elsewhere."""


@dataclass(frozen=True, slots=True)
class Pack(Put):
    """Let a gang run on GPUs on which another, `onto`, runs as well."""

    onto: str = ""


@dataclass(frozen=True, slots=True)
class Unpack(Join):
    """Undo a Pack: the gang takes turns again with those whose GPUs it shared."""


@dataclass(frozen=True, slots=True)
class Grow(Put):
    """Give an elastic gang more GPUs."""


@dataclass(frozen=True, slots=True)
class Shrink(Put):
    """Take GPUs from an elastic gang."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Take a gang off its GPUs at the next mini-batch; with `stays` it keeps its place there and waits for its turn."""

    gang: Gang
    reason: Reason
    message: str
    stays: bool = True


class Wait(NamedTuple):  # a pass makes thousands
    """Leave the gang as it is. `until` is when the answer changes by time alone, if it does.

    `keeps` is where it will start when pods that are stopping have gone: in this pass nobody else gets these GPUs.
    """

    gang: Gang
    reason: Reason
    message: str
    until: float | None = None
    keeps: Placement = ()


@dataclass(frozen=True, slots=True)
class Preempt:
    """Take `victims` off their GPUs and queue them again, so that `gang` can have them.

    `keeps` is where it will start then, which may be idle in part: in this pass nobody else gets these GPUs.
    """

    gang: Gang
    victims: tuple[Gang, ...]
    reason: Reason
    message: str
    keeps: Placement = ()


Admission = Place | Wait | Preempt
"""What a reactive pass answers for gangs that share nothing."""
Decision = Put | Suspend | Wait | Preempt
