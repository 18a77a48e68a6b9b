"""GPU fragmentation over time: the fraction of free GPUs that arriving jobs cannot use, after FGD (Weng et al., ATC'23).

A node with fewer free GPUs than a pod asks for is useless to that pod. The measure weights each pod size by its recent
frequency and sums over the nodes; it is 0 if no GPU is free.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from operator import attrgetter

from muster.scheduling.topology.node import Node
from muster.simulator.jobs import Job

RECENT = 1000
"""The number of latest jobs whose pod sizes make up the mix."""
MOST_SAMPLES = 2048
FIRST_STEP = 1.0
"""Initial seconds between samples; at `MOST_SAMPLES` the step doubles and every other sample is dropped."""


class Fragmentation:
    """Samples of the measure, at most `MOST_SAMPLES` + 1 however long the run."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._step, self._next = FIRST_STEP, 0.0
        self._jobs: deque[tuple[int, ...]] = deque()
        self._sizes: Counter[int] = Counter()

    def arrived(self, job: Job) -> None:
        """Add a job to the mix."""
        self._jobs.append(job.tasks)
        self._sizes.update(job.tasks)
        if len(self._jobs) > RECENT:
            self._sizes.subtract(self._jobs.popleft())

    def due(self, now: float) -> bool:
        return now >= self._next

    def sample(self, nodes: Iterable[Node], now: float) -> None:
        self.samples.append((now, unusable(_by_free(nodes), self._sizes)))
        if len(self.samples) > MOST_SAMPLES:
            self.samples = self.samples[::2]
            self._step *= 2
        self._next = now + self._step

    def mean(self, end: float) -> float:
        """Return the mean over time until `end`; each sample holds until the next."""
        if not self.samples or end <= self.samples[0][0]:
            return 0.0
        steps = pairwise([*self.samples, (end, 0.0)])
        return sum(value * (until - since) for (since, value), (until, _) in steps) / (end - self.samples[0][0])


def _by_free(nodes: Iterable[Node]) -> Counter[int]:
    """The number of nodes by number of free GPUs; distinct free sets are few, so counting them first is fast."""
    nodes_by_free: Counter[int] = Counter()
    for free, count in Counter(map(attrgetter("free"), nodes)).items():
        nodes_by_free[free.bit_count()] += count
    return nodes_by_free


def unusable(free: Mapping[int, int], sizes: Mapping[int, int]) -> float:
    """Return the fraction of free GPUs that are unusable, 0 to 1: `free` counts nodes by free GPUs, `sizes` pods by size."""
    total, pods = sum(gpus * nodes for gpus, nodes in free.items()), sum(sizes.values())
    if not total or not pods:
        return 0.0
    lost = sum(gpus * nodes * count for gpus, nodes in free.items() for size, count in sizes.items() if size > gpus)
    return lost / (total * pods)
