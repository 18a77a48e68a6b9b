"""The demand: the tasks of the gangs that run or wait, from which the tasks to come are drawn.

Of each kind of task only the order of magnitude counts, to a power of two, so the mix seldom changes; the fragmentation of a
mix is kept, and serves again when the mix comes back.
"""

from __future__ import annotations

from muster.scheduling.gang import Gang
from muster.scheduling.placing.batches import Ask
from muster.scheduling.placing.fragmentation import Fragmentation, TaskMix
from muster.scheduling.topology.fleet import Fleet

ENOUGH = 32
"""The fewest tasks that predict those to come."""
_MOST_KEPT = 16
"""Mixes whose fragmentation is kept."""
Mix = frozenset[tuple[Ask, int]]
"""What tasks ask for, each with the largest power of two that does not exceed their number."""


class Demand:
    """The tasks of the gangs that run or wait, counted by what they ask for."""

    def __init__(self) -> None:
        self._counts: dict[Ask, int] = {}
        self._total = 0
        self._mix: Mix | None = None
        """The mix of these counts; None once a count has reached another power of two."""
        self._fleet: Fleet | None = None
        self._by_mix: dict[Mix, Fragmentation] = {}

    def fragmentation(self, fleet: Fleet) -> Fragmentation | None:
        """Return the fragmentation of a fleet under this demand; None if the tasks are too few to predict those to come."""
        if self._total < ENOUGH:
            return None
        if fleet is not self._fleet or len(self._by_mix) > _MOST_KEPT:
            self._fleet, self._by_mix = fleet, {}
        if self._mix is None:
            self._mix = frozenset((ask, _magnitude(count)) for ask, count in self._counts.items())
        if self._mix not in self._by_mix:
            weights = {ask: 2.0**power for ask, power in sorted(self._mix, key=_order)}
            self._by_mix[self._mix] = Fragmentation(TaskMix(weights), fleet)
        return self._by_mix[self._mix]

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
    return count.bit_length() - 1


def _order(weighted: tuple[Ask, int]) -> tuple[object, ...]:
    """A total order, since sums of floats depend on it."""
    ask, _ = weighted
    return (ask.gpus, ask.share, *ask.resources, repr(ask.where))
