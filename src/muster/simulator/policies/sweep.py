"""A sweep in the simulator: configurations with learning curves, and a rule of `scheduling.sweeps` that says which go on.

A configuration's error falls as one over the mini-batches that it trained, to what its best is; what it reports is its accuracy
and the chance of a test set of 10,000 images. Progress and `Job.work` are in mini-batches, at one rate for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp
from random import Random

from muster.scheduling.decisions import Decision, Place, Reason, Requeue
from muster.scheduling.gang import Gang
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.sweeps import Rule, Trial, Verdict
from muster.scheduling.topology.node import Node
from muster.simulator.engine import Run, Simulation
from muster.simulator.jobs import Job
from muster.simulator.physics import Ideal

GUESSING = 0.1
"""The accuracy of a network that knows nothing of ten classes."""
CHANCE = 0.0046
"""The deviation of an accuracy of 70 % on 10,000 images: sqrt(0.7 * 0.3 / 10,000)."""
SUSPEND_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Configuration:
    """One configuration: the accuracy at its end, and the share of a run in which it learns half of what it ever could."""

    final: float
    pace: float

    def accuracy(self, share: float) -> float:
        """Return the accuracy after this share of a run."""
        learned = share / (share + self.pace) * (1.0 + self.pace)
        return GUESSING + (self.final - GUESSING) * learned


def reaching(target: float, share: float, final: float) -> Configuration:
    """Return the configuration that comes to `target` after this share of a run, and to `final` at its end."""
    learned = (target - GUESSING) / (final - GUESSING)
    return Configuration(final, share * (1.0 - learned) / (learned - share) if learned < 1.0 else 1e-9)


def configurations(
    random: Random, count: int, mean: float, deviation: float, below: float, pace: float = 0.1, spread: float = 0.1
) -> list[Configuration]:
    """Draw configurations that end below an accuracy: normal final accuracies, log-normal paces."""
    found: list[Configuration] = []
    while len(found) < count:
        final = random.gauss(mean, deviation)
        if GUESSING <= final < below:
            found.append(Configuration(final, pace * exp(random.gauss(0.0, spread))))
    return found


@dataclass(frozen=True, slots=True)
class Training:
    """How long a run of a configuration is: `reports` intervals of `interval` mini-batches, `seconds` in all, on one GPU."""

    seconds: float
    reports: int
    interval: float = 1000.0


class _Reporting(Ideal):
    """A rate for all, and a milestone after each interval."""

    def __init__(self, training: Training) -> None:
        super().__init__(SUSPEND_SECONDS, SUSPEND_SECONDS)
        self._interval, self._rate = training.interval, training.interval * training.reports / training.seconds

    def rate(self, job: Job, done: float, shape: object, co_location: object) -> float:
        return self._rate

    def milestone(self, job: Job, done: float) -> float:
        return min(job.work, (int(done / self._interval + 1e-9) + 1) * self._interval)


class Sweep:
    """The policy of a run that is one sweep; also hears the reports."""

    period: float | None = None

    def __init__(self, rule: Rule, curves: Sequence[Configuration], training: Training, target: float, random: Random) -> None:
        self._rule, self._training, self._target, self._random = rule, training, target, random
        self._curves = {_name(index): curve for index, curve in enumerate(curves)}
        self._trials = {name: Trial(name) for name in self._curves}
        self._judging = False
        self.found: float | None = None
        """When the first trial came to the target."""

    def reported(self, simulation: Simulation, run: Run) -> None:
        """Note what a trial reports at a milestone; once all of this moment are heard, stop those that lost."""
        name = run.job.name
        trial, curve = self._trials[name], self._curves[name]
        accuracy = curve.accuracy((len(trial.reports) + 1) / self._training.reports)
        reports = (*trial.reports, accuracy + self._random.gauss(0.0, CHANCE))
        self._trials[name] = Trial(name, reports, trial.running, trial.ended)
        if accuracy >= self._target - 1e-9 and self.found is None:
            self.found = simulation.until = simulation.now
        if not self._judging:
            self._judging = True
            simulation.at(simulation.now, lambda: self._judge(simulation))

    def _judge(self, simulation: Simulation) -> bool:
        self._judging = False
        gangs = {name: simulation.cluster.gangs[name] for name in simulation.runs}
        for name, verdict in self._verdicts(gangs.values(), simulation.cluster.nodes.values()).items():
            if verdict is Verdict.STOP:
                simulation.cancel(name)
        return True

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Suspend those that wait, then start those that run."""
        verdicts = self._verdicts(snapshot.gangs, snapshot.nodes.values())
        capacity = FreeCapacity(snapshot.nodes)
        decisions: list[Decision] = []
        for gang in snapshot.gangs:
            if gang.placement and verdicts[gang.name] is not Verdict.RUN:
                capacity.give_back(gang.placement)
                decisions.append(Requeue(gang, Reason.PREEMPTED, "others promise more"))
        for gang in snapshot.gangs:
            found = place(gang, capacity) if not gang.placement and verdicts[gang.name] is Verdict.RUN else None
            if found is not None and not isinstance(found, Shortage):
                capacity.take(found)
                decisions.append(Place(gang, found, Reason.PLACED, "one of the most promising"))
        return decisions

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def _verdicts(self, gangs: Iterable[Gang], nodes: Iterable[Node]) -> dict[str, Verdict]:
        running = {gang.name: bool(gang.placement) for gang in gangs}
        for name, trial in self._trials.items():
            self._trials[name] = Trial(name, trial.reports, running.get(name, False), name not in running)
        return self._rule(list(self._trials.values()), sum(node.healthy.bit_count() for node in nodes))


def seconds_to(
    target: float,
    rule: Rule,
    curves: Sequence[Configuration],
    training: Training,
    nodes: Callable[[], Iterable[Node]],
    seed: int,
) -> float | None:
    """Return when a sweep of these configurations, all submitted at once, first comes to a target; None if it never does."""
    sweep = Sweep(rule, curves, training, target, Random(seed))
    work = training.interval * training.reports + 1.0  # the last report is heard before the end
    jobs = [Job(_name(index), 0.0, (1,), work) for index in range(len(curves))]
    Simulation(nodes(), jobs, _Reporting(training), sweep, on_milestone=sweep.reported).run()
    return sweep.found


def _name(index: int) -> str:
    return f"trial-{index:04}"
