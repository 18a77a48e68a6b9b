"""Gandiva's policy, as in the paper (OSDI'18, sections 3 and 4, algorithm 1).

Reactive: a gang that arrives gets nodes at once, oversubscribed if need be; GPUs that came free go to those who wait for their
turn there. Introspective: judge what was packed, take turns, pack, level and repair placements, grow. Gangs that share nothing
are admitted by the planner as ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.scheduling.admission.queueing import is_ready
from muster.scheduling.decisions import Join, Migrate, Pack, Place, Reason
from muster.scheduling.gang import Gang, Placement
from muster.scheduling.packing import packing
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import describe, fewest_gpus, place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.policies.gandiva import elasticity, migration, turns
from muster.scheduling.session import Session
from muster.scheduling.settings import Settings

QUEUED = 10.0
"""A gang that was in the queue for so many slices takes turns on servers of any size; the paper leaves it there, to starve."""


def react(session: Session, settings: Settings) -> None:
    """Find nodes for those who wait, and use what came free."""
    fill(session, settings)
    if Migrate in settings.verbs:
        migration.level(session)
        migration.improve(session)
    fill(session, settings)


def introspect(session: Session, settings: Settings) -> None:
    """Judge, take turns, pack, repair, grow."""
    packing.judge(session)
    turns.next_slice(session)
    if Pack in settings.verbs and session.cluster_height() > 1:
        packing.pack(session)
    if Migrate in settings.verbs:
        migration.level(session)
        migration.improve(session)
        migration.defragment(session)
    fill(session, settings)
    if not session.waiting():
        elasticity.grow(session, settings.grow_after)


def fill(session: Session, settings: Settings) -> None:
    """Use GPUs that nobody uses: for those who wait for their turn on them, for those who wait for a place, for their turns."""
    turns.fill(session, _crowded(session))
    ahead: dict[str, Gang] = {}
    for gang in session.waiting():
        if gang.sharing.slices and is_ready(gang, session.now):
            _start(session, gang, ahead.get(gang.queue), settings)
        wait = session.waits.get(gang.name)
        if wait and wait.reason is Reason.QUOTA_EXHAUSTED:
            ahead.setdefault(gang.queue, gang)
        if wait and wait.reason is Reason.INSUFFICIENT_GPUS:
            elasticity.make_room(session, fewest_gpus(gang))
    turns.fill(session, _crowded(session))


def _start(session: Session, gang: Gang, ahead: Gang | None, settings: Settings) -> None:
    """Find a place for the gang, unless one ahead waits for the quota of its queue."""
    if ahead:
        session.wait(gang, Reason.BEHIND_IN_QUEUE, f"comes after {ahead.name}, which waits for quota of {gang.queue}")
        return
    allowed = session.quotas.within(gang)
    if allowed is None:
        session.wait(gang, Reason.QUOTA_EXHAUSTED, f"needs {fewest_gpus(gang)} GPUs; {session.quotas.used(gang.queue)}")
        return
    found = get_nodes(session, allowed)
    for node in sorted(session.residents):
        if found is None and elasticity.shrink(session, node, fewest_gpus(allowed) - session.idle(node).bit_count()):
            found = get_nodes(session, allowed)
    if found:
        session.put(Place(gang, found, Reason.PLACED, describe(found)))
        return
    patient = session.now - gang.since <= QUEUED * settings.slice_seconds
    found = oversubscribe(session, allowed, _same(session, allowed) if patient else session.nodes)
    if found:
        others = [g for node in sorted({p.node for p in found}) for g in session.on(node)]
        message = f"takes turns with {len(others)} others: {describe(found)}"
        session.put(Join(gang, found, Reason.TIME_SLICED, message))
        return
    message = f"needs {gang.gpus} GPUs; none idle, and no server of its size takes turns"
    session.wait(gang, Reason.INSUFFICIENT_GPUS, message)


def get_nodes(session: Session, gang: Gang) -> Placement | None:
    """Idle GPUs for the gang: on servers that serve its size, else on empty ones, else wherever they are."""
    same = [node for node in _same(session, gang) if session.height(node) < 1]
    empty = [n for n in session.nodes if not session.residents.get(n)]
    return _least_loaded(session, gang, same) or _least_loaded(session, gang, empty) or _found(gang, session.capacity)


def oversubscribe(session: Session, gang: Gang, nodes: Iterable[str]) -> Placement | None:
    """GPUs of the least loaded of these servers, on which everyone takes turns."""
    nodes = sorted(nodes, key=lambda node: (session.height(node), node))
    capacity = session.only({})
    for height in sorted({session.height(n) for n in nodes}):
        for node in nodes:
            if session.height(node) == height:
                capacity.set(node, session.shared(node))
        found = _found(gang, capacity)
        if found:
            return found
    return None


def _least_loaded(session: Session, gang: Gang, nodes: Iterable[str]) -> Placement | None:
    """A place on one of these nodes, the one with the least load; a gang of several servers gets the least loaded of them."""
    capacity = session.only({})
    for node in sorted(nodes, key=lambda n: (session.height(n), n)):
        capacity.set(node, session.idle(node))
        found = _found(gang, capacity)
        if found:
            return found
    return None


def _found(gang: Gang, capacity: FreeCapacity) -> Placement | None:
    found = place(gang, capacity)
    return None if isinstance(found, Shortage) else found


def _same(session: Session, gang: Gang) -> list[str]:
    """The servers that serve the gang's size."""
    size = _size(session, gang)
    return [node for node in session.nodes if _affinity(session, node) == size]


def _size(session: Session, gang: Gang) -> int:
    """The GPUs that the gang wants of a server."""
    return min(gang.gpus, session.largest)


def _affinity(session: Session, node: str) -> int | None:
    """The size of the gangs that a server serves (the largest there); None for an empty one."""
    gangs = session.residents.get(node)
    return max(_size(session, session.gangs[name]) for name in gangs) if gangs else None


def _crowded(session: Session) -> list[str]:
    return sorted({node for gang in session.gangs.values() if turns.waits(gang) for node in session.spots(gang)})
