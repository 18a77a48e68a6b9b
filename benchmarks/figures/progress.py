"""Runs of a scenario that record each job's progress over time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from muster.scheduling.profile import CoLocation, Profile, Shape
from muster.simulator.assembly import Foresight, jobs_of
from muster.simulator.engine import Run, Simulation
from muster.simulator.jobs import Job
from muster.simulator.physics import Physics
from muster.simulator.plugin_fields import Choice, settings_model
from muster.simulator.records import Records
from muster.simulator.registry import POLICIES
from muster.simulator.scenario import Scenario

SCENARIOS = Path(__file__).parent / "scenarios"


@dataclass(frozen=True, slots=True)
class Progress:
    """The records of a run, and the progress of each job at its marks."""

    records: Records
    marks: Mapping[str, Sequence[tuple[float, float]]]
    """(time, progress) pairs by job, ascending."""

    def at(self, job: str, time: float) -> float:
        """Return the progress of a job at a time, by linear interpolation between its marks."""
        marks = self.marks[job]
        index = bisect_right(marks, (time, float("inf")))
        if index == len(marks):
            return marks[-1][1]
        (t0, done0), (t1, done1) = marks[index - 1] if index else (self.records.rows[job].arrival, 0.0), marks[index]
        return done0 + (done1 - done0) * (time - t0) / (t1 - t0)

    def between(self, job: str, start: float, end: float) -> float:
        """Return the progress of a job from `start` to `end`."""
        return self.at(job, end) - self.at(job, start)


class _Marked:
    """Physics with additional milestones after every `every` units of progress, or only after the first."""

    def __init__(self, physics: Physics, every: float, once: bool) -> None:
        self._physics, self._every, self._once = physics, every, once
        self.placement_matters, self.rates_drift = physics.placement_matters, physics.rates_drift

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:
        return self._physics.rate(job, done, shape, co_location)

    def milestone(self, job: Job, done: float) -> float:
        mark = (int(done / self._every + 1e-9) + 1) * self._every
        milestone = self._physics.milestone(job, done)
        return milestone if self._once and done >= self._every else min(milestone, mark)

    def resume_seconds(self, job: Job) -> float:
        return self._physics.resume_seconds(job)

    def move_seconds(self, job: Job, before: Shape, after: Shape) -> float:
        return self._physics.move_seconds(job, before, after)

    def profile(self, job: Job) -> Profile:
        return self._physics.profile(job)

    def busy(self, job: Job, co_location: CoLocation) -> float:
        return self._physics.busy(job, co_location)


def progress(scenario: Scenario, every: float, *, once: bool = False) -> Progress:
    """Run a scenario and mark each job after every `every` units of progress, or only `once`."""
    jobs = jobs_of(scenario, SCENARIOS)
    marks: dict[str, list[tuple[float, float]]] = {job.name: [] for job in jobs}

    def mark(simulation: Simulation, run: Run) -> None:
        marks[run.job.name].append((simulation.now, run.done))

    oracle = Foresight()
    run_values = {"seed": scenario.seed, "folder": SCENARIOS, "oracle": oracle}
    physics = _Marked(scenario.physics.build(**run_values), every, once)
    until = scenario.until or float("inf")
    policy = scenario.policy.build(**run_values)
    oracle.simulation = Simulation(scenario.cluster.nodes(), jobs, physics, policy, until=until, on_milestone=mark)
    records = oracle.simulation.run()
    for job in jobs:
        row = records.rows.get(job.name)
        if row and row.finished is not None:
            marks[job.name].append((row.finished, job.work))
    return Progress(records, marks)


def under(scenario: Scenario, policy: str, seed: int = 0, **settings: object) -> Scenario:
    """Return the scenario with another policy, its settings, and another seed."""
    builder = POLICIES[policy]
    choice = Choice(policy, builder, settings_model(builder).model_validate(settings))
    return scenario.model_copy(update={"policy": choice, "seed": seed})


def with_jobs(scenario: Scenario, **settings: object) -> Scenario:
    """Return the scenario with other settings of its job source."""
    jobs = scenario.jobs
    return scenario.model_copy(update={"jobs": replace(jobs, settings=jobs.settings.model_copy(update=settings))})
