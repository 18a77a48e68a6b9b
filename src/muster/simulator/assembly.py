"""A simulation made of a scenario."""

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
    """The oracle of a run: what the simulation knows of its jobs."""

    simulation: Simulation

    def remaining(self, name: str) -> float:
        return self.simulation.remaining(name)

    def rate_on(self, name: str, shape: Shape) -> float:
        return self.simulation.rate_on(name, shape)


def assemble(scenario: Scenario, folder: Path, *, timeline: bool = False, on_moment: Moment | None = None) -> Simulation:
    """Return the simulation of a scenario whose paths are relative to `folder`; raise BadInput where its files are bad."""
    jobs = jobs_of(scenario, folder)
    nodes = scenario.cluster.nodes(folder)
    oracle = Foresight()
    given = {"seed": scenario.seed, "folder": folder, "oracle": oracle}
    physics: Physics = scenario.physics.build(**given)
    policy: Policy = scenario.policy.build(**given)
    _check_known(jobs, physics, {node.model for node in nodes}, scenario)
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
        _plan_failure(simulation, failure)
    return simulation


def jobs_of(scenario: Scenario, folder: Path) -> list[Job]:
    """Return the jobs of a scenario's source, cut and shared as it says; raise BadInput where two have the same name."""
    found: Iterable[Job] = scenario.jobs.build(seed=scenario.seed, folder=folder)
    jobs = [_adapted(job, scenario) for job in found]
    seen: set[str] = set()
    for job in jobs:
        if job.name in seen:
            raise BadInput(
                f"source {scenario.jobs.name}", [Problem(None, "jobs", f"two jobs are called {job.name}; expected a name each")]
            )
        seen.add(job.name)
    return jobs


def _check_known(jobs: Iterable[Job], physics: Physics, models: Iterable[str], scenario: Scenario) -> None:
    """Find out before the run whether the physics knows every kind of job on every model of GPU."""
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


def _plan_failure(simulation: Simulation, failure: Failure) -> None:
    if failure.node not in simulation.cluster.nodes:
        raise BadInput("failures", [Problem(None, "node", f"found {failure.node!r}; expected a node of the cluster's list")])

    def change(healthy: bool) -> bool:
        node = simulation.cluster.nodes[failure.node]
        broken = failure.broken(node)
        simulation.set_node(replace(node, healthy=node.healthy | broken if healthy else node.healthy & ~broken))
        return True

    simulation.at(failure.at, lambda: change(False))
    if failure.until is not None:
        simulation.at(failure.until, lambda: change(True))
