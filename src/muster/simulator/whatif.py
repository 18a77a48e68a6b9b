"""What-if analysis of a live cluster from its dump, with the operator's own translation and planner.

`decide` returns exactly the plan that the operator would make. `run_on` simulates from there with assumptions: each job runs
for a given time from its start, external pods keep their GPUs, and back-off periods are over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muster.allocation.bystanders import Bystanders
from muster.allocation.unplanned import Unplanned
from muster.kube.objects import Pod
from muster.scheduling.decisions import Assignment, Decision, Preempt
from muster.scheduling.gang import Gang
from muster.scheduling.planner import plan
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.links import indices
from muster.scheduling.topology.node import Node
from muster.simulator import dump
from muster.simulator import jobs as simulated
from muster.simulator.engine import Moment, Simulation
from muster.simulator.physics import Ideal
from muster.simulator.policies.muster import Muster
from muster.simulator.records import Records
from muster.simulator.yaml_errors import BadInput, Problem
from muster_operator.dljob.completion import completed
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.gang import gang_of, priority_of
from muster_operator.dljob.job import Job, Unreadable
from muster_operator.dljob.resources import PRIORITY_CLASSES, Priorities
from muster_operator.dlqueue.usage import DLQUEUES, quotas
from muster_operator.external_pods.gangs import counts, gangs_of, is_external, placed_gang
from muster_operator.planning.executors import VERBS
from muster_operator.resource_quotas.counting import RESOURCE_QUOTAS, as_planned
from muster_operator.stores import Stores

LEAST_SECONDS = 1.0
"""The remaining time of a job that has run for longer than assumed."""


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """A snapshot of a live cluster and its time, in seconds since 1970."""

    snapshot: Snapshot
    at: float


def load(path: Path) -> LiveCluster:
    """Read a dump; raise BadInput."""
    stores, at = dump.read(path)
    problems = [Problem(None, "dljobs", job.problem) for job in stores.of(DLJOBS).values() if isinstance(job, Unreadable)]
    if problems:
        raise BadInput(path, problems)
    return LiveCluster(_snapshot(stores), at)


def _snapshot(stores: Stores) -> Snapshot:
    view, planned = stores.view, tuple(gangs(stores))
    queues = quotas(stores.of(DLQUEUES).values(), Unplanned(view))
    by_namespace: dict[str, dict[str, Pod]] = {}
    for pod in view.pods.values():
        by_namespace.setdefault(pod.metadata.namespace or "", {})[pod.metadata.key] = pod
    resource_quotas = as_planned(stores.of(RESOURCE_QUOTAS).values(), planned, by_namespace)
    return Snapshot(
        view.usable(),
        planned,
        queues,
        resource_quotas=resource_quotas,
        bystanders=Bystanders(view).by_node(),
        unusable=view.unusable(),
    )


def gangs(stores: Stores) -> list[Gang]:
    """Return the gangs that the operator would plan: those of DLJobs and of external pods."""
    pods = list(stores.view.pods.values())
    known = [job for job in stores.of(DLJOBS).values() if isinstance(job, Job) and job.plannable]
    jobs = [completed(job, stores.defaults.of(job.meta.namespace)) for job in known]
    owned: dict[str, list[Pod]] = {}
    for pod in pods:
        owner = pod.metadata.controller
        owned.setdefault(owner.uid if owner else "", []).append(pod)
    ready = [job for job in jobs if job.status.placement or all(pod.finished for pod in owned.get(job.meta.uid, ()))]
    placed = [placed_gang(pod) for pod in pods if is_external(pod) and counts(pod)]
    classes = Priorities(stores.of(PRIORITY_CLASSES).values())
    return [
        *(gang_of(job, priority_of(job, classes, owned.get(job.meta.uid, ()))) for job in ready),
        *(external.gang for external in gangs_of(pods)),
        *(gang for gang in placed if gang is not None),
    ]


def decide(live: LiveCluster, settings: Settings | None = None) -> Sequence[Decision]:
    """Return the decisions that muster would make now."""
    return plan(live.snapshot, live.at, settings or Settings(verbs=VERBS))


def told(decision: Decision) -> dict[str, Any]:
    """Return a decision as a JSON object."""
    fields: dict[str, Any] = {
        "gang": decision.gang.name,
        "decision": type(decision).__name__,
        "reason": str(decision.reason),
        "message": decision.message,
    }
    if isinstance(decision, Assignment):
        fields["placement"] = [
            {"pod": assigned.task.name, "rank": assigned.rank, "node": assigned.node, "gpus": list(indices(assigned.gpus))}
            for assigned in decision.placement
        ]
    if isinstance(decision, Preempt):
        fields["victims"] = [gang.name for gang in decision.victims]
    return fields


def run_on(live: LiveCluster, seconds: float, *, timeline: bool = False, on_moment: Moment | None = None) -> Simulation:
    """Return a simulation that starts from a live cluster; every job runs for `seconds` from its start."""
    nodes = _without_external(live.snapshot)
    simulation = Simulation(
        nodes,
        (),
        Ideal(),
        Muster(),
        records=Records(sum(node.machine.gpus for node in nodes), timeline=timeline),
        queues=live.snapshot.queues.values(),
        on_moment=on_moment,
    )
    for gang in live.snapshot.gangs:
        simulation.adopt(*_as_job(gang, live.at, seconds))
    return simulation


def _as_job(gang: Gang, at: float, seconds: float) -> tuple[Gang, simulated.Job]:
    """A gang with times relative to the start of the run, and a job with its assumed work."""
    started = gang.started - at if gang.started else 0.0
    remaining = max(LEAST_SECONDS, seconds + started) if gang.placement else seconds
    job = simulated.Job(gang.name, gang.arrived - at, tuple(task.gpus for task in gang.tasks), remaining)
    return replace(gang, arrived=job.arrival, not_before=0.0, started=started, since=0.0), job


def _without_external(snapshot: Snapshot) -> list[Node]:
    """The nodes with the GPUs and resources that are free or held by gangs; those of external pods are left out."""
    gpus = {name: node.free for name, node in snapshot.nodes.items()}
    resources = {name: node.resources for name, node in snapshot.nodes.items()}
    for gang in snapshot.gangs:
        for assigned in gang.placement:
            if assigned.node in gpus:
                gpus[assigned.node] |= assigned.gpus
                resources[assigned.node] += assigned.task.resources
    return [
        replace(node, healthy=gpus[name] & node.healthy, resources=resources[name], leaving=0)
        for name, node in snapshot.nodes.items()
    ]
