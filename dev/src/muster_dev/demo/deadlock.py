"""The count of deadlocked gangs: the workload of the lecture's experiment and its arithmetic. Pure.

A synchronous job trains only when all of its learners run. A learner that holds a GPU while its gang is incomplete is
deadlocked as long as nothing else can start, and its GPU idles.
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
    """The state of a learner in the cluster."""

    gang: str
    placed: bool
    """Whether it has a node, be it still running or ended."""
    gpus: int
    """The number of GPUs that it holds now."""


@dataclass(frozen=True)
class Count:
    """The learners that hold GPUs while their gang is incomplete, and the number of those GPUs."""

    deadlocked_learners: int = 0
    idle_gpus: int = 0

    def __or__(self, other: Count) -> Count:
        """Return the worse of two counts."""
        return max(self, other, key=lambda count: (count.idle_gpus, count.deadlocked_learners))


def workload(jobs: int = JOBS, seed: int = SEED) -> dict[str, int]:
    """Return the number of learners (1 GPU each) of each job, by name; the same seed gives the same jobs."""
    chance = random.Random(seed)
    return {f"job-{index:02}": chance.randint(FEWEST, MOST) for index in range(jobs)}


def arrivals(jobs: dict[str, int], seed: int = SEED) -> list[tuple[str, int]]:
    """Return all learners (job, index) in the shuffled order of independent arrivals."""
    learners = [(name, index) for name, size in jobs.items() for index in range(size)]
    random.Random(seed).shuffle(learners)
    return learners


def partial(jobs: dict[str, int], learners: Iterable[Learner]) -> dict[str, Count]:
    """Return the count of each gang of which some learners hold GPUs while others have no node."""
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
class DeadlockWatch:
    """Samples the gangs: a gang that stays partial longer than `patience` is deadlocked, one that is just starting is not."""

    jobs: dict[str, int]
    patience: float
    """Seconds for which a starting gang may be partial."""
    worst: Count = field(default_factory=Count)
    longest: float = 0.0
    """The longest time, in seconds, for which a gang was seen partial."""
    samples: int = 0
    _since: dict[str, float] = field(default_factory=dict)

    def sample(self, learners: Iterable[Learner], now: float) -> Count:
        """Take a sample at the time `now` (seconds) and return the deadlocked learners."""
        counts = partial(self.jobs, learners)
        self._since = {gang: self._since.get(gang, now) for gang in counts}
        ages = {gang: now - since for gang, since in self._since.items()}
        deadlocked = total(count for gang, count in counts.items() if ages[gang] > self.patience)
        self.longest = max(self.longest, *ages.values()) if ages else self.longest
        self.worst |= deadlocked
        self.samples += 1
        return deadlocked
