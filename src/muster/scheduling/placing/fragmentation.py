"""Fragmentation: how much of a node's free GPUs the tasks to come will leave unused.

The measure extends FGD (Weng et al., "Beware of Fragmentation", ATC'23). There, free GPUs that a task drawn from the real mix
cannot use are fragments, and a task goes where the expected fragments grow least. This looks one task ahead. Here

- several tasks come, a geometric number of mean `horizon`: a part of a GPU that one task in twenty fits is no fragment, since
  such a task will come;
- the CPU and memory of a task (not what it asks for by name) count as well: if a node has enough for one task, that task
  uses one of its free GPUs, not all.

Parts of GPUs are in thousandths, results in GPUs. Each is worked out once for each state of a node.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import NamedTuple

from muster.scheduling.gang import Task
from muster.scheduling.memo import Memo
from muster.scheduling.placing.batches import Ask, Load
from muster.scheduling.placing.free_capacity import State
from muster.scheduling.resources import WHOLE, Resources
from muster.scheduling.topology.fleet import Fleet

HORIZON = 10.0
"""The mean number of tasks to come. From 3 to 30 the traces of openb are packed alike, within 0.4 %."""
_DIGITS = 2
"""Results are rounded to a hundredth of a GPU: the tasks to come are not known more precisely."""
_MOST_KEPT = 1 << 18


@dataclass(frozen=True, slots=True)
class TaskMix:
    """The tasks to come, by what they ask for, each with their number or any other weight.

    The caller decides what they are drawn from: the gangs of a snapshot, or a history in which the old counts less.
    """

    weights: Mapping[Ask, float]

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> TaskMix:
        """Return the mix of some tasks, each of weight 1."""
        weights: dict[Ask, float] = {}
        for task in tasks:
            ask = Ask.of(task)
            weights[ask] = weights.get(ask, 0.0) + 1.0
        return cls(weights)


class Free(NamedTuple):
    """The free capacity of a node, as far as the measure depends on it."""

    gpus: int
    """GPUs that are all free."""
    parts: tuple[int, ...]
    """The free thousandths of each shared GPU, ascending."""
    resources: Resources
    admits: int
    """The constraints of the mix that admit the node, as a bit set."""

    @classmethod
    def of(cls, state: State, admits: int) -> Free:
        resources = state.resources._replace(others=()) if state.resources.others else state.resources
        return cls(state.free.bit_count(), tuple(sorted(part for _, part in state.parts)), resources, admits)

    def after(self, ask: Ask | Task) -> list[Free]:
        """Return what a task may leave: one result for each free amount of a GPU that it may share, the fullest GPU first."""
        resources = self.resources - ask.resources
        if ask.share == WHOLE:
            return [Free(self.gpus - ask.gpus, self.parts, resources, self.admits)]
        fitting = [(self.gpus, part) for part in sorted(set(self.parts[bisect_left(self.parts, ask.share) :]))]
        whole = [(self.gpus - 1, WHOLE)] if self.gpus else []
        return [Free(gpus, self._cut(part, ask.share), resources, self.admits) for gpus, part in fitting + whole]

    def _cut(self, part: int, share: int) -> tuple[int, ...]:
        parts = list(self.parts)
        if part < WHOLE:
            parts.remove(part)
        return tuple(sorted([*parts, part - share] if part > share else parts))


class Fragmentation:
    """The fragmentation of the nodes of a fleet under a mix of tasks to come."""

    def __init__(self, mix: TaskMix, fleet: Fleet, horizon: float = HORIZON) -> None:
        weights = {ask: weight for ask, weight in mix.weights.items() if ask.gpus and weight > 0}
        total = sum(weights.values())
        self.constraints = {where: 1 << bit for bit, where in enumerate(dict.fromkeys(ask.where for ask in weights))}
        self.everything = (1 << len(self.constraints)) - 1
        """All constraints of the mix, as a bit set."""
        admitted = [(fleet.admitted[where], bit) for where, bit in self.constraints.items()]
        self.uniform = all(len(names) == len(fleet) for names, _ in admitted)
        """Whether every node admits every task of the mix."""
        self._horizon = horizon
        self._by_size: dict[tuple[int, int], list[tuple[float, Resources, int]]] = {}
        """By GPUs and share: the probability of the next task, its resources, and the bit of its constraint."""
        for ask, weight in weights.items():
            task = (weight / total, ask.resources, self.constraints[ask.where])
            self._by_size.setdefault((ask.gpus, ask.share), []).append(task)
        self._admits: Memo[str, int] = Memo(lambda node: sum(bit for names, bit in admitted if node in names))
        self._unused: Memo[Free, float] = Memo(self._expected, _MOST_KEPT)
        self._growth: Memo[Load, Memo[tuple[State, int], float]] = Memo(
            lambda load: Memo(partial(self._expected_growth, load), _MOST_KEPT)
        )

    def admits(self, node: str) -> int:
        """Return the constraints of the mix that admit a node, as a bit set."""
        return self._admits[node]

    def unused(self, free: Free) -> float:
        """Return the GPUs of a node that the tasks to come are expected to leave unused."""
        return self._unused[free]

    def choice(self, free: Free, ask: Ask | Task) -> int:
        """Return the index of the result of `free.after` that leaves least unused."""
        results = free.after(ask)
        return min(range(len(results)), key=lambda index: self._unused[results[index]])

    def growth(self, state: State, admits: int, load: Load) -> float:
        """Return by how much `unused` grows once a node has taken tasks, whole GPUs first; to a hundredth of a GPU.

        A single part of a GPU goes where it leaves least unused, several go where they fit best, so that all fit.
        """
        return self._growth[load][state, admits]

    def _expected_growth(self, load: Load, node: tuple[State, int]) -> float:
        before = after = Free.of(*node)
        single = sum(number for ask, number in load if ask.share < WHOLE) == 1
        for ask in chain.from_iterable(map(repeat, *zip(*load, strict=True))):
            after = after.after(ask)[self.choice(after, ask) if single and ask.share < WHOLE else 0]
        return round(self._unused[after] - self._unused[before], _DIGITS)

    def _expected(self, free: Free) -> float:
        """Sum over the GPUs, smallest part first: the smaller a part, the fewer tasks fit."""
        sizes = sorted({*free.parts, WHOLE} if free.gpus else set(free.parts))
        counts = [free.gpus if size == WHOLE else free.parts.count(size) for size in sizes]
        at_least = [sum(counts[index:]) for index in range(len(counts))]
        gained = [0.0] * len(sizes)
        for (gpus, share), tasks in self._by_size.items():
            index = bisect_left(sizes, share)
            if index < len(sizes) and at_least[index] >= gpus:
                gained[index] += _chance(free, tasks, gpus, at_least[index])
        unused = fits = 0.0
        for size, count, gain in zip(sizes, counts, gained, strict=True):
            fits = min(1.0, fits + gain)
            # the chance that none of a geometric number of tasks of mean h fits, if one does with chance p: (1-p) / (1-p+hp)
            unused += count * size * (1.0 - fits) / (1.0 - fits + self._horizon * fits)
        return unused / WHOLE


def _chance(free: Free, tasks: Iterable[tuple[float, Resources, int]], gpus: int, able: int) -> float:
    """The chance that the next task is one of these and can use a certain one of `able` GPUs."""
    cpu, memory, pods, _ = free.resources
    chance = 0.0
    for weight, each, bit in tasks:
        if free.admits & bit and cpu >= each.cpu and memory >= each.memory and pods >= each.pods:
            wanted = -(-able // gpus)
            if cpu < wanted * each.cpu or memory < wanted * each.memory or pods < wanted * each.pods:
                weight *= min(1.0, _times(free.resources, each) * gpus / able)
            chance += weight
    return chance


def _times(resources: Resources, each: Resources) -> int:
    """How many tasks the scarcest of CPU, memory and pods is enough for."""
    return min(has // needs for has, needs in zip(resources[:3], each[:3], strict=True) if needs)
