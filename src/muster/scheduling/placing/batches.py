"""A gang's tasks by what they ask for, and how many of them a node takes.

Pods of a role ask for the same, so a search does not go through tasks: it counts how many of each batch it puts where, and says
only in the end which these are. A gang of a thousand pods has a batch or two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter, mul
from typing import NamedTuple

from muster.scheduling.gang import Task
from muster.scheduling.resources import NOTHING, WHOLE, Resources
from muster.scheduling.topology.eligibility import Constraint

ROLE_ORDER = {"chief": 0, "worker": 1, "ps": 2, "evaluator": 3}
"""Where the ranks of a role come; roles that are not known come last."""
Counts = tuple[int, ...]
"""A number of tasks of each batch."""


class Ask(NamedTuple):
    """What a task asks for."""

    gpus: int
    share: int
    resources: Resources
    where: Constraint

    @classmethod
    def of(cls, task: Task) -> Ask:
        return cls(task.gpus, task.share, task.resources, task.where)


class Batch(NamedTuple):
    """The tasks of a role that ask for the same, by index."""

    ask: Ask
    role: int
    """Its place in the order of roles."""
    tasks: Sequence[Task]


class Batches:
    """The batches of some tasks, those of the largest tasks first."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        alike: dict[tuple[str, int, int, Resources, Constraint], list[Task]] = {}
        for task in tasks:
            alike.setdefault((task.role, task.gpus, task.share, task.resources, task.where), []).append(task)
        self.all = [
            Batch(Ask(gpus, share, rest, where), ROLE_ORDER.get(role, len(ROLE_ORDER)), sorted(tasks, key=_BY_INDEX))
            for (role, gpus, share, rest, where), tasks in alike.items()
        ]
        if len(self.all) > 1:
            self.all.sort(key=_largest_first)
        self.asks = [batch.ask for batch in self.all]
        self.counts: Counts = tuple([len(batch.tasks) for batch in self.all])
        self._gpus = [ask.gpus if ask.share == WHOLE else 0 for ask in self.asks]
        self.shares: list[int] = []
        """The parts of GPUs that are asked for."""
        self.resources = NOTHING
        """What all tasks ask for beside GPUs."""
        for ask, number in zip(self.asks, self.counts, strict=True):
            self.resources = self.resources + ask.resources.times(number)
            if ask.share < WHOLE:
                self.shares += [ask.share] * number

    def whole(self, counts: Counts) -> int:
        """The whole GPUs of so many tasks."""
        return sum(map(mul, counts, self._gpus))

    def load(self, counts: Counts) -> Load:
        """What so many tasks ask for."""
        return tuple(zip(self.asks, counts, strict=True))


Load = tuple[tuple[Ask, int], ...]
"""How many tasks there are that ask for something."""


_BY_INDEX = attrgetter("index", "name")


def _largest_first(batch: Batch) -> tuple[int, int, int, str]:
    first = batch.tasks[0]
    return (-batch.ask.gpus * batch.ask.share, batch.role, first.index, first.name)
