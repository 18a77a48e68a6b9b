"""Builder of contended snapshots, in which some gangs wait and some behind them need not: small nodes in two pools, most busy.

Drawn from a seeded generator rather than by hypothesis, whose taste for small examples leaves nothing to overtake.
"""

from __future__ import annotations

from random import Random

from builders.cluster import gang, node, running, tasks, world
from muster.scheduling.gang import Gang
from muster.scheduling.resources import PLENTY, Resources
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint
from muster.scheduling.topology.links import indices
from muster.scheduling.topology.node import Level, Node

POOLS = (Constraint(labels=(("pool", "a"),)), Constraint(labels=(("pool", "b"),)))
QUEUES = ("default", "other")
SMALL, LARGE = Resources(1000, 1, 1), Resources(5000, 1, 1)


def contended(chance: Random) -> Snapshot:
    """A snapshot of 4 to 6 nodes with 2 or 4 GPUs, 2 to 4 running gangs and 3 to 6 that wait, without wishes or back-off."""
    fleet = [_node(chance, f"n{i}", "ab"[i % 2]) for i in range(chance.randint(4, 6))]
    held = _held(chance, fleet)
    waiting = [_waiting(chance, f"wait{i}") for i in range(chance.randint(3, 6))]
    return world(fleet, [*held, *waiting], {name: chance.choice((None, None, 4, 6, 8)) for name in QUEUES})


def _node(chance: Random, name: str, pool: str) -> Node:
    rest = chance.choice((PLENTY, PLENTY, Resources(12000, 64, 8)))
    return node(name, chance.choice((2, 4, 4)), resources=rest, labels={"pool": pool})


def _held(chance: Random, fleet: list[Node]) -> list[Gang]:
    """Gangs that run on all GPUs but a few."""
    free = [(one.name, gpu) for one in fleet for gpu in indices(one.free)]
    chance.shuffle(free)
    busy = free[: len(free) - chance.randint(0, 5)]
    count = chance.randint(2, 4)
    parts = [busy[i::count] for i in range(count)]
    return [
        running(f"run{i}", *((where, [gpu]) for where, gpu in part), resources=SMALL, queue=chance.choice(QUEUES))
        for i, part in enumerate(parts)
        if part
    ]


def _waiting(chance: Random, name: str) -> Gang:
    where = chance.choice((*POOLS, *POOLS, ANYWHERE))
    rest = chance.choice((SMALL, SMALL, SMALL, LARGE))
    members = tasks(name, chance.randint(1, 3), chance.choice((1, 1, 2, 2, 4, 0)), where=where, resources=rest)
    if not chance.randrange(5):
        members += tasks(name, 1, chance.randint(0, 1), role="ps", where=chance.choice(POOLS), resources=rest)
    return gang(
        name,
        tasks=members,
        queue=chance.choice(QUEUES),
        arrived=float(chance.randint(0, 3)),
        priority=chance.choice((0, 0, 5)),
        spread=not chance.randrange(4),
        preferred=chance.choice((Level.NODE, Level.CLUSTER)),
        fewest=chance.choice((None, None, 1)),
    )
