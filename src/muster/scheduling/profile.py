"""What was measured of a kind of gang: how fast it trains in each way that it ran, and what moving it costs.

A gang runs in a way: on GPUs of a shape (model, how many on each node, the slowest hop between them) and in a company (who
else is on the same GPUs, under the same PCIe switch, on the same network cards). Rates are in mini-batches per second of the
whole gang. The shell measures; the core only reads. Gandiva (OSDI'18, section 4) calls this introspection: it compares rates
before and after a decision, and needs no model of the job.

Where the rates of a gang change as its training goes on (the larger its batch, the more its progress per example depends on the
noise of its gradients: what Pollux, OSDI'21, calls goodput), its runtime reports how fast it would be now in each way in which
its kind was ever measured. That profile stands under the gang's own name, goes before its kind's, and is dropped when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Via(StrEnum):
    """What a gang shares with a neighbour."""

    GPU = "gpu"
    SWITCH = "switch"
    NIC = "nic"


CoLocation = tuple[tuple[Via, str], ...]
"""The kinds of the neighbours, each with what is shared, sorted; a kind that is there twice stands twice."""
NO_NEIGHBOURS: CoLocation = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a placement decides how fast a gang trains."""

    model: str
    """The model of its GPUs; several models are joined by "+"."""
    counts: tuple[int, ...]
    """Its GPUs on each node, most first: (2, 2)."""
    gbps: float
    """GB/s of the slowest hop between two of its GPUs on one node; infinite where no node has two."""
    between: float = float("inf")
    """GB/s that the network carries between its nodes; infinite where it has one."""

    @property
    def gpus(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a kind of gang, or of one gang; None is not measured yet."""

    rates: Mapping[tuple[Shape, CoLocation], float] = field(default_factory=dict)
    utilisation: float | None = None
    """The share of time in which its GPUs are busy when it runs alone, 0 to 1."""
    memory: float | None = None
    """The share of a GPU's memory that it needs, 0 to 1."""
    model_mb: float | None = None
    """The size of its model: what its processes exchange each mini-batch."""
    suspend_seconds: float | None = None
    """What a suspend and a resume on the same GPUs cost."""
    migrate_seconds: float | None = None
    """What going on elsewhere costs."""


UNKNOWN = Profile()
