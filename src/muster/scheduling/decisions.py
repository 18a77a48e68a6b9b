"""What the planner answers: values with a reason, in the order in which they are to be carried out.

Deciding changes nothing. Whoever called carries the decisions out and may fail half-way: the next snapshot shows what came
true, and the next plan goes on from there. A `Reason` is a word for machines; the message is a sentence with both numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from muster.scheduling.snapshot import Gang, Placement


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


@dataclass(frozen=True, slots=True)
class Place:
    """Start the gang here; for a gang that has a place already, move it here."""

    gang: Gang
    placement: Placement
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave the gang as it is. `until` is when the answer changes by time alone, if it does."""

    gang: Gang
    reason: Reason
    message: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Preempt:
    """Take `victims` off their GPUs and queue them again, so that `gang` can have them."""

    gang: Gang
    victims: tuple[Gang, ...]
    reason: Reason
    message: str


Decision = Place | Wait | Preempt
