"""Of a DLJob what reserves GPUs."""

from __future__ import annotations

import msgspec

from muster.kube.objects.metadata import Meta, Struct


class Reserved(Struct, frozen=True):
    """One entry of a DLJob's status.placement."""

    pod: str
    node: str
    gpus: list[int] = msgspec.field(default_factory=list)
    role: str = ""


class ReservationStatus(Struct, frozen=True):
    """The part of a DLJob's status that reserves GPUs: the placement, and the number of the attempt that it is for."""

    attempt: int = 0
    placement: list[Reserved] = msgspec.field(default_factory=list)


NO_RESERVATION = ReservationStatus()


class DLJob(Struct, frozen=True):
    """A DLJob as far as it reserves GPUs."""

    metadata: Meta
    status: ReservationStatus | None = None

    @property
    def reserved(self) -> ReservationStatus:
        """What the status reserves."""
        return self.status or NO_RESERVATION
