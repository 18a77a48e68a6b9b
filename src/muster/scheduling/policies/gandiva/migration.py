"""Migration: moving gangs to where they, or gangs to come, do better (Gandiva, OSDI'18, section 3.4).

A move pays when what the gang gains outweighs what moving costs (`rebalancing.cost`). Moves that help others (defragmentation)
must not slow the gang that moves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from muster.scheduling.counting import counted
from muster.scheduling.decisions import Migrate, Reason
from muster.scheduling.gang import Effect, Gang, Placement, gpus_by_node
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import NO_NODES, find
from muster.scheduling.policies.gandiva.turns import crowded
from muster.scheduling.rebalancing.cost import move_seconds, pays
from muster.scheduling.session import GpusByNode, Session
from muster.scheduling.speed.shapes import shape_of

TOO_MANY_FREE = 3
"""Free GPUs that make a server of 4 worth emptying (Gandiva, section 3.4); others in proportion."""


def level(session: Session) -> None:
    """Let gangs that take turns on crowded servers move to servers that have GPUs for them."""
    for node in sorted(crowded(session), key=lambda name: (-height(session, name), name)):
        for gang in sorted(session.on(node), key=lambda gang: (gang.running, -gang.held, gang.name)):
            if height(session, node) <= 1:
                break
            placement = _elsewhere(gang, session.capacity) if gang.sharing.slices else None
            if placement:
                message = f"leaves a server on which {height(session, node):.1f} gangs want each GPU"
                session.apply(Migrate(gang, placement, Reason.BALANCED, message))


def improve(session: Session, nodes: Iterable[str] | None = None) -> None:
    """Move gangs whose placement or neighbours slow them to idle GPUs where they gain more than the move costs.

    `nodes` are those where GPUs came free; without them every gang is considered.
    """
    if not any(session.idle(node) for node in (nodes if nodes is not None else session.nodes)):
        return
    movable = [gang for gang in session.gangs.values() if _may_move(session, gang)]
    rates = [(_relative_rate(session, gang, gpus_by_node(gang.placement)), gang) for gang in movable]
    for before, gang in sorted(rates, key=lambda item: (item[0], item[1].name)):
        if before >= 1.0:
            break
        placement = _on_uncrowded(session, gang)
        after = _relative_rate(session, gang, gpus_by_node(placement)) if placement else 0.0
        if not placement or not _are_measured(session, gang, placement):
            continue
        if pays(after / before, session.now - gang.started, move_seconds(session.rates, gang)):
            fewer_nodes = len(gpus_by_node(gang.placement)) > len(gpus_by_node(placement))
            reason = Reason.LOCALITY if fewer_nodes else Reason.INTERFERENCE
            message = f"runs at {before:.2f} of its best rate, {after:.2f} expected there"
            session.apply(Migrate(gang, placement, reason, message, Effect(before, after, "of its best rate")))


def defragment(session: Session) -> None:
    """Empty the server with the most idle GPUs onto servers with fewer, as long as one has too many (3 of 4)."""
    contested = crowded(session)
    occupied = [node for node in session.nodes if session.occupancy.residents(node)]
    half_empty = [node for node in occupied if _wastes(session, node)]
    for node in sorted(half_empty, key=lambda name: (-session.idle(name).bit_count(), name)):
        others = (n for n in session.nodes if session.occupancy.residents(n) and n != node and n not in contested)
        fuller = {n for n in others if 0 < _idle(session, n) <= _idle(session, node)}
        for gang in session.on(node):
            onto = session.capacity.only({n: session.idle(n) for n in fuller})
            placement = _elsewhere(gang, onto) if _may_move(session, gang) else None
            if placement and _relative_rate(session, gang, gpus_by_node(placement)) >= _relative_rate(
                session, gang, gpus_by_node(gang.placement)
            ):
                message = f"{node} has {counted(_idle(session, node), 'GPU')} idle; without this gang it can take a whole one"
                session.apply(Migrate(gang, placement, Reason.DEFRAGMENTED, message))


def height(session: Session, node: str) -> float:
    """Return the GPUs that gangs want of a node over those it has; over 1 they take turns (Gandiva, section 3.1)."""
    healthy = session.nodes[node].healthy.bit_count()
    wanted = sum(gpus.bit_count() for _, gpus in session.occupancy.residents(node).values())
    return wanted / healthy if healthy else float("inf")


def _may_move(session: Session, gang: Gang) -> bool:
    return bool(gang.placement) and gang.running and gang.sharing.slices and not session.is_packed(gang)


def _wastes(session: Session, node: str) -> bool:
    return 4 * _idle(session, node) >= TOO_MANY_FREE * session.nodes[node].healthy.bit_count()


def _idle(session: Session, node: str) -> int:
    return session.idle(node).bit_count()


def _relative_rate(session: Session, gang: Gang, gpus: GpusByNode) -> float:
    co_location = session.occupancy.co_location(gang.name, gpus, session.nodes)
    return session.rates.relative(gang, shape_of(gpus, session.nodes), co_location)


def _are_measured(session: Session, gang: Gang, placement: Placement) -> bool:
    """Whether the gang's rates where it is and there were measured: no running gang is moved for speed on a prior."""
    where = [gpus_by_node(gang.placement), gpus_by_node(placement)]
    met = [session.occupancy.co_location(gang.name, gpus, session.nodes) for gpus in where]
    shapes = [shape_of(gpus, session.nodes) for gpus in where]
    return all(session.rates.is_measured(gang, *seen) for seen in zip(shapes, met, strict=True))


def _elsewhere(gang: Gang, capacity: FreeCapacity, closed: Collection[str] = NO_NODES) -> Placement | None:
    """Another placement for the gang, in the size that it has: growing and shrinking are decided elsewhere."""
    placement = find(gang.as_placed(), capacity, closed=closed)
    return placement if placement and gpus_by_node(placement) != gpus_by_node(gang.placement) else None


def _on_uncrowded(session: Session, gang: Gang) -> Placement | None:
    """Another placement on idle GPUs and the gang's own, apart from servers on which gangs wait for their turn."""
    with session.capacity.trial():
        session.capacity.give_back(gang.placement)
        return _elsewhere(gang, session.capacity, crowded(session))
