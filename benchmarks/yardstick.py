"""Quality and speed of `place` compared with the proven optimum: `make bench-yardstick`.

Random gangs on random small clusters are placed by `place` and by OR-Tools' CP-SAT, which proves optimality for the criteria of
`optimum`. A gang counts as worse if its cost is above the optimum, or if `place` finds no placement where one exists. Gangs
without any placement do not count; `place` must then find none.

The gap of a gang with a rate function is the relative excess of its step time. Otherwise it is the difference in the last
criterion: ranks of the slowest ring, GPUs left over, or GPUs expected to stay unusable. `missed` counts the first criterion
above the optimum.

Times are CPU time on one core. `place` runs as in a pass, with compiled machine tables: the median of 15 calls. CP-SAT is timed
from the instance to the proof with one worker; "search" excludes building the model. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from statistics import median
from typing import Any

from benchmarks.optimum import CRITERIA, LAW, SCALE, Cost, Instance, Optimum

from muster.machines.catalogue import catalogue
from muster.scheduling.gang import Gang, Placement, Sensitivity, Task
from muster.scheduling.topology.links import UNLIMITED, gpu_set
from muster.scheduling.topology.machine import MachineType, machine_type
from muster.scheduling.topology.node import Level, Node

KINDS = tuple(CRITERIA)
SIZES = (1, 2, 4)
MOST_GPUS = 16
CALLS = 15


@dataclass(frozen=True)
class Outcome:
    """The result of `place` on one instance, compared with the optimum."""

    kind: str
    best: Cost
    ours: Cost | None
    """None if it found no placement."""
    gap: float
    """The distance to the optimum, in the kind's measure."""
    ratio: float
    """CP-SAT's seconds divided by those of `place`."""
    search_ratio: float
    """The same without the time to build the model."""

    @property
    def worse(self) -> bool:
        return self.ours is None or self.ours > self.best

    @property
    def missed(self) -> str:
        """The first criterion above the optimum."""
        if self.ours is None:
            return "not found"
        pairs = zip(CRITERIA[self.kind], self.ours, self.best, strict=True)
        return next((name for name, ours, best in pairs if ours != best), "")


def compare(instance: Instance) -> Outcome | None:
    """Place a gang both ways; return None if no placement exists. Raise AssertionError if `place` beats a proven optimum."""
    began = time.process_time()
    optimum = Optimum(instance)
    best = optimum.solve() if instance.usable else None
    proved = time.process_time() - began
    placement, seconds = _timed(instance)
    ours = instance.cost(placement) if placement else None
    if best is None:
        if ours is not None:
            raise AssertionError(f"placed a gang that provably does not fit: {instance}")
        return None
    if ours is not None and ours < best:
        raise AssertionError(f"{ours} beats the optimum {best}: {instance}")
    return Outcome(instance.kind, best, ours, _gap(instance.kind, ours, best), proved / seconds, optimum.seconds / seconds)


def _timed(instance: Instance) -> tuple[Placement | None, float]:
    """Return the placement and the median seconds of `place`."""
    instance.capacity, instance.fragmentation  # noqa: B018  # computed once a pass
    seconds = []
    for _ in range(CALLS):
        began = time.process_time()
        placement = instance.placed()
        seconds.append(time.process_time() - began)
    return placement, median(seconds)


def _gap(kind: str, ours: Cost | None, best: Cost) -> float:
    if ours is None:
        return UNLIMITED
    if kind == "rate":
        slow, fast = (LAW.seconds(1, cost[-1] / SCALE) for cost in (ours, best))
        return slow / fast - 1
    return (ours[-1] - best[-1]) / (SCALE if kind == "useful" else 1)


def instances(seed: int) -> Iterator[Instance]:
    """Yield random instances without end, cycling through the kinds."""
    random = Random(seed)
    machines = [machine_type(entry.links) for entry in catalogue().values() if 4 <= entry.gpus <= 8]
    for index in count():
        yield Instance(kind := KINDS[index % len(KINDS)], _gang(random, kind), _nodes(random, machines))


def _gang(random: Random, kind: str) -> Gang:
    most, sizes = random.randint(1, 6), random.choice(((1,), (2,), (4,), SIZES))
    gpus = [random.choice(sizes) for _ in range(most)]
    while sum(gpus) > MOST_GPUS:
        gpus.pop()
    tasks = tuple(Task(f"worker-{index}", size, index=index) for index, size in enumerate(gpus))
    required = random.choice((*Level, *[Level.CLUSTER] * 8))
    sensitivity = Sensitivity.HIGH if kind in ("fewest", "rate") else Sensitivity.LOW
    return Gang("gang", "default", 0.0, tasks, required=required, sensitivity=sensitivity)


def _nodes(random: Random, machines: Sequence[MachineType]) -> dict[str, Node]:
    """2 to 8 nodes of up to 3 machine types, each type with its own NIC speed, in up to 3 blocks of up to 2 racks."""
    types = [(random.choice(machines), random.choice((5.0, 12.0, 25.0))) for _ in range(random.randint(1, 3))]
    blocks, racks, idle = random.randint(1, 3), random.randint(1, 2), random.uniform(0.2, 1.0)
    nodes = {}
    for index in range(random.randint(2, 8)):
        machine, nic = random.choice(types)
        free = gpu_set([gpu for gpu in range(machine.gpus) if random.random() < idle])
        block, rack = f"block-{random.randrange(blocks)}", f"rack-{random.randrange(racks)}"
        name = f"node-{index}"
        nodes[name] = Node(name, machine, machine.all, free, nic_gbps=nic, rack=rack, block=block)
    return nodes


def outcomes(number: int, seed: int = 1) -> list[Outcome]:
    """Compare `number` instances that have a placement."""
    return list(islice(filter(None, map(compare, instances(seed))), number))


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the number of worse placements, their gaps, and the speed ratios."""
    worse = [outcome for outcome in outcomes if outcome.worse]
    gaps = [outcome.gap for outcome in worse if outcome.ours is not None]
    return {
        "instances": len(outcomes),
        "worse": len(worse),
        "not_found": sum(outcome.ours is None for outcome in outcomes),
        "missed": dict(Counter(outcome.missed for outcome in worse)),
        "worst_gap": round(max(gaps, default=0.0), 4),
        "median_gap": round(median(gaps), 4) if gaps else 0.0,
        "median_speed_ratio": round(median(outcome.ratio for outcome in outcomes)),
        "median_search_ratio": round(median(outcome.search_ratio for outcome in outcomes)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Compare random instances and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    compared = outcomes(options.instances, options.seed)
    by_kind = {kind: figures([outcome for outcome in compared if outcome.kind == kind]) for kind in KINDS}
    for kind, values in by_kind.items():
        print(f"{kind:9}", ", ".join(f"{name} {value}" for name, value in values.items()))
    print(json.dumps({**figures(compared), "kinds": by_kind}))


if __name__ == "__main__":
    main()
