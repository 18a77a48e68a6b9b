"""Which of several gangs of equal rank start together, where not all fit.

The smallest first starts most gangs, but the large ones end up alone on a cluster that they cannot fill; the largest first
fills the cluster, but keeps many waiting. A gang that waits and a GPU that idles both cost, so each gang counts as the square
root of its GPUs, and the set that counts most is chosen: a knapsack (Dantzig, 1957), exact, over sizes, of which there are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from muster.scheduling.gang import Gang

MOST_GPUS = 256
"""With more GPUs to fill than this, who goes first hardly matters for how many stay idle."""


def starting_order(gangs: Sequence[Gang], gpus: int) -> list[Gang]:
    """Return the gangs in the order in which they should start: those that fill `gpus` GPUs best, then the others."""
    if len(gangs) < 2 or gpus > MOST_GPUS or gpus >= sum(gang.gpus for gang in gangs):
        return list(gangs)
    chosen = _best_set(gangs, gpus)
    names = {gang.name for gang in chosen}
    return [*chosen, *(gang for gang in gangs if gang.name not in names)]


def _best_set(gangs: Sequence[Gang], gpus: int) -> list[Gang]:
    """The set that counts most within `gpus`; of one size the first gangs."""
    by_size: dict[int, list[Gang]] = {}
    for gang in gangs:
        by_size.setdefault(gang.gpus, []).append(gang)
    best: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ())] * (gpus + 1)
    for size, alike in sorted(by_size.items()):
        before = list(best)
        for capacity in range(max(size, 1), gpus + 1):
            for count in range(1, min(len(alike), capacity // max(size, 1)) + 1):
                worth, taken = before[capacity - count * size]
                if worth + count * sqrt(size) > best[capacity][0] + 1e-9:
                    best[capacity] = (worth + count * sqrt(size), (*taken, (size, count)))
    return [gang for size, count in best[gpus][1] for gang in by_size[size][:count]]
