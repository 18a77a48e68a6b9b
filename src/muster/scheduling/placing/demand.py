"""What comes, taken from what is there: the tasks of the gangs that run or wait, by what they ask for.

The mix follows from the gangs of a snapshot alone. It is coarse, so that it seldom becomes another one: of each kind of task
only the order of magnitude counts, to a power of two. What was worked out for a mix is kept, also for when it comes back.
"""

from __future__ import annotations

from muster.scheduling.gang import Gang
from muster.scheduling.placing.batches import Ask
from muster.scheduling.placing.fragmentation import Fragmentation, TaskMix
from muster.scheduling.topology.fleet import Fleet

ENOUGH = 32
"""Tasks that tell what comes; with fewer, nobody says."""
_REMEMBERED = 16
"""Mixes whose fragmentation is kept."""
Mix = frozenset[tuple[Ask, int]]
"""Kinds of tasks, each with the power of two that is not over their number."""


class Demand:
    """The tasks of the gangs that run or wait, by what they ask for."""

    def __init__(self) -> None:
        self._counts: dict[Ask, int] = {}
        self._total = 0
        self._mix: Mix | None = None
        """The mix of these counts, unless one of them became another power of two since."""
        self._fleet: Fleet | None = None
        self._known: dict[Mix, Fragmentation] = {}

    def fragmentation(self, fleet: Fleet) -> Fragmentation | None:
        """Return how much the tasks of these gangs would leave unused, or None where they are too few to tell."""
        if self._total < ENOUGH:
            return None
        if fleet is not self._fleet or len(self._known) > _REMEMBERED:
            self._fleet, self._known = fleet, {}
        if self._mix is None:
            self._mix = frozenset((ask, _magnitude(count)) for ask, count in self._counts.items())
        if self._mix not in self._known:
            self._known[self._mix] = Fragmentation(
                TaskMix({ask: 2.0**power for ask, power in sorted(self._mix, key=_order)}), fleet
            )
        return self._known[self._mix]

    def count(self, gang: Gang, change: int) -> None:
        """Count a gang in (1) or out (-1)."""
        for task in gang.tasks:
            if task.gpus:
                ask = Ask.of(task)
                before = self._counts.pop(ask, 0)
                if before + change:
                    self._counts[ask] = before + change
                self._total += change
                if _magnitude(before) != _magnitude(before + change):
                    self._mix = None


def _magnitude(count: int) -> int:
    """The power of two that is not over the count; -1 for none."""
    return count.bit_length() - 1


def _order(kind: tuple[Ask, int]) -> tuple[object, ...]:
    """One order for all, since sums of floats depend on it."""
    ask, _ = kind
    return (ask.gpus, ask.share, ask.resources.cpu, ask.resources.memory, ask.resources.pods, repr(ask.where))
