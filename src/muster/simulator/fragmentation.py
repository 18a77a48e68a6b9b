"""How many of the free GPUs the jobs that come cannot use: fragmentation as FGD counts it (Weng et al., ATC'23), over time.

For a pod of a certain size a node with fewer free GPUs is as good as full. Weighted by how often each size came lately, and
summed over the nodes, that is the share of free GPUs which are of no use to the next pod. Where no GPU is free, it is 0.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from operator import attrgetter

from muster.scheduling.topology.node import Node
from muster.simulator.jobs import Job

RECENT = 1000
"""Jobs that make up the mix."""
MOST_SAMPLES = 2048
FIRST_STEP = 1.0
"""Seconds between samples at first; doubled, and every other sample dropped, whenever there are too many."""


class Fragmentation:
    """Looks at the free GPUs now and then, however long the run is not too often."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._step, self._next = FIRST_STEP, 0.0
        self._jobs: deque[tuple[int, ...]] = deque()
        self._sizes: Counter[int] = Counter()

    def arrived(self, job: Job) -> None:
        """Take a job into the mix."""
        self._jobs.append(job.tasks)
        self._sizes.update(job.tasks)
        if len(self._jobs) > RECENT:
            self._sizes.subtract(self._jobs.popleft())

    def due(self, now: float) -> bool:
        return now >= self._next

    def look(self, nodes: Iterable[Node], now: float) -> None:
        self.samples.append((now, unusable(_by_free(nodes), self._sizes)))
        if len(self.samples) > MOST_SAMPLES:
            self.samples = self.samples[::2]
            self._step *= 2
        self._next = now + self._step

    def mean(self, end: float) -> float:
        """The mean over time, each sample holding until the next."""
        if not self.samples or end <= self.samples[0][0]:
            return 0.0
        steps = pairwise([*self.samples, (end, 0.0)])
        return sum(value * (until - since) for (since, value), (until, _) in steps) / (end - self.samples[0][0])


def _by_free(nodes: Iterable[Node]) -> Counter[int]:
    """How many nodes have how many free GPUs; of the sets of free GPUs there are few, so these are counted first."""
    found: Counter[int] = Counter()
    for free, count in Counter(map(attrgetter("free"), nodes)).items():
        found[free.bit_count()] += count
    return found


def unusable(free: Mapping[int, int], sizes: Mapping[int, int]) -> float:
    """Return that share for so many nodes by free GPUs, and so many pods by size; 0 to 1."""
    total, pods = sum(gpus * nodes for gpus, nodes in free.items()), sum(sizes.values())
    if not total or not pods:
        return 0.0
    lost = sum(gpus * nodes * count for gpus, nodes in free.items() for size, count in sizes.items() if size > gpus)
    return lost / (total * pods)
