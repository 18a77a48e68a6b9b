"""What an administrator may choose, and what the caller can execute."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from muster.scheduling.decisions import VERBS, Verb


class Policy(StrEnum):
    """How gangs that may be suspended, packed or resized share the GPUs."""

    MUSTER = "muster"
    """Ours: highest Gittins index first, known gains only, elastic shares by marginal throughput (`policies.muster`)."""
    GANDIVA = "gandiva"
    """As in the paper (OSDI'18): all gangs take turns, trial and error (`policies.gandiva`)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Policy, verbs, and times in seconds."""

    policy: Policy = Policy.MUSTER
    verbs: frozenset[Verb] = VERBS
    """What the caller can execute: the planner decides nothing else. Without Preempt, no gang takes another's place by
    priority; without Migrate none is moved for speed; without Pack none shares its GPUs."""
    slice_seconds: float = 60.0
    """The time between introspective passes, and the length of a turn: long compared with a suspend (0.1 to 1 s)."""
    grow_after: float = 600.0
    """How long GPUs stay idle before an elastic gang may have them, under policy gandiva."""


DEFAULTS = Settings()
