"""How far `place` is from the optimum, and how much faster: `make bench-yardstick`.

Random gangs on random small clusters are placed twice: by `place`, and by OR-Tools' CP-SAT, which proves that nothing is better
by the criteria of `optimum`. A gang that is sent away although there is a placement is worse off, too. Gangs that have no
placement do not count; `place` must then find none.

Gaps: of gangs with a rate the part by which a step is longer than the best, of the others by how much the last criterion is
missed: ranks of the slowest ring, GPUs left over, GPUs expected to stay unused. `missed` tells in which criterion.

Seconds are CPU time on one core. `place` is asked as in a pass, which asks for one gang after the other, with the tables of its
machines compiled: the median of 15.
CP-SAT goes from the instance to the proof with one worker; "search" leaves out the making of the model. The last line is JSON.
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

from benchmarks.optimum import CRITERIA, FINE, LAW, Cost, Instance, Optimum

from muster.machines.catalogue import catalogue
from muster.scheduling.gang import Gang, Placement, Sensitivity, Task
from muster.scheduling.topology.links import UNLIMITED, gpu_set
from muster.scheduling.topology.machine import MachineType, machine_type
from muster.scheduling.topology.node import Level, Node

KINDS = tuple(CRITERIA)
SIZES = (1, 2, 4)
MOST_GPUS = 16
ASKED = 15


@dataclass(frozen=True)
class Outcome:
    """What `place` reached on one instance, beside the best."""

    kind: str
    best: Cost
    ours: Cost | None
    """None where it found no place."""
    gap: float
    """How far from the best, by the kind's measure."""
    ratio: float
    """CP-SAT's seconds beside ours."""
    search_ratio: float
    """The same without the making of the model."""

    @property
    def worse(self) -> bool:
        return self.ours is None or self.ours > self.best

    @property
    def missed(self) -> str:
        """The first criterion in which the best is not reached."""
        if self.ours is None:
            return "not found"
        pairs = zip(CRITERIA[self.kind], self.ours, self.best, strict=True)
        return next((name for name, ours, best in pairs if ours != best), "")


def compare(instance: Instance) -> Outcome | None:
    """Place a gang both ways; return None where it has no place, and raise where `place` beats a proved optimum."""
    began = time.process_time()
    optimum = Optimum(instance)
    best = optimum.solve() if instance.usable else None
    proved = time.process_time() - began
    placement, seconds = _timed(instance)
    ours = instance.cost(placement) if placement else None
    if best is None:
        if ours is not None:
            raise AssertionError(f"placed a gang that has no place: {instance}")
        return None
    if ours is not None and ours < best:
        raise AssertionError(f"{ours} beats the optimum {best}: {instance}")
    return Outcome(instance.kind, best, ours, _gap(instance.kind, ours, best), proved / seconds, optimum.seconds / seconds)


def _timed(instance: Instance) -> tuple[Placement | None, float]:
    """Return what `place` finds, and its seconds."""
    instance.capacity, instance.fragmentation  # noqa: B018  # a pass has them already
    seconds = []
    for _ in range(ASKED):
        began = time.process_time()
        placement = instance.placed()
        seconds.append(time.process_time() - began)
    return placement, median(seconds)


def _gap(kind: str, ours: Cost | None, best: Cost) -> float:
    if ours is None:
        return UNLIMITED
    if kind == "rate":
        slow, fast = (LAW.seconds(1, cost[-1] / FINE) for cost in (ours, best))
        return slow / fast - 1
    return (ours[-1] - best[-1]) / (FINE if kind == "useful" else 1)


def instances(seed: int) -> Iterator[Instance]:
    """Draw instances without end, the kinds in turn."""
    random = Random(seed)
    machines = [machine_type(known.links) for known in catalogue().values() if 4 <= known.gpus <= 8]
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
    """2 to 8 nodes of up to 3 machine types, each type with its network cards, in up to 3 blocks of up to 2 racks."""
    types = [(random.choice(machines), random.choice((5.0, 12.0, 25.0))) for _ in range(random.randint(1, 3))]
    blocks, racks, idle = random.randint(1, 3), random.randint(1, 2), random.uniform(0.2, 1.0)
    found = {}
    for index in range(random.randint(2, 8)):
        machine, nic = random.choice(types)
        free = gpu_set([gpu for gpu in range(machine.gpus) if random.random() < idle])
        block, rack = f"block-{random.randrange(blocks)}", f"rack-{random.randrange(racks)}"
        name = f"node-{index}"
        found[name] = Node(name, machine, machine.all, free, nic_gbps=nic, rack=rack, block=block)
    return found


def outcomes(number: int, seed: int = 1) -> list[Outcome]:
    """Compare so many instances that have a placement."""
    return list(islice(filter(None, map(compare, instances(seed))), number))


def figures(found: Sequence[Outcome]) -> dict[str, Any]:
    """Return how many are worse, by how much, and how much faster the answer came."""
    worse = [one for one in found if one.worse]
    gaps = [one.gap for one in worse if one.ours is not None]
    return {
        "instances": len(found),
        "worse": len(worse),
        "not_found": sum(one.ours is None for one in found),
        "missed": dict(Counter(one.missed for one in worse)),
        "worst_gap": round(max(gaps, default=0.0), 4),
        "median_gap": round(median(gaps), 4) if gaps else 0.0,
        "median_speed_ratio": round(median(one.ratio for one in found)),
        "median_search_ratio": round(median(one.search_ratio for one in found)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Compare random instances, and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    found = outcomes(options.instances, options.seed)
    by_kind = {kind: figures([one for one in found if one.kind == kind]) for kind in KINDS}
    for kind, its in by_kind.items():
        print(f"{kind:9}", ", ".join(f"{name} {figure}" for name, figure in its.items()))
    print(json.dumps({**figures(found), "kinds": by_kind}))


if __name__ == "__main__":
    main()
