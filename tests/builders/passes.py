"""Builders of the snapshots after a pass: what it decided is carried out, or a gang has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from builders.cluster import without
from muster.scheduling.decisions import VERBS, Decision, Place, Preempt
from muster.scheduling.gang import Gang
from muster.scheduling.planner import plan
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.node import Node

NO_PREEMPTION = Settings(verbs=VERBS - {Preempt})


def carried_out(snapshot: Snapshot, decisions: Sequence[Decision]) -> Snapshot:
    """The snapshot once every waiting gang that was placed runs."""
    places = {d.gang.name: d.placement for d in decisions if isinstance(d, Place)}
    nodes = dict(snapshot.nodes)
    for placement in places.values():
        nodes = without(nodes, placement)
    gangs = tuple(replace(g, placement=places[g.name]) if g.name in places else g for g in snapshot.gangs)
    return Snapshot(nodes, gangs, snapshot.queues)


def ended(snapshot: Snapshot, gang: Gang) -> Snapshot:
    """The snapshot once a running gang has ended."""
    nodes: dict[str, Node] = dict(snapshot.nodes)
    for place in gang.placement:
        node = nodes[place.node]
        nodes[place.node] = replace(node, free=node.free | place.gpus, resources=node.resources + place.task.resources)
    return Snapshot(nodes, tuple(g for g in snapshot.gangs if g.name != gang.name), snapshot.queues)


def starts(snapshot: Snapshot, ending: list[str]) -> dict[str, int]:
    """The number of the pass in which each gang starts, where one of `ending` ends after each pass."""
    found: dict[str, int] = {}
    for number in range(len(ending) + 1):
        decisions = plan(snapshot, 0.0, NO_PREEMPTION)
        found |= {d.gang.name: number for d in decisions if isinstance(d, Place)}
        snapshot = carried_out(snapshot, decisions)
        if number < len(ending):
            snapshot = ended(snapshot, next(g for g in snapshot.gangs if g.name == ending[number]))
    return found
