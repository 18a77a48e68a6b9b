"""What muster would do with a live cluster now, from its dump: the operator's translation, the operator's planner.

`decide` is exactly the plan that the operator would make. `run_on` goes on from there: nobody knows how long jobs run, so each
takes the time that is assumed, from when it started; what pods of others hold is taken to stay held, back-offs to be over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muster.kube.objects import Pod
from muster.scheduling.decisions import Assignment, Decision, Preempt
from muster.scheduling.gang import Gang
from muster.scheduling.planner import plan
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.links import indices
from muster.scheduling.topology.node import Node
from muster.simulator import dump
from muster.simulator.engine import Moment, Simulation
from muster.simulator.jobs import Job
from muster.simulator.physics import Ideal
from muster.simulator.policies.muster import Muster
from muster.simulator.records import Records
from muster.simulator.yaml_errors import BadInput, Problem
from muster_operator.dljob.job import Unreadable, gang_of, priority_of
from muster_operator.dljob.job import read as read_job
from muster_operator.dljob.resources import PRIORITY_CLASSES, priorities
from muster_operator.dlqueue.usage import DLQUEUES, quotas
from muster_operator.external_pods.gangs import counts, gangs_of, is_external, placed_gang
from muster_operator.planning.executors import VERBS
from muster_operator.stores import Stores

LEAST_SECONDS = 1.0
"""A job that has run longer than assumed is taken to end so soon."""


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster as it was at a time, in seconds since 1970."""

    snapshot: Snapshot
    at: float


def load(path: Path) -> Found:
    """Read a dump; raise BadInput."""
    stores, at = dump.read(path)
    try:
        return Found(Snapshot(stores.view.usable(), tuple(gangs(stores)), quotas(stores.of(DLQUEUES).values())), at)
    except Unreadable as error:
        raise BadInput(path, [Problem(None, "dljobs", str(error))]) from None


def gangs(stores: Stores) -> list[Gang]:
    """Return the gangs that the operator would plan: of DLJobs, and of pods of others."""
    pods = list(stores.view.pods.values())
    jobs = [job for job in map(read_job, stores.view.jobs.values()) if job.plannable]
    owned: dict[str, list[Pod]] = {}
    for pod in pods:
        owner = pod.metadata.controller
        owned.setdefault(owner.uid if owner else "", []).append(pod)
    ready = [job for job in jobs if job.status.placement or all(pod.finished for pod in owned.get(job.meta.uid, ()))]
    placed = [placed_gang(pod) for pod in pods if is_external(pod) and counts(pod)]
    classes = priorities(stores.of(PRIORITY_CLASSES).values())
    return [
        *(gang_of(job, priority_of(job, classes)) for job in ready),
        *(external.gang for external in gangs_of(pods)),
        *(gang for gang in placed if gang is not None),
    ]


def decide(found: Found, settings: Settings | None = None) -> Sequence[Decision]:
    """Return what muster would decide now."""
    return plan(found.snapshot, found.at, settings or Settings(verbs=VERBS))


def told(decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON has it."""
    said: dict[str, Any] = {
        "gang": decision.gang.name,
        "decision": type(decision).__name__,
        "reason": str(decision.reason),
        "message": decision.message,
    }
    if isinstance(decision, Assignment):
        said["placement"] = [
            {"pod": place.task.name, "rank": place.rank, "node": place.node, "gpus": list(indices(place.gpus))}
            for place in decision.placement
        ]
    if isinstance(decision, Preempt):
        said["victims"] = [gang.name for gang in decision.victims]
    return said


def run_on(found: Found, seconds: float, *, timeline: bool = False, on_moment: Moment | None = None) -> Simulation:
    """Return a simulation that begins with the cluster as it was found; every job runs `seconds` from its start."""
    nodes = _without_others(found.snapshot)
    simulation = Simulation(
        nodes,
        (),
        Ideal(),
        Muster(),
        records=Records(sum(node.machine.gpus for node in nodes), timeline=timeline),
        queues=found.snapshot.queues.values(),
        on_moment=on_moment,
    )
    for gang in found.snapshot.gangs:
        simulation.adopt(*_as_job(gang, found.at, seconds))
    return simulation


def _as_job(gang: Gang, at: float, seconds: float) -> tuple[Gang, Job]:
    """A gang with times from the start of the run, and what it has to do."""
    started = gang.started - at if gang.started else 0.0
    left = max(LEAST_SECONDS, seconds + started) if gang.placement else seconds
    job = Job(gang.name, gang.arrived - at, tuple(task.gpus for task in gang.tasks), left)
    return replace(gang, arrived=job.arrival, not_before=0.0, started=started, since=0.0), job


def _without_others(snapshot: Snapshot) -> list[Node]:
    """The nodes with what is free, or what gangs have; the rest is out of reach."""
    gpus = {name: node.free for name, node in snapshot.nodes.items()}
    rest = {name: node.resources for name, node in snapshot.nodes.items()}
    for gang in snapshot.gangs:
        for place in gang.placement:
            if place.node in gpus:
                gpus[place.node] |= place.gpus
                rest[place.node] += place.task.resources
    return [replace(n, healthy=gpus[n.name] & n.healthy, resources=rest[n.name], leaving=0) for n in snapshot.nodes.values()]
