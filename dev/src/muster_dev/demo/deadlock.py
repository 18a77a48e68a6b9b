"""Counting gangs that hold GPUs in vain: the workload of the lecture's experiment and the arithmetic over it. Pure.

A synchronous job trains only when all of its learners run. A learner that holds a GPU while its gang is not whole is
deadlocked for as long as nothing more can start, and the GPU it holds idles.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

SEED = 7
JOBS = 50
FEWEST, MOST = 2, 4


@dataclass(frozen=True)
class Learner:
    """One learner as the cluster has it."""

    gang: str
    placed: bool
    """It has a node, whether it still runs or has ended."""
    gpus: int
    """GPUs that it holds now."""


@dataclass(frozen=True)
class Count:
    """Learners that hold GPUs while their gang is not whole, and those GPUs."""

    deadlocked_learners: int = 0
    idle_gpus: int = 0

    def __or__(self, other: Count) -> Count:
        """Return the worse of both."""
        return max(self, other, key=lambda count: (count.idle_gpus, count.deadlocked_learners))


def workload(jobs: int = JOBS, seed: int = SEED) -> dict[str, int]:
    """Return jobs by name, each with its number of learners (1 GPU each); the same seed gives the same jobs."""
    chance = random.Random(seed)
    return {f"job-{index:02}": chance.randint(FEWEST, MOST) for index in range(jobs)}


def arrivals(jobs: dict[str, int], seed: int = SEED) -> list[tuple[str, int]]:
    """Return every learner (job, index) in an order as if each had come by itself."""
    learners = [(name, index) for name, size in jobs.items() for index in range(size)]
    random.Random(seed).shuffle(learners)
    return learners


def partial(jobs: dict[str, int], learners: Iterable[Learner]) -> dict[str, Count]:
    """Return the gangs of which some learners hold GPUs while others have no node, with what they hold."""
    placed: dict[str, int] = defaultdict(int)
    held: dict[str, list[int]] = defaultdict(list)
    for learner in learners:
        placed[learner.gang] += learner.placed
        if learner.gpus:
            held[learner.gang].append(learner.gpus)
    return {gang: Count(len(gpus), sum(gpus)) for gang, gpus in held.items() if placed[gang] < jobs[gang]}


def total(counts: Iterable[Count]) -> Count:
    """Return the sum."""
    counts = list(counts)
    return Count(sum(count.deadlocked_learners for count in counts), sum(count.idle_gpus for count in counts))


@dataclass
class Watchkeeper:
    """Looks at the gangs again and again: who is partial only while starting is not deadlocked, who stays so is."""

    jobs: dict[str, int]
    patience: float
    """Seconds for which a gang may be partial, on its way to being whole."""
    worst: Count = field(default_factory=Count)
    longest: float = 0.0
    """Seconds for which a gang was seen partial at most."""
    samples: int = 0
    _since: dict[str, float] = field(default_factory=dict)

    def look(self, learners: Iterable[Learner], now: float) -> Count:
        """Take one look at the time `now` (seconds) and return what is deadlocked by it."""
        now_partial = partial(self.jobs, learners)
        self._since = {gang: self._since.get(gang, now) for gang in now_partial}
        ages = {gang: now - since for gang, since in self._since.items()}
        stuck = total(count for gang, count in now_partial.items() if ages[gang] > self.patience)
        self.longest = max(self.longest, *ages.values()) if ages else self.longest
        self.worst |= stuck
        self.samples += 1
        return stuck
