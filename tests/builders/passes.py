"""Passes one after another: what a plan says is carried out in full, and the next plan sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from builders.cluster import World, without
from muster.scheduling.decisions import VERBS, Decision, Place, Preempt
from muster.scheduling.gang import Gang
from muster.scheduling.planner import plan
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.node import Node

CALM = Settings(verbs=VERBS - {Preempt})


def carried_out(seen: World, decisions: Sequence[Decision]) -> World:
    """The snapshot once every gang that was placed runs; only gangs that waited may be among them."""
    places = {d.gang.name: d.placement for d in decisions if isinstance(d, Place)}
    nodes = dict(seen.nodes)
    for placement in places.values():
        nodes = without(nodes, placement)
    gangs = tuple(replace(g, placement=places[g.name]) if g.name in places else g for g in seen.gangs)
    return Snapshot(nodes, gangs, seen.queues)


def ended(seen: World, gang: Gang) -> World:
    """The snapshot once a running gang has gone."""
    nodes: dict[str, Node] = dict(seen.nodes)
    for place in gang.placement:
        node = nodes[place.node]
        nodes[place.node] = replace(node, free=node.free | place.gpus, resources=node.resources + place.task.resources)
    return Snapshot(nodes, tuple(g for g in seen.gangs if g.name != gang.name), seen.queues)


def starts(seen: World, ending: list[str]) -> dict[str, int]:
    """The pass in which each gang starts, when the gangs `ending` go one after another, one after each pass."""
    found: dict[str, int] = {}
    for number in range(len(ending) + 1):
        decisions = plan(seen, 0.0, CALM)
        found |= {d.gang.name: number for d in decisions if isinstance(d, Place)}
        seen = carried_out(seen, decisions)
        if number < len(ending):
            seen = ended(seen, next(g for g in seen.gangs if g.name == ending[number]))
    return found
