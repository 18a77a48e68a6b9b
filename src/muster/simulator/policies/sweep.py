"""A simulated hyperparameter sweep: configurations with learning curves, and a stopping rule of `muster.sweeps`.

The accuracy of a configuration approaches its limit as one over the number of trained mini-batches. A report is the accuracy
plus the sampling error of a test set of 10,000 images. Progress and `Job.work` are in mini-batches, at one rate for all trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp
from random import Random

from muster.scheduling.decisions import Decision, Place, Reason, Requeue
from muster.scheduling.gang import Gang
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.node import Node
from muster.simulator.engine import Run, Simulation
from muster.simulator.jobs import Job
from muster.simulator.physics import Ideal
from muster.sweeps import Rule, Trial, Verdict

GUESSING = 0.1
"""The accuracy of an untrained network with ten classes."""
SAMPLING_ERROR = 0.0046
"""The standard deviation of a measured accuracy of 70 % on 10,000 images: sqrt(0.7 * 0.3 / 10,000)."""
SUSPEND_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Configuration:
    """One configuration: its final accuracy, and the fraction of a run after which it has learned half of its limit."""

    final: float
    pace: float

    def accuracy(self, fraction: float) -> float:
        """Return the accuracy after this fraction of a run."""
        learned = fraction / (fraction + self.pace) * (1.0 + self.pace)
        return GUESSING + (self.final - GUESSING) * learned


def reaching(target: float, fraction: float, final: float) -> Configuration:
    """Return the configuration that reaches `target` after this fraction of a run, and `final` at its end."""
    learned = (target - GUESSING) / (final - GUESSING)
    return Configuration(final, fraction * (1.0 - learned) / (learned - fraction) if learned < 1.0 else 1e-9)


def configurations(
    random: Random, count: int, mean: float, deviation: float, below: float, pace: float = 0.1, spread: float = 0.1
) -> list[Configuration]:
    """Draw configurations with final accuracies below `below`: normal final accuracies, log-normal paces."""
    drawn: list[Configuration] = []
    while len(drawn) < count:
        final = random.gauss(mean, deviation)
        if GUESSING <= final < below:
            drawn.append(Configuration(final, pace * exp(random.gauss(0.0, spread))))
    return drawn


@dataclass(frozen=True, slots=True)
class Training:
    """The length of a full run on one GPU: `reports` intervals of `interval` mini-batches, `seconds` in total."""

    seconds: float
    reports: int
    interval: float = 1000.0


class _Reporting(Ideal):
    """One rate for all jobs, and a milestone after each interval."""

    def __init__(self, training: Training) -> None:
        super().__init__(SUSPEND_SECONDS, SUSPEND_SECONDS)
        self._interval, self._rate = training.interval, training.interval * training.reports / training.seconds

    def rate(self, job: Job, done: float, shape: object, co_location: object) -> float:
        return self._rate

    def milestone(self, job: Job, done: float) -> float:
        return min(job.work, (int(done / self._interval + 1e-9) + 1) * self._interval)


class Sweep:
    """The policy of a run with one sweep; also receives the reports."""

    period: float | None = None

    def __init__(self, rule: Rule, curves: Sequence[Configuration], training: Training, target: float, random: Random) -> None:
        self._rule, self._training, self._target, self._random = rule, training, target, random
        self._curves = {_name(index): curve for index, curve in enumerate(curves)}
        self._trials = {name: Trial(name) for name in self._curves}
        self._judging = False
        self.reached_at: float | None = None
        """The time at which the first trial reached the target."""

    def reported(self, simulation: Simulation, run: Run) -> None:
        """Record a trial's report at a milestone; after all reports of a moment, stop the trials that the rule rejects."""
        name = run.job.name
        trial, curve = self._trials[name], self._curves[name]
        accuracy = curve.accuracy((len(trial.reports) + 1) / self._training.reports)
        reports = (*trial.reports, accuracy + self._random.gauss(0.0, SAMPLING_ERROR))
        self._trials[name] = Trial(name, reports, trial.running, trial.ended)
        if accuracy >= self._target - 1e-9 and self.reached_at is None:
            self.reached_at = simulation.until = simulation.now
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
        """Suspend trials that the rule makes wait, then start those that it runs."""
        verdicts = self._verdicts(snapshot.gangs, snapshot.nodes.values())
        capacity = FreeCapacity(snapshot.nodes)
        decisions: list[Decision] = []
        for gang in snapshot.gangs:
            if gang.placement and verdicts[gang.name] is not Verdict.RUN:
                capacity.give_back(gang.placement)
                decisions.append(Requeue(gang, Reason.PREEMPTED, "other trials rank higher"))
        for gang in snapshot.gangs:
            result = place(gang, capacity) if not gang.placement and verdicts[gang.name] is Verdict.RUN else None
            if result is not None and not isinstance(result, Shortage):
                capacity.take(result)
                decisions.append(Place(gang, result, Reason.PLACED, "ranked among the best trials"))
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
    """Return the seconds until a sweep of configurations submitted together first reaches a target; None if it never does."""
    sweep = Sweep(rule, curves, training, target, Random(seed))
    work = training.interval * training.reports + 1.0  # so that the last report precedes the end
    jobs = [Job(_name(index), 0.0, (1,), work) for index in range(len(curves))]
    Simulation(nodes(), jobs, _Reporting(training), sweep, on_milestone=sweep.reported).run()
    return sweep.reached_at


def _name(index: int) -> str:
    return f"trial-{index:04}"
