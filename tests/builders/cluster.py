"""Builders of small clusters, gangs and snapshots, by the few fields that a test is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from muster.machines.catalogue import machine
from muster.scheduling.decisions import Decision, Move, Place, Preempt, Resize
from muster.scheduling.gang import Assigned, Gang, Placement, Task
from muster.scheduling.planner import plan
from muster.scheduling.resources import ONE_POD, Resources
from muster.scheduling.settings import DEFAULTS, Settings
from muster.scheduling.snapshot import Queue, Snapshot
from muster.scheduling.topology.links import GpuSet, gpu_set
from muster.scheduling.topology.machine import MachineType, machine_type, unknown_machine
from muster.scheduling.topology.node import Node


def known(name: str) -> MachineType:
    """The machine type of this name in the catalogue."""
    return machine_type(machine(name).links)


def node(name: str, gpus: int = 8, free: int | None = None, **fields: Any) -> Node:
    """A node with `gpus` GPUs (or those of `machine`), the first `free` of them free; `free_set` and `healthy` are sets."""
    kind: MachineType = fields.pop("machine", None) or unknown_machine(gpus)
    healthy: GpuSet = fields.pop("healthy", kind.all)
    free_set: GpuSet | None = fields.pop("free_set", None)
    if free_set is None:
        free_set = healthy if free is None else gpu_set(range(free)) & healthy
    return Node(name, kind, healthy, free_set, **fields)


def cluster(*nodes: Node) -> dict[str, Node]:
    return {one.name: one for one in nodes}


def tasks(gang: str, count: int, gpus: int = 1, role: str = "worker", **fields: Any) -> tuple[Task, ...]:
    return tuple(Task(f"{gang}-{role}-{i}", gpus, role=role, index=i, **fields) for i in range(count))


def gang(name: str, count: int = 1, gpus: int = 1, *, each: Mapping[str, Any] | None = None, **fields: Any) -> Gang:
    """A waiting gang: `count` workers of `gpus` GPUs; `each` has further fields of every task."""
    fields.setdefault("tasks", tasks(name, count, gpus, **(each or {})))
    return Gang(name=name, queue=fields.pop("queue", "default"), arrived=fields.pop("arrived", 0.0), **fields)


def running(name: str, *shares: tuple[str, Iterable[int]], resources: Resources = ONE_POD, **fields: Any) -> Gang:
    """A running gang: one worker for each of `shares`, which name a node and the indices of its GPUs."""
    held = [(where, gpu_set(list(gpus))) for where, gpus in shares]
    members = tuple(Task(f"{name}-worker-{i}", gpus.bit_count(), resources, index=i) for i, (_, gpus) in enumerate(held))
    places = tuple(
        Assigned(task, where, gpus, rank) for rank, (task, (where, gpus)) in enumerate(zip(members, held, strict=True))
    )
    fields.setdefault("tasks", members)
    fields.setdefault("preemptible", True)
    return gang(name, placement=places, **fields)


def world(nodes: Iterable[Node], gangs: Iterable[Gang], queues: Mapping[str, int | None] | None = None) -> Snapshot:
    """A snapshot in which the GPUs and other resources of placed gangs are not free."""
    gangs = tuple(gangs)
    left = cluster(*nodes)
    for one in gangs:
        left = without(left, one.placement)
    limits = {name: Queue(name, quota) for name, quota in (queues or {}).items()}
    return Snapshot(left, gangs, limits)


def without(nodes: Mapping[str, Node], placement: Placement) -> dict[str, Node]:
    """The nodes without what a placement takes."""
    left = dict(nodes)
    for place in placement:
        before = left[place.node]
        left[place.node] = replace(before, free=before.free & ~place.gpus, resources=before.resources - place.task.resources)
    return left


def decide(snapshot: Snapshot, now: float = 0.0, settings: Settings = DEFAULTS) -> dict[str, Decision]:
    """The decisions of a plan by name of the gang, each of which has one at most."""
    decisions = plan(snapshot, now, settings)
    by_gang = {decision.gang.name: decision for decision in decisions}
    assert len(by_gang) == len(decisions)
    return by_gang


def reasons(decisions: Mapping[str, Decision]) -> dict[str, str]:
    return {name: str(decision.reason) for name, decision in decisions.items()}


def placed(decision: Decision) -> Placement:
    """The placement that a decision gives; fails the test where it gives none."""
    assert isinstance(decision, Place | Move | Resize), decision
    return decision.placement


def victims(decision: Decision) -> list[str]:
    """The names of the gangs that a decision preempts; fails the test where it preempts none."""
    assert isinstance(decision, Preempt), decision
    return [victim.name for victim in decision.victims]
