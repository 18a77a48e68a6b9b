"""A gang's tasks by what they ask for, and how many of each batch a node takes.

Pods of a role ask for the same, so a search does not go through tasks: it counts how many of each batch it puts where, and says
only in the end which these are. A gang of a thousand pods has a batch or two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter, mul
from typing import NamedTuple

from muster.scheduling.gang import Task
from muster.scheduling.placing.free_capacity import State, shared
from muster.scheduling.resources import NOTHING, WHOLE, Resources
from muster.scheduling.topology.eligibility import Constraint
from muster.scheduling.topology.links import UNLIMITED, GpuSet

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


# What one node takes

ALL = -1
"""Every batch, as a bit set."""


class NodeKey(NamedTuple):
    """What of a node counts for a search beside its state."""

    model: str = ""
    card: float = UNLIMITED
    admits: int = 0
    """Which of the tasks to come it admits."""


class Bin(NamedTuple):
    """What of a node decides how many tasks it takes, and how well. Nodes that are alike in it are tried once for all."""

    state: State
    kind: NodeKey
    allowed: int = ALL
    """The batches that may go there, as a bit set."""
    held: int = 0
    """Tasks of this gang that are on the node already: spreading keeps this even."""


class Limits(NamedTuple):
    """What a layout keeps to on each node: no more tasks and GPUs, and hops and network cards that are faster than these."""

    tasks: int
    gpus: int
    hop: float = 0.0
    card: float = 0.0


def taken(one: Bin, batches: Batches, waiting: Counts, limits: Limits) -> Counts:
    """How many of the tasks that wait fit on such a node together, the first batches first; empty where none does."""
    machine, free, rest, parts = one.state
    left, most = min(free.bit_count(), limits.gpus), limits.tasks
    if one.kind.card <= limits.card:
        return ()
    pieces = [part for _, part in parts]
    chosen = [0] * len(waiting)
    for number, ask in enumerate(batches.asks):
        whole = ask.share == WHOLE
        if not waiting[number] or not one.allowed >> number & 1 or (whole and ask.gpus > left):
            continue
        fit = rest.holds(ask.resources, min(waiting[number], most))
        if not whole:
            fit, left = _cut_off(pieces, ask.share, fit, left)
        elif ask.gpus:
            fit = min(fit, left // ask.gpus)
            left -= fit * ask.gpus
        chosen[number] = fit
        most -= fit
        if number + 1 < len(waiting):
            rest = rest - ask.resources.times(fit)
    counts = tuple(chosen)
    while limits.hop and any(counts) and machine.speed(free, batches.whole(counts)) <= limits.hop:
        counts = _one_less(counts)
    return counts if any(counts) else ()


def _one_less(counts: Counts) -> Counts:
    """Without the last task."""
    last = max(number for number, count in enumerate(counts) if count)
    return (*counts[:last], counts[last] - 1, *counts[last + 1 :])


def after(one: Bin, batches: Batches, chosen: Counts) -> Bin:
    """The node once it has taken tasks; only how much of its GPUs is free matters until its share is known."""
    machine, free, rest, parts = one.state
    for ask, number in batches.load(chosen):
        for _ in range(number):
            rest = rest - ask.resources
            if ask.share < WHOLE:
                free, parts = shared(choices(State(machine, free, rest, parts), ask.share)[0], free, parts, -ask.share)
            for _ in range(ask.gpus if ask.share == WHOLE else 0):
                free &= free - 1
    return one._replace(state=State(machine, free, rest, parts), held=one.held + sum(chosen))


# Parts of GPUs


def choices(state: State, share: int) -> list[GpuSet]:
    """The GPUs of which a share is free, one for each amount that is: the fullest first, one of which all is free last."""
    first: dict[int, GpuSet] = {}
    for part, gpu in sorted((part, gpu) for gpu, part in state.parts if part >= share):
        first.setdefault(part, 1 << gpu)
    return [*first.values(), *([state.machine.leftover(state.free, 1)] if state.free else [])]


def holds(state: State, gpus: int, shares: Sequence[int]) -> bool:
    """Whether parts of GPUs fit on a node beside so many whole ones, each on the fullest GPU on which it fits."""
    left = state.free.bit_count() - gpus
    if left >= len(shares):
        return True
    pieces = [part for _, part in state.parts]
    for share in shares:
        number, left = _cut_off(pieces, share, 1, left)
        if not number:
            return False
    return True


def _cut_off(pieces: list[int], share: int, most: int, left: int) -> tuple[int, int]:
    """How often a share can be cut off the pieces, or off GPUs that are `left`; and what is left then."""
    for number in range(most):
        smallest = min((piece for piece in pieces if piece >= share), default=WHOLE)
        if smallest < WHOLE:
            pieces.remove(smallest)
        elif left:
            left -= 1
        else:
            return number, left
        pieces.append(smallest - share)
    return most, left
