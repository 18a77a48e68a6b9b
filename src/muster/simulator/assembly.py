"""Builds a Simulation from a Scenario."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from muster.scheduling.gang import Sharing
from muster.scheduling.profile import NO_NEIGHBOURS, Shape
from muster.scheduling.topology.links import UNLIMITED
from muster.simulator.engine import Moment, Policy, Simulation
from muster.simulator.jobs import Job, pods
from muster.simulator.physics import Physics
from muster.simulator.records import Records
from muster.simulator.scenario import Failure, Scenario
from muster.simulator.yaml_errors import BadInput, Problem


class Foresight:
    """The Oracle of a run, answered by its simulation; `simulation` is set once that exists."""

    simulation: Simulation

    def remaining(self, name: str) -> float:
        return self.simulation.remaining(name)

    def rate_on(self, name: str, shape: Shape) -> float:
        return self.simulation.rate_on(name, shape)


def assemble(scenario: Scenario, folder: Path, *, timeline: bool = False, on_moment: Moment | None = None) -> Simulation:
    """Return the simulation of a scenario; its paths are relative to `folder`. Raise BadInput for a bad file."""
    jobs = jobs_of(scenario, folder)
    nodes = scenario.cluster.nodes(folder)
    oracle = Foresight()
    run_values = {"seed": scenario.seed, "folder": folder, "oracle": oracle}
    physics: Physics = scenario.physics.build(**run_values)
    policy: Policy = scenario.policy.build(**run_values)
    _check_rates(jobs, physics, {node.model for node in nodes}, scenario)
    simulation = Simulation(
        nodes,
        jobs,
        physics,
        policy,
        until=scenario.until or float("inf"),
        records=Records(sum(node.machine.gpus for node in nodes), timeline=timeline),
        on_moment=on_moment,
    )
    oracle.simulation = simulation
    for failure in scenario.failures:
        _schedule_failure(simulation, failure)
    return simulation


def jobs_of(scenario: Scenario, folder: Path) -> list[Job]:
    """Return the jobs of a scenario's source with its `pod_gpus` and `sharing` applied; raise BadInput for a duplicate name."""
    source: Iterable[Job] = scenario.jobs.build(seed=scenario.seed, folder=folder)
    jobs = [_adapted(job, scenario) for job in source]
    names: set[str] = set()
    for job in jobs:
        if job.name in names:
            raise BadInput(
                f"source {scenario.jobs.name}",
                [Problem(None, "jobs", f"two jobs are called {job.name}; expected unique names")],
            )
        names.add(job.name)
    return jobs


def _check_rates(jobs: Iterable[Job], physics: Physics, models: Iterable[str], scenario: Scenario) -> None:
    """Fail before the run if the physics lacks a rate for a kind of job on a GPU model of the cluster."""
    for job in {job.kind: job for job in jobs}.values():
        for model in sorted(models):
            try:
                physics.rate(job, 0.0, Shape(model, (1,), UNLIMITED), NO_NEIGHBOURS)
            except (ValueError, LookupError) as error:
                where = f"physics {scenario.physics.name} has no rate for job {job.name} of kind {job.kind!r} on GPUs {model!r}"
                raise BadInput(f"source {scenario.jobs.name}", [Problem(None, "jobs", f"{where}: {error}")]) from None


def _adapted(job: Job, scenario: Scenario) -> Job:
    if scenario.pod_gpus is not None and job.fewest is None and job.most is None:
        job = replace(job, tasks=pods(job.gpus, scenario.pod_gpus))
    if scenario.sharing is not None:
        job = replace(job, sharing=Sharing(scenario.sharing.slices, scenario.sharing.packs, job.sharing.weight))
    return job


def _schedule_failure(simulation: Simulation, failure: Failure) -> None:
    if failure.node not in simulation.cluster.nodes:
        raise BadInput("failures", [Problem(None, "node", f"found {failure.node!r}; expected a node of the cluster's list")])

    def set_health(healthy: bool) -> bool:
        node = simulation.cluster.nodes[failure.node]
        broken = failure.broken(node)
        simulation.set_node(replace(node, healthy=node.healthy | broken if healthy else node.healthy & ~broken))
        return True

    simulation.at(failure.at, lambda: set_health(False))
    if failure.until is not None:
        simulation.at(failure.until, lambda: set_health(True))
