"""Profiles: the measured rates of a kind of gang, by shape and co-location, and the cost of moving it.

The shape of a placement is the GPU model, the GPUs on each node and the slowest hop between them; the co-location is the
neighbours on the same GPUs, under the same PCIe switch and on the same network cards. Rates are in mini-batches per second of
the whole gang. The caller measures; the planner only reads. Gandiva (OSDI'18, section 4) calls this introspection: it compares
rates before and after a decision, and needs no model of the job.

The rates of some gangs change during training: the larger the batch, the more the progress per example depends on the noise of
the gradients (goodput, in Pollux, OSDI'21). The runtime of such a gang reports its present rate for every shape and co-location
that was ever measured of its kind. This profile has the gang's own name, takes precedence over the profile of the kind, and is
dropped when the gang ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Via(StrEnum):
    """The hardware that two neighbours share."""

    GPU = "gpu"
    SWITCH = "switch"
    NIC = "nic"


CoLocation = tuple[tuple[Via, str], ...]
"""The shared hardware and the kind of each neighbour, sorted; two neighbours of one kind are two entries."""
NO_NEIGHBOURS: CoLocation = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a placement decides how fast a gang trains."""

    model: str
    """The model of its GPUs; several models are joined by "+"."""
    counts: tuple[int, ...]
    """Its GPUs on each node, most first: (2, 2)."""
    gbps: float
    """GB/s of the slowest hop between two of its GPUs on one node; infinite if no node has two."""
    between: float = float("inf")
    """GB/s of the network between its nodes; infinite for one node."""

    @property
    def gpus(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Profile:
    """The measurements of a kind of gang, or of one gang; None where nothing was measured yet."""

    rates: Mapping[tuple[Shape, CoLocation], float] = field(default_factory=dict)
    utilisation: float | None = None
    """The share of time in which its GPUs are busy without neighbours, 0 to 1."""
    memory: float | None = None
    """The share of a GPU's memory that it needs, 0 to 1."""
    model_mb: float | None = None
    """The size of its model, which its processes exchange each mini-batch."""
    suspend_seconds: float | None = None
    """The cost of suspending and resuming it on the same GPUs."""
    migrate_seconds: float | None = None
    """The cost of moving it to other GPUs."""


UNKNOWN = Profile()
