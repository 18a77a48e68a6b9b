"""Migration: moving gangs to where they, or those to come, do better (Gandiva, OSDI'18, section 3.4).

A move pays when what the gang gains outweighs what moving costs. How long it will still run nobody knows; run times are
heavy-tailed, so a gang that has run for a while is taken to run as long again (Harchol-Balter and Downey, 1997, found this of
process lifetimes and migrate by it). Moves that help others (defragmentation) must not slow the gang that moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from muster.scheduling.decisions import Migrate, Reason
from muster.scheduling.gang import Effect, Gang, Placement
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.policies.gandiva.turns import waits
from muster.scheduling.session import Session, Spots
from muster.scheduling.speed.occupancy import gpus_by_node as _spots
from muster.scheduling.speed.occupancy import shape_of

COST_SECONDS = 10.0
"""What a move costs where it was never measured: CRIU took 8 to 10 s for a job of one GPU (Gandiva, section 4.2)."""
TOO_MANY_FREE = 3
"""Free GPUs that make a server of 4 worth emptying (Gandiva, section 3.4); others in proportion."""


def level(session: Session) -> None:
    """Let gangs that take turns on crowded servers move to servers that have GPUs for them."""
    for node in sorted(_crowded(session), key=lambda name: (-session.height(name), name)):
        for gang in sorted(session.on(node), key=lambda gang: (gang.running, -gang.held, gang.name)):
            if session.height(node) <= 1:
                break
            found = _place(session, gang, session.capacity) if gang.sharing.slices else None
            if found:
                message = f"leaves a server on which {session.height(node):.1f} gangs want each GPU"
                session.put(Migrate(gang, found, Reason.BALANCED, message))


def improve(session: Session, nodes: Iterable[str] | None = None) -> None:
    """Move gangs whose placement or neighbours slow them to idle GPUs where they gain more than the move costs.

    `nodes` are those where GPUs came free; without them every gang is looked at.
    """
    if not any(session.idle(node) for node in (nodes if nodes is not None else session.nodes)):
        return
    slowed = [
        (_relative(session, gang, session.spots(gang)), gang) for gang in session.gangs.values() if _may_move(session, gang)
    ]
    for relative, gang in sorted(slowed, key=lambda item: (item[0], item[1].name)):
        if relative >= 1.0:
            break
        found = _place(session, gang, _with_own(session, gang).without(_crowded(session)))
        if found and _pays(session, gang, relative, found):
            after = _relative(session, gang, _spots(found))
            alone = len(session.spots(gang)) > len(_spots(found))
            reason = Reason.LOCALITY if alone else Reason.INTERFERENCE
            message = f"runs at {relative:.2f} of its best rate, {after:.2f} expected there"
            session.put(Migrate(gang, found, reason, message, Effect(relative, after, "of its best rate")))


def defragment(session: Session) -> None:
    """Empty the server with the most idle GPUs onto servers with fewer, as long as one has too many (3 of 4)."""
    crowded = _crowded(session)
    half_empty = [node for node in session.nodes if session.residents.get(node) and _wastes(session, node)]
    for node in sorted(half_empty, key=lambda name: (-session.idle(name).bit_count(), name)):
        others = (n for n in session.nodes if session.residents.get(n) and n != node and n not in crowded)
        fuller = {n for n in others if 0 < _idle(session, n) <= _idle(session, node)}
        for gang in session.on(node):
            found = (
                _place(session, gang, session.only({n: session.idle(n) for n in fuller})) if _may_move(session, gang) else None
            )
            if found and _relative(session, gang, _spots(found)) >= _relative(session, gang, session.spots(gang)):
                message = f"{node} has {_idle(session, node)} GPUs idle; without this gang it can take a whole one"
                session.put(Migrate(gang, found, Reason.DEFRAGMENTED, message))


def pays(gain: float, seconds_so_far: float, cost: float) -> bool:
    """Say whether a rate that is `gain` times as high makes up for `cost` seconds lost, in the time that is to be expected."""
    return (gain - 1.0) * seconds_so_far > cost * gain


def _pays(session: Session, gang: Gang, relative: float, found: Placement) -> bool:
    cost = session.rates.profile(gang).migrate_seconds
    so_far = session.now - gang.started
    after = _relative(session, gang, _spots(found))
    return pays(after / relative, so_far, COST_SECONDS if cost is None else cost)


def _crowded(session: Session) -> set[str]:
    """Servers on which somebody waits for its turn: what comes free there is for those."""
    return {node for gang in session.gangs.values() if waits(gang) for node in session.spots(gang)}


def _may_move(session: Session, gang: Gang) -> bool:
    return bool(gang.placement) and gang.running and gang.sharing.slices and not session.is_packed(gang)


def _wastes(session: Session, node: str) -> bool:
    return 4 * _idle(session, node) >= TOO_MANY_FREE * session.nodes[node].healthy.bit_count()


def _idle(session: Session, node: str) -> int:
    return session.idle(node).bit_count()


def _relative(session: Session, gang: Gang, spots: Spots) -> float:
    co_location = session.running.co_location(gang.name, spots, session.nodes)
    return session.rates.relative(gang, shape_of(spots, session.nodes), co_location)


def _place(session: Session, gang: Gang, capacity: FreeCapacity) -> Placement | None:
    """Another place for the gang, in the size that it has: growing and shrinking are decided elsewhere."""
    found = place(replace(gang, tasks=tuple(one.task for one in gang.placement), fewest=None, asked=None), capacity)
    return None if isinstance(found, Shortage) or _spots(found) == session.spots(gang) else found


def _with_own(session: Session, gang: Gang) -> FreeCapacity:
    capacity = session.capacity.copy()
    capacity.give_back(gang.placement)
    return capacity
