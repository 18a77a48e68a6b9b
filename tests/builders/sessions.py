"""Sessions over small clusters: gangs that run or wait for their turn, and profiles of what was measured of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from builders import cluster
from muster.scheduling.decisions import Decision
from muster.scheduling.gang import Gang, Sharing
from muster.scheduling.profile import CoLocation, Profile, Via
from muster.scheduling.session import Session
from muster.scheduling.settings import DEFAULTS, Settings
from muster.scheduling.speed.shapes import shape
from muster.scheduling.topology.node import Node

TURNS = Sharing(slices=True)
PACKS = Sharing(slices=True, packs=True)


def turning(name: str, *shares: tuple[str, Iterable[int]], running: bool = True, **fields: Any) -> Gang:
    """A gang that takes turns on these GPUs; it runs, or waits for its turn."""
    fields.setdefault("sharing", TURNS)
    return replace(cluster.running(name, *shares, **fields), running=running)


def session_of(
    nodes: Iterable[Node],
    gangs: Iterable[Gang],
    now: float = 0.0,
    profiles: Mapping[str, Profile] | None = None,
    queues: Mapping[str, int | None] | None = None,
    settings: Settings = DEFAULTS,
) -> Session:
    """The session of a pass over nodes, of which what the gangs hold is not free."""
    snapshot = replace(cluster.world(nodes, gangs, queues), profiles=profiles or {})
    return Session(snapshot, now, settings)


def measured(
    gang: Gang, nodes: Iterable[Node], alone: float, beside: Mapping[tuple[str, ...], float] | None = None, **fields: Any
) -> Profile:
    """A profile of a gang where it is: its rate alone, and packed with gangs of these kinds."""
    where = shape(gang.placement, cluster.cluster(*nodes))
    rates: dict[tuple[Any, CoLocation], float] = {(where, ()): alone}
    for kinds, rate in (beside or {}).items():
        rates[where, tuple((Via.GPU, kind) for kind in kinds)] = rate
    return Profile(rates, **fields)


def said(decisions: Iterable[Decision]) -> list[tuple[str, str]]:
    """The decisions as (class, gang), in order."""
    return [(type(decision).__name__, decision.gang.name) for decision in decisions]
