"""The CPU time of one planning pass: `make bench-planner`.

    queue    5,000 nodes with 40,000 GPUs, all in use; 10,000 more gangs are queued, with hours of attained time if they share.
             Each second three gangs end and three arrive, and two planners run a pass: one with a warm cache and a fresh one.
    running  5,000 running jobs of 50 kinds with measured rates, some elastic and some packable, and 25 jobs that arrive when
             hardly a GPU is idle; one introspective pass a minute.

The simulator makes the snapshots and carries out the decisions. Times are CPU time of this process, which excludes other load
on the machine; the median and the maximum are reported. The planner with a warm cache must decide as the fresh one. Garbage is
collected between passes only. The last line is JSON.
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
from muster.simulator.jobs import Job, gang_of
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
TARGETS = {"little changed": 0.05, "from nothing": 1.0, "introspective": 0.2}
"""The target in seconds, by kind of pass."""

Pass = Callable[[Snapshot, float], Sequence[Decision]]


@dataclass
class Timed:
    """The planner with a timer; with `compare`, a fresh planner must make the same decisions, timed as well."""

    settings: Settings
    compare: bool = True
    period: float | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """CPU seconds of each pass, by kind of pass."""

    def __post_init__(self) -> None:
        self._planner = Planner(self.settings)

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        decisions = self._time("little changed", self._planner.plan, snapshot, now)
        if self.compare and decisions != self._time("from nothing", Planner(self.settings).plan, snapshot, now):
            raise AssertionError(f"at {now:g} s the planner with a warm cache and a fresh one decided differently")
        return decisions

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return self._time("introspective", self._planner.introspect, snapshot, now)

    def _time(self, kind: str, run_pass: Pass, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        gc.collect()
        gc.disable()
        began = time.process_time()
        decisions = run_pass(snapshot, now)
        self.seconds.setdefault(kind, []).append(time.process_time() - began)
        gc.enable()
        return decisions


class Kinds(Ideal):
    """Synthetic rates of 50 kinds, which differ in speed and in sensitivity to links and neighbours."""

    placement_matters = True

    def rate(self, job: Job, _: float, shape: Shape, co_location: CoLocation) -> float:
        links = 1.0 - 0.5 * _hashed(job.kind, "links") * (len(shape.counts) > 1)
        loss = sum(0.8 * _hashed(job.kind, other) if via is Via.GPU else 0.1 for via, other in co_location)
        return (0.5 + _hashed(job.kind)) * shape.gpus * links / (1.0 + loss)

    def profile(self, job: Job) -> Profile:
        return Profile(utilisation=_hashed(job.kind, "busy"), memory=0.2 + 0.4 * _hashed(job.kind, "memory"))


def _hashed(*values: object) -> float:
    """A pseudo-random number from 0 to 1 that depends on the arguments alone."""
    return crc32(repr(values).encode()) % 1001 / 1000


def queue(policy: Policy, sharing: Sharing, repeats: int) -> dict[str, list[float]]:
    """Time passes over a full cluster with a long queue; return CPU seconds by kind of pass."""
    random = Random(1)
    timed = Timed(Settings(policy))
    simulation = Simulation(_nodes(5_000), (), Ideal(), timed, until=repeats)
    _occupy(simulation, (replace(_job(random, f"here-{i:04}", 0.0, sharing), priority=10) for i in count()))
    for index in range(QUEUED):
        job = _job(random, f"queued-{index:05}", 0.0, sharing)
        simulation.adopt(replace(gang_of(job), attained=job.gpus * random.uniform(HOUR, 10 * HOUR)), job)
    for second in range(1, repeats + 1):
        _change(simulation, random, float(second), sharing)
    simulation.run()
    return {kind: seconds[2:] for kind, seconds in timed.seconds.items()}


def _occupy(simulation: Simulation, jobs: Iterable[Job]) -> None:
    """Let jobs run from the start until they or the GPUs are used up."""
    capacity = FreeCapacity(simulation.cluster.nodes)
    for job in jobs:
        placement = find(gang_of(job), capacity)
        if placement:
            capacity.take(placement)
            simulation.adopt(replace(gang_of(job), placement=placement, attained=job.gpus * MINUTE), job)
        elif capacity.total < 10:
            return


def _change(simulation: Simulation, random: Random, when: float, sharing: Sharing) -> None:
    """Schedule the end of three running gangs and the arrival of three jobs."""

    def change() -> bool:
        running = sorted(name for name, gang in simulation.cluster.gangs.items() if gang.placement)
        for name in random.sample(running, 3):
            simulation.cancel(name)
        return True

    simulation.at(when, change)
    for index in range(3):
        simulation.submit(_job(random, f"new-{when:g}-{index}", when, sharing))


def running(policy: Policy, repeats: int) -> dict[str, list[float]]:
    """Time introspective passes over many sharing jobs and a few queued ones; return CPU seconds by kind of pass."""
    random = Random(2)
    jobs = [_mixed(random, index) for index in range(RUNNING + FEW)]
    nodes = _nodes(int(sum(job.gpus for job in jobs[:RUNNING]) * 1.005) // GPUS_PER_NODE)
    timed = Timed(Settings(policy), compare=False, period=60.0)
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
    """Time each case and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=12, help="passes of a case")
    parser.add_argument("--only", default="", help="only cases whose name contains this", metavar="WORD")
    options = parser.parse_args(argv)
    figures = []
    print(f"{'CPU milliseconds of a pass':34} {'pass':16} {'median':>8} {'longest':>8} {'at most':>8}")
    for name, case in CASES.items():
        if options.only not in name:
            continue
        for kind, seconds in case(options.repeats).items():
            middle, longest, target = (round(1000 * value, 2) for value in (median(seconds), max(seconds), TARGETS[kind]))
            print(f"{name:34} {kind:16} {middle:8.1f} {longest:8.1f} {target:8.0f}", flush=True)
            figures.append({"case": name, "pass": kind, "median_ms": middle, "longest_ms": longest, "target_ms": target})
    print(json.dumps({"passes": figures}))


if __name__ == "__main__":
    main()
