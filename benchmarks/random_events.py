"""Randomised test of the policies' invariants: `make bench-random`, a million steps of simulated random events.

A run has a random cluster (machine types, GPU models, racks, blocks), random jobs (exclusive, time-sharing, packed, weighted,
elastic, with priorities, quotas, topology levels and roles) and random events: GPUs and nodes fail and recover, jobs are
cancelled. Rates are pseudo-random, so every shape and neighbour matters and no law holds. Each answer is checked
(`muster.simulator.checked`), and every run must end by the time that its jobs would take one after another at the slowest rate.
A step is a moment with an event. The last line is one JSON object; a failed run prints the command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from zlib import crc32

from rich.console import Console
from rich.progress import Progress

from muster.machines.catalogue import machine
from muster.scheduling.decisions import VERBS, Migrate, Pack
from muster.scheduling.gang import Gang, Task
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.profile import CoLocation, Profile, Shape
from muster.scheduling.settings import Policy, Settings
from muster.scheduling.snapshot import Queue
from muster.scheduling.topology.machine import MachineType, machine_type, unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.checked import Checked, InvariantError
from muster.simulator.cluster import Invalid
from muster.simulator.engine import Moment, Simulation
from muster.simulator.engine import Policy as Decider
from muster.simulator.jobs import Job, gang_of
from muster.simulator.physics import Ideal
from muster.simulator.policies.muster import Muster
from muster.simulator.traces.random_jobs import random_jobs

STEPS = 1_000_000
JOBS = 150
MACHINES = ("dgx-a100", "pcie-8", "p100", "v100", "c4140", "gh200")
QUOTAS = {"default": None, "research": 12, "tiny": 3}
SLOWEST, RESUME, MOVE = 0.2, 0.5, 10.0


class MadeUp(Ideal):
    """Pseudo-random rates from 0.2 to 1.2."""

    placement_matters = True

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:  # noqa: ARG002 (the protocol's)
        return SLOWEST + _hashed(job.kind, shape, co_location)

    def profile(self, job: Job) -> Profile:
        return Profile(utilisation=_hashed(job.kind), memory=0.2 + 0.5 * _hashed(job.kind, "memory"))


def _hashed(*values: object) -> float:
    """A pseudo-random number from 0 to 1 that depends on the arguments alone."""
    return crc32(repr(values).encode()) % 1001 / 1000


@dataclass(slots=True)
class Tally:
    """The totals of some runs."""

    steps: int = 0
    calls: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.steps += other.steps
        self.calls += other.calls
        self.decisions += other.decisions
        self.violations += other.violations


def run(seed: int, policy: Policy, jobs: int = JOBS) -> Tally:
    """Run the simulation of a seed and return its totals; a violation ends it."""
    random = Random(f"{seed} {policy}")
    tally = Tally()
    settings = Settings(
        policy=policy,
        slice_seconds=random.choice((30.0, 60.0)),
        grow_after=random.choice((60.0, 600.0)),
        verbs=VERBS - {verb for verb in (Pack, Migrate) if random.random() >= 0.8},
    )
    checked = Checked(lambda: Muster(settings))

    def count_step(_: Simulation) -> None:
        tally.steps += 1

    simulation = simulated(random, checked, jobs, count_step)
    try:
        simulation.run()
        if simulation.runs:
            raise InvariantError(f"{', '.join(simulation.runs)} did not end in time")
    except Exception as error:  # any exception is a violation
        message = str(error) if isinstance(error, InvariantError | Invalid) else repr(error)
        tally.violations.append(
            f"--policies {policy} --first {seed} --runs 1 --jobs {jobs}: at {simulation.now:g} s: {message}"
        )
    tally.calls = checked.calls
    for (verb, _), times in simulation.records.decisions.items():
        tally.decisions[verb] += times
    return tally


def simulated(random: Random, policy: Decider, jobs: int, on_moment: Moment | None = None) -> Simulation:
    """Return a simulation of random events on a random cluster."""
    nodes = [_node(random, number) for number in range(random.randint(3, 8))]
    gpus = sum(node.machine.gpus for node in nodes)
    trace = list(
        random_jobs(
            jobs, random.getrandbits(32), largest=min(16, gpus), load=random.uniform(0.5, 1.5), gpus=gpus, queues=list(QUOTAS)
        )
    )
    end = trace[-1].arrival
    until = end + 2 * sum(job.work / SLOWEST + RESUME + MOVE for job in trace)
    queues = [Queue(name, quota) for name, quota in QUOTAS.items()]
    simulation = Simulation(nodes, (), MadeUp(RESUME, MOVE), policy, until=until, queues=queues, on_moment=on_moment)
    for job in trace:
        _submit(simulation, job, _varied(random, gang_of(job)), nodes)
        if random.random() < 0.08:
            _cancel(simulation, job.name, job.arrival + random.expovariate(1 / 2000))
    for _ in range(jobs // 10):
        _fail(simulation, random, random.choice(nodes).name, random.uniform(0.0, end))
    return simulation


def _node(random: Random, number: int) -> Node:
    kind: MachineType = unknown_machine(2)
    if random.random() < 0.9:
        kind = machine_type(machine(random.choice(MACHINES)).links)
    model, rack = random.choice(("P100", "V100")), random.randrange(4)
    return Node(f"n{number}", kind, kind.all, kind.all, model, rack=f"r{rack}", block=f"b{rack // 2}")


def _varied(random: Random, gang: Gang) -> Gang:
    """The gang, sometimes with features that no trace has: a second role, preemptibility, a back-off."""
    if random.random() < 0.15:
        role = random.choice(("chief", "ps"))
        task = Task(f"{gang.name}-{role}-0", random.choice((0, 1)), role=role)
        gang = replace(gang, tasks=(*gang.tasks, task))
    if random.random() < 0.1:
        gang = replace(gang, preemptible=True)
    if random.random() < 0.1:
        gang = replace(gang, not_before=gang.arrived + random.uniform(0.0, 300.0))
    return gang


def _submit(simulation: Simulation, job: Job, gang: Gang, nodes: Sequence[Node]) -> None:
    """Let a job arrive; cancel it after a while if it can never start."""

    def arrive() -> bool:
        simulation.adopt(gang, job)
        return True

    simulation.at(job.arrival, arrive)
    quota = QUOTAS[job.queue]
    fits = not isinstance(place(gang, FreeCapacity({node.name: node for node in nodes})), Shortage)
    if not fits or gang.fewest_gpus > (quota or 1000):
        _cancel(simulation, job.name, job.arrival + 500.0)


def _cancel(simulation: Simulation, name: str, when: float) -> None:
    def cancel() -> bool:
        if name in simulation.runs:
            simulation.cancel(name)
        return True

    simulation.at(when, cancel)


def _fail(simulation: Simulation, random: Random, name: str, when: float) -> None:
    """Schedule a failure of some or all GPUs of a node, and their repair."""
    kind = simulation.cluster.nodes[name].machine
    broken = kind.all if random.random() < 0.4 else random.randint(1, kind.all)

    def set_healthy(healthy: int) -> bool:
        simulation.set_node(replace(simulation.cluster.nodes[name], healthy=healthy))
        return True

    simulation.at(when, lambda: set_healthy(kind.all & ~broken))
    simulation.at(when + random.expovariate(1 / 1500), lambda: set_healthy(kind.all))


def main(argv: Sequence[str] | None = None) -> int:
    """Run until the number of steps is reached; print violations and totals."""
    options = _parser().parse_args(argv)
    began = time.monotonic()
    total = Tally()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("steps", total=options.steps)
        for seed in count(options.first):
            if total.steps >= options.steps or seed - options.first == options.runs:
                break
            for policy in options.policies:
                tally = run(seed, policy, options.jobs)
                for violation in tally.violations:
                    print(f"python -m benchmarks.random_events {violation}", flush=True)
                total.add(tally)
            progress.update(bar, completed=total.steps)
    seconds = round(time.monotonic() - began, 1)
    totals = {"steps": total.steps, "calls": total.calls, "seconds": seconds, "violations": len(total.violations)}
    print(json.dumps(totals | {"decisions": dict(sorted(total.decisions.items()))}))
    return 1 if total.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="stop after this many steps")
    parser.add_argument("--runs", type=int, help="stop after this many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed", metavar="SEED")
    parser.add_argument("--jobs", type=int, default=JOBS, help="jobs in a run")
    parser.add_argument("--policies", type=Policy, nargs="+", default=list(Policy), metavar="POLICY")
    return parser


if __name__ == "__main__":
    sys.exit(main())
