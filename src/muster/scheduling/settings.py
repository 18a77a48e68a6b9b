"""What an administrator may choose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Policy(StrEnum):
    """How gangs that let themselves be suspended, packed or resized share the GPUs."""

    MUSTER = "muster"
    """Ours: least attained service first, known gains only, elastic shares by marginal throughput (`policies.muster`)."""
    GANDIVA = "gandiva"
    """As in the paper (OSDI'18): everyone takes turns, trial and error (`policies.gandiva`)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an administrator may choose; times in seconds."""

    policy: Policy = Policy.MUSTER
    preemption: bool = True
    """Whether a waiting gang may take the place of running gangs of lower priority."""
    slice_seconds: float = 60.0
    """The time between introspective passes, and the length of a turn: long beside what a suspend costs (0.1 to 1 s)."""
    grow_after: float = 600.0
    """How long GPUs stay idle before an elastic gang may have them, under policy gandiva."""
    packing: bool = True
    migration: bool = True


DEFAULTS = Settings()
