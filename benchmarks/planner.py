"""What one planning pass costs: `make bench-planner`.

    queue    5,000 nodes, 40,000 GPUs, full of gangs that run; 10,000 more are queued, which have run for hours if they share.
             Each second a few gangs end and a few come, and the policy is asked: the planner that remembers, and beside it
             one that starts from nothing.
    running  5,000 jobs of 50 kinds that run, elastic ones and ones that may be packed among them, whose rates are measured,
             and 25 that come when hardly a GPU is idle; every minute an introspective pass.

The simulator makes the snapshots and carries out what is decided, as in any simulation. Seconds are CPU time of this process,
since the clock on the wall also counts what else the machine does; the median, and the longest. The planner with a memory must
answer as the one from nothing. Garbage is collected between passes, not in them. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from statistics import median
from typing import Any
from zlib import crc32

from muster.scheduling.decisions import Decision
from muster.scheduling.gang import EXCLUSIVE, Sharing
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster.scheduling.planner import Planner
from muster.scheduling.profile import CoLocation, Profile, Shape, Via
from muster.scheduling.settings import Policy, Settings
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.node import Level
from muster.simulator.engine import Simulation
from muster.simulator.jobs import Job, gang
from muster.simulator.physics import Ideal
from muster.simulator.scenario import Cluster

GPUS_PER_NODE = 8
QUEUED = 10_000
RUNNING = 5_000
FEW = 25
KINDS = 50
SIZES = (1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 32, 64)
FOREVER = 1e9
MINUTE, HOUR = 60.0, 3600.0
TURNS = Sharing(slices=True)
PACKS = Sharing(slices=True, packs=True)
SECTION = {"little changed": 0.05, "from nothing": 1.0, "introspective": 0.2}
"""Seconds that a pass may take."""

Pass = Callable[[Snapshot, float], Sequence[Decision]]


@dataclass
class Timed:
    """The planner, each pass timed; with `beside`, one that starts from nothing is asked too, and must say the same."""

    settings: Settings
    beside: bool = True
    period: float | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """By kind of pass."""

    def __post_init__(self) -> None:
        self._planner = Planner(self.settings)

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        decisions = self._time("little changed", self._planner.plan, snapshot, now)
        if self.beside and decisions != self._time("from nothing", Planner(self.settings).plan, snapshot, now):
            raise AssertionError(f"at {now:g} s the planner with a memory decided otherwise than one without")
        return decisions

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return self._time("introspective", self._planner.introspect, snapshot, now)

    def _time(self, kind: str, act: Pass, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        gc.collect()
        gc.disable()
        began = time.process_time()
        decisions = act(snapshot, now)
        self.seconds.setdefault(kind, []).append(time.process_time() - began)
        gc.enable()
        return decisions


class Kinds(Ideal):
    """Rates of 50 kinds, made up: some do well with few links, some bear neighbours, each has its own speed."""

    placement_matters = True

    def rate(self, job: Job, _: float, shape: Shape, co_location: CoLocation) -> float:
        links = 1.0 - 0.5 * _of_name(job.kind, "links") * (len(shape.counts) > 1)
        lost = sum(0.8 * _of_name(job.kind, other) if via is Via.GPU else 0.1 for via, other in co_location)
        return (0.5 + _of_name(job.kind)) * shape.gpus * links / (1.0 + lost)

    def profile(self, job: Job) -> Profile:
        return Profile(utilisation=_of_name(job.kind, "busy"), memory=0.2 + 0.4 * _of_name(job.kind, "memory"))


def _of_name(*things: object) -> float:
    """A number from 0 to 1 that follows from nothing."""
    return crc32(repr(things).encode()) % 1001 / 1000


def queue(policy: Policy, sharing: Sharing, repeats: int) -> dict[str, list[float]]:
    """Time the passes over a full cluster and a long queue; return seconds by kind of pass."""
    random = Random(1)
    timed = Timed(Settings(policy))
    simulation = Simulation(_nodes(5_000), (), Ideal(), timed, until=repeats)
    _occupy(simulation, (replace(_job(random, f"here-{i:04}", 0.0, sharing), priority=10) for i in count()))
    for index in range(QUEUED):
        job = _job(random, f"queued-{index:05}", 0.0, sharing)
        simulation.adopt(replace(gang(job), attained=job.gpus * random.uniform(HOUR, 10 * HOUR)), job)
    for second in range(1, repeats + 1):
        _change(simulation, random, float(second), sharing)
    simulation.run()
    return {kind: seconds[2:] for kind, seconds in timed.seconds.items()}


def _occupy(simulation: Simulation, jobs: Iterable[Job]) -> None:
    """Let jobs run from the start, until there are no more of them or the cluster is full."""
    capacity = FreeCapacity(simulation.cluster.nodes)
    for job in jobs:
        found = find(gang(job), capacity)
        if found:
            capacity.take(found)
            simulation.adopt(replace(gang(job), placement=found, attained=job.gpus * MINUTE), job)
        elif capacity.total < 10:
            return


def _change(simulation: Simulation, random: Random, when: float, sharing: Sharing) -> None:
    """A few running gangs end, as many come."""

    def change() -> bool:
        running = sorted(name for name, found in simulation.cluster.gangs.items() if found.placement)
        for name in random.sample(running, 3):
            simulation.cancel(name)
        return True

    simulation.at(when, change)
    for index in range(3):
        simulation.submit(_job(random, f"new-{when:g}-{index}", when, sharing))


def running(policy: Policy, repeats: int) -> dict[str, list[float]]:
    """Time the introspective passes over many running jobs that share, and a few more; return seconds by kind of pass."""
    random = Random(2)
    jobs = [_mixed(random, index) for index in range(RUNNING + FEW)]
    nodes = _nodes(int(sum(job.gpus for job in jobs[:RUNNING]) * 1.005) // GPUS_PER_NODE)
    timed = Timed(Settings(policy), beside=False, period=60.0)
    simulation = Simulation(nodes, (), Kinds(), timed, until=60.0 * repeats)
    _occupy(simulation, jobs[:RUNNING])
    for job in jobs[RUNNING:]:
        simulation.submit(job)
    simulation.run()
    return {"introspective": timed.seconds["introspective"][2:]}


def _mixed(random: Random, index: int) -> Job:
    size = random.choice((1, 1, 1, 2, 2, 4, 8, 16))
    tasks = (min(size, GPUS_PER_NODE),) * max(1, size // GPUS_PER_NODE)
    most = 2 if random.random() < 0.1 and len(tasks) == 1 else None
    kind = f"kind-{random.randrange(KINDS):02}"
    return Job(f"job-{index:04}", 0.0, tasks, FOREVER, kind, most=most, sharing=random.choice((TURNS, PACKS)))


def _nodes(number: int) -> list[Any]:
    groups = [{"count": number, "machine": "dgx-a100", "name": "node"}]
    return Cluster.model_validate({"groups": groups, "nodes_per_rack": 16, "racks_per_block": 8}).nodes()


def _job(random: Random, name: str, arrival: float, sharing: Sharing) -> Job:
    gpus = random.choice(SIZES)
    tasks = (min(gpus, GPUS_PER_NODE),) * max(1, gpus // GPUS_PER_NODE)
    required = Level.RACK if random.random() < 0.1 else Level.CLUSTER
    priority = random.choice((0, 0, 0, 10))
    return Job(name, arrival, tasks, FOREVER, priority=priority, sharing=sharing, required=required, queue=f"q{len(tasks)}")


CASES: dict[str, Callable[[int], dict[str, list[float]]]] = {
    "queue, exclusive gangs": lambda repeats: queue(Policy.MUSTER, EXCLUSIVE, repeats),
    "queue, gangs that share, muster": lambda repeats: queue(Policy.MUSTER, TURNS, repeats),
    "5,000 running, muster": lambda repeats: running(Policy.MUSTER, repeats),
    "5,000 running, gandiva": lambda repeats: running(Policy.GANDIVA, repeats),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Time each case, and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=12, help="passes of a case")
    parser.add_argument("--only", default="", help="cases whose name has this in it", metavar="WORD")
    options = parser.parse_args(argv)
    figures = []
    print(f"{'CPU milliseconds of a pass':34} {'pass':16} {'median':>8} {'longest':>8} {'at most':>8}")
    for name, case in CASES.items():
        if options.only not in name:
            continue
        for kind, seconds in case(options.repeats).items():
            found = [round(1000 * figure, 2) for figure in (median(seconds), max(seconds), SECTION[kind])]
            print(f"{name:34} {kind:16} {found[0]:8.1f} {found[1]:8.1f} {found[2]:8.0f}", flush=True)
            figures.append({"case": name, "pass": kind, "median_ms": found[0], "longest_ms": found[1], "target_ms": found[2]})
    print(json.dumps({"passes": figures}))


if __name__ == "__main__":
    main()
