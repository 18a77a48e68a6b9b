"""What one task holds on one node, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from muster.scheduling.resources import NOTHING, WHOLE, Resources
from muster.scheduling.topology.links import GpuSet


class Source(StrEnum):
    """The evidence for a holding: a placement in a DLJob's status, or a pod."""

    RESERVATION = "reservation"
    POD = "pod"


@dataclass(frozen=True, slots=True)
class Holding:
    """The named GPUs that a task holds, or `count` GPUs that nobody named."""

    node: str
    gpus: GpuSet = 0
    count: int = 0
    resources: Resources = NOTHING
    leaving: bool = False
    """The pod is terminating: its GPUs come free without anybody else having to go."""
    share: int = WHOLE
    """Thousandths of each named GPU. Two tasks may hold one GPU while their shares add up to a whole one."""

    @property
    def size(self) -> int:
        """The number of GPUs, named or not."""
        return max(self.gpus.bit_count(), self.count)

    def joined(self, other: Holding) -> Holding:
        """Return the union with another holding of the same task on the same node; it stays if either does."""
        return Holding(
            self.node,
            self.gpus | other.gpus,
            max(self.count, other.count),
            self.resources.union(other.resources),
            self.leaving and other.leaving,
            max(self.share, other.share),
        )
