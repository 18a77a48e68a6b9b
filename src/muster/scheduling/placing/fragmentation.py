"""Fragmentation: how much of a node's free GPUs the tasks that are to come will leave unused.

The measure grows out of FGD (Weng et al., "Beware of Fragmentation", ATC'23): free GPUs that a task drawn from those that
really come cannot use are fragments, and a task should go where it makes the expected fragments grow least. That looks one
task ahead. Two things are added here:

- Not one task comes but several, a geometric number of mean `horizon`. A part of a GPU that one task in twenty fits is no
  fragment: its task will come. What none of them will fit is.
- Tasks that need much CPU or memory beside a GPU use up a node before its GPUs are: where what they need is there once, they
  can use one of the free GPUs, not all.

Parts of GPUs are in thousandths, results in GPUs. Each is worked out once for each state of a node.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple

from muster.scheduling.gang import Task
from muster.scheduling.placing.batches import Ask, Load
from muster.scheduling.placing.free_capacity import State
from muster.scheduling.resources import WHOLE, Resources
from muster.scheduling.topology.fleet import Fleet

HORIZON = 10.0
"""The tasks ahead that are looked at, on average. From 3 to 30 the traces of openb are packed alike, within 0.4 %."""
_DIGITS = 2
"""A hundredth of a GPU more or less is no difference: what comes is known no better."""
_REMEMBERED = 1 << 18


@dataclass(frozen=True, slots=True)
class TaskMix:
    """The tasks that come, by what they ask for: how many of each kind there are, or any weight in their place.

    Whoever makes it decides what it is made of: the gangs of a snapshot, or a history in which the old counts less.
    """

    weights: Mapping[Ask, float]

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> TaskMix:
        """Count tasks."""
        weights: dict[Ask, float] = {}
        for task in tasks:
            ask = Ask.of(task)
            weights[ask] = weights.get(ask, 0.0) + 1.0
        return cls(weights)


class Free(NamedTuple):
    """What of a node the measure depends on."""

    gpus: int
    """GPUs of which everything is free."""
    parts: tuple[int, ...]
    """Thousandths that are free of each shared GPU, ascending."""
    resources: Resources
    admits: int
    """Which constraints of the mix admit the node, as a bit set."""

    @classmethod
    def of(cls, state: State, admits: int) -> Free:
        """What is free of a node in a state."""
        return cls(state.free.bit_count(), tuple(sorted(part for _, part in state.parts)), state.resources, admits)

    def after(self, ask: Ask | Task) -> list[Free]:
        """What may be left once the node has taken a task: one for each kind of GPU that it may share, the fullest first."""
        rest = self.resources - ask.resources
        if ask.share == WHOLE:
            return [Free(self.gpus - ask.gpus, self.parts, rest, self.admits)]
        first = bisect_left(self.parts, ask.share)
        left = [self._without(part, rest, ask.share) for part in sorted(set(self.parts[first:]))]
        if self.gpus:
            left.append(Free(self.gpus - 1, tuple(sorted((*self.parts, WHOLE - ask.share))), rest, self.admits))
        return left

    def _without(self, part: int, rest: Resources, share: int) -> Free:
        parts = list(self.parts)
        parts.remove(part)
        if part > share:
            parts.append(part - share)
        return Free(self.gpus, tuple(sorted(parts)), rest, self.admits)


class Fragmentation:
    """What is left unused of nodes of a fleet by the tasks of a mix."""

    def __init__(self, mix: TaskMix, fleet: Fleet, horizon: float = HORIZON) -> None:
        asked = {ask: weight for ask, weight in mix.weights.items() if ask.gpus and weight > 0}
        total = sum(asked.values())
        self.constraints = {where: 1 << bit for bit, where in enumerate(dict.fromkeys(ask.where for ask in asked))}
        self._admitted = [(fleet.admitted(where), bit) for where, bit in self.constraints.items()]
        self._horizon = horizon
        self._kinds: dict[tuple[int, int], list[tuple[float, Resources, int]]] = {}
        for ask, weight in asked.items():
            kind = self._kinds.setdefault((ask.gpus, ask.share), [])
            kind.append((weight / total, ask.resources, self.constraints[ask.where]))
        self.uniform = all(len(names) == len(fleet) for names, _ in self._admitted)
        """Whether every node admits every task of the mix."""
        self.everything = (1 << len(self.constraints)) - 1
        self._admits: dict[str, int] = {}
        self._unused: dict[Free, float] = {}
        self._growth: dict[Load, dict[tuple[State, int], float]] = {}

    def admits(self, node: str) -> int:
        """Return which constraints of the mix admit a node."""
        found = self._admits.get(node)
        if found is None:
            found = self._admits[node] = sum(bit for names, bit in self._admitted if node in names)
        return found

    def unused(self, free: Free) -> float:
        """Return the GPUs of a node that the tasks to come are expected to leave unused."""
        found = self._unused.get(free)
        if found is None:
            if len(self._unused) > _REMEMBERED:
                self._unused.clear()
            found = self._unused[free] = self._work_out(free)
        return found

    def choice(self, free: Free, ask: Ask | Task) -> int:
        """Return on which of the kinds of GPU of `free.after` a task leaves least unused."""
        left = free.after(ask)
        return min(range(len(left)), key=lambda kind: self.unused(left[kind]))

    def growth(self, state: State, admits: int, load: Load) -> float:
        """Return by how much `unused` grows once a node has taken tasks, whole GPUs first; to a hundredth of a GPU.

        A single part of a GPU goes where it leaves least unused; several go where they fit best, so that all fit.
        """
        known = self._growth.setdefault(load, {})
        key = (state, admits)
        found = known.get(key)
        if found is None:
            if len(known) > _REMEMBERED:
                known.clear()
            free = left = Free.of(state, admits)
            lone = sum(number for ask, number in load if ask.share < WHOLE) == 1
            for ask in chain.from_iterable(map(repeat, *zip(*load, strict=True))):
                left = left.after(ask)[self.choice(left, ask) if lone and ask.share < WHOLE else 0]
            found = known[key] = round(self.unused(left) - self.unused(free), _DIGITS)
        return found

    def _work_out(self, free: Free) -> float:
        """Sum over the GPUs, smallest first: the smaller a part, the fewer kinds of task fit."""
        sizes = sorted({*free.parts, WHOLE} if free.gpus else set(free.parts))
        counts = [free.parts.count(size) for size in sizes]
        if free.gpus:
            counts[-1] = free.gpus
        from_here = [sum(counts[index:]) for index in range(len(counts))]
        gained = [0.0] * len(sizes)
        for (gpus, share), asks in self._kinds.items():
            index = bisect_left(sizes, share)
            if index < len(sizes) and from_here[index] >= gpus:
                gained[index] += _chance(free, asks, gpus, from_here[index])
        unused = fits = 0.0
        for size, count, gain in zip(sizes, counts, gained, strict=True):
            fits = min(1.0, fits + gain)
            # the chance that none of a geometric number of tasks of mean h fits, if one does with chance p: (1-p) / (1-p+hp)
            unused += count * size * (1.0 - fits) / (1.0 - fits + self._horizon * fits)
        return unused / WHOLE


def _chance(free: Free, asks: Iterable[tuple[float, Resources, int]], gpus: int, able: int) -> float:
    """The chance that the next task is one of these and can use a certain one of `able` GPUs."""
    cpu, memory, pods = free.resources.cpu, free.resources.memory, free.resources.pods
    chance = 0.0
    for weight, rest, bit in asks:
        if free.admits & bit and cpu >= rest.cpu and memory >= rest.memory and pods >= rest.pods:
            wanted = -(-able // gpus)
            if cpu < wanted * rest.cpu or memory < wanted * rest.memory or pods < wanted * rest.pods:
                weight *= min(1.0, _times(free.resources, rest) * gpus / able)
            chance += weight
    return chance


def _times(rest: Resources, each: Resources) -> int:
    """How often there is what a task needs, of what there is too little for all."""
    pairs = ((rest.cpu, each.cpu), (rest.memory, each.memory), (rest.pods, each.pods))
    return min(there // needed for there, needed in pairs if needed)
