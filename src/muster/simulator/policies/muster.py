"""muster's own planner, called as the operator calls it."""

from __future__ import annotations

from collections.abc import Sequence

from muster.scheduling.decisions import Decision
from muster.scheduling.planner import Planner
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Snapshot


class Muster:
    """The planner with its settings."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._planner = Planner(settings or Settings())
        self.period: float | None = self._planner.settings.slice_seconds

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return self._planner.plan(snapshot, now)

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return self._planner.introspect(snapshot, now)
