"""The tasks of a gang in batches of equal tasks, and the number of tasks of each batch that a node takes.

The pods of a role ask for the same, so a search decides only how many of each batch go to which node; which pods these are
follows in the end. A gang of a thousand pods has a batch or two.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter, mul
from typing import NamedTuple

from muster.scheduling.gang import Task
from muster.scheduling.placing.free_capacity import State, shared
from muster.scheduling.resources import WHOLE, Resources
from muster.scheduling.topology.eligibility import Constraint
from muster.scheduling.topology.links import UNLIMITED, GpuSet

ROLE_ORDER = {"chief": 0, "worker": 1, "ps": 2, "evaluator": 3}
"""Roles in the order of their ranks; all others come last."""
ALL = -1
"""Every batch, as a bit set."""
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


Load = tuple[tuple[Ask, int], ...]
"""What tasks ask for, each with the number of these tasks."""


class Batch(NamedTuple):
    """The tasks of a role that ask for the same, by index."""

    ask: Ask
    role: int
    """The position in ROLE_ORDER."""
    tasks: Sequence[Task]


class Batches:
    """The batches of some tasks, those of the largest tasks first."""

    def __init__(self, tasks: Iterable[Task], kind: Callable[[Task], Hashable] | None = None) -> None:
        """`kind` tells tasks apart that ask for the same, by the rules between pods."""
        alike: dict[tuple[str, int, int, Resources, Constraint, Hashable], list[Task]] = {}
        for task in tasks:
            key = (task.role, task.gpus, task.share, task.resources, task.where, kind(task) if kind else None)
            alike.setdefault(key, []).append(task)
        self.all = [
            Batch(Ask(gpus, share, resources, where), ROLE_ORDER.get(role, len(ROLE_ORDER)), sorted(tasks, key=_BY_INDEX))
            for (role, gpus, share, resources, where, _), tasks in alike.items()
        ]
        if len(self.all) > 1:
            self.all.sort(key=_largest_first)
        self.asks = [batch.ask for batch in self.all]
        self.counts: Counts = tuple([len(batch.tasks) for batch in self.all])
        self._gpus = [ask.gpus if ask.share == WHOLE else 0 for ask in self.asks]
        self.parts = sum([len(batch.tasks) for batch in self.all if batch.ask.share < WHOLE])
        """The number of tasks that take a part of a GPU."""

    def whole(self, counts: Counts) -> int:
        """Return the whole GPUs of this many tasks."""
        return sum(map(mul, counts, self._gpus))

    def load(self, counts: Counts) -> Load:
        """Return the load of this many tasks."""
        return tuple(zip(self.asks, counts, strict=True))


_BY_INDEX = attrgetter("index", "name")


def _largest_first(batch: Batch) -> tuple[int, int, int, str]:
    first = batch.tasks[0]
    return (-batch.ask.gpus * batch.ask.share, batch.role, first.index, first.name)


# The tasks that one node takes


class NodeKey(NamedTuple):
    """What matters of a node besides its state."""

    model: str = ""
    nic_gbps: float = UNLIMITED
    admits: int = 0
    """The constraints of tasks to come that admit the node, as a bit set."""
    preference: int = 0
    """How much the tasks prefer the node."""


class FillKey(NamedTuple):
    """What decides how many tasks a node takes, and how well: nodes with equal keys are tried once for all."""

    state: State
    node: NodeKey = NodeKey()
    allowed: int = ALL
    """The batches that may use the node, as a bit set."""
    held: int = 0
    """The tasks of this gang that the node has already, which spreading keeps even."""
    caps: Counts = ()
    """How many tasks of each batch rules between pods allow at once, of one batch at a time; empty: there are none."""


class Limits(NamedTuple):
    """Limits of a layout for each node: the most tasks and GPUs; rings and network cards have to be faster than these GB/s."""

    tasks: int
    gpus: int
    ring: float = 0.0
    nic_gbps: float = 0.0


def taken(key: FillKey, batches: Batches, waiting: Counts, limits: Limits) -> Counts:
    """Return how many of the waiting tasks fit on a node together, the first batches first; empty if none does."""
    machine, free, resources, parts = key.state
    left, most = min(free.bit_count(), limits.gpus), limits.tasks
    if key.node.nic_gbps <= limits.nic_gbps:
        return ()
    pieces = [part for _, part in parts]
    chosen = [0] * len(waiting)
    for number, ask in enumerate(batches.asks):
        whole = ask.share == WHOLE
        if not waiting[number] or not key.allowed >> number & 1 or (whole and ask.gpus > left):
            continue
        fitting = resources.holds(ask.resources, min(waiting[number], most, key.caps[number] if key.caps else most))
        if not whole:
            fitting, left = _cut(pieces, ask.share, fitting, left)
        elif ask.gpus:
            fitting = min(fitting, left // ask.gpus)
            left -= fitting * ask.gpus
        chosen[number] = fitting
        if key.caps and fitting:
            break
        most -= fitting
        if number + 1 < len(waiting):
            resources = resources - ask.resources.times(fitting)
    counts = tuple(chosen)
    while limits.ring and any(counts) and machine.speed(free, batches.whole(counts)) <= limits.ring:
        last = max(number for number, count in enumerate(counts) if count)
        counts = (*counts[:last], counts[last] - 1, *counts[last + 1 :])
    return counts if any(counts) else ()


def after_all(key: FillKey, ask: Ask, tasks: int) -> FillKey:
    """Return the key of a node that has taken some more tasks."""
    for _ in range(tasks):
        key = after(key, ask)
    return key


def after(key: FillKey, ask: Ask) -> FillKey:
    """Return the key of a node that has taken one more task; of its free GPUs, only the number is right."""
    machine, free, resources, parts = key.state
    if ask.share < WHOLE:
        free, parts = shared(choices(key.state, ask.share)[0], free, parts, -ask.share)
    else:
        for _ in range(ask.gpus):
            free &= free - 1
    return key._replace(state=State(machine, free, resources - ask.resources, parts), held=key.held + 1)


# Parts of GPUs


def choices(state: State, share: int) -> list[GpuSet]:
    """Return GPUs that have a share free, one for each free amount: the fullest first, a GPU that is all free last."""
    by_part: dict[int, GpuSet] = {}
    for part, gpu in sorted((part, gpu) for gpu, part in state.parts if part >= share):
        by_part.setdefault(part, 1 << gpu)
    return [*by_part.values(), *([state.machine.leftover(state.free, 1)] if state.free else [])]


def _cut(pieces: list[int], share: int, most: int, left: int) -> tuple[int, int]:
    """How often a share fits into the pieces and the GPUs that are `left`, up to `most`; and the GPUs left after it."""
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
