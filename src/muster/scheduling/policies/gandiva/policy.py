"""Gandiva's policy, as in the paper (OSDI'18, sections 3 and 4, algorithm 1).

Reactive: a gang that arrives gets nodes at once, oversubscribed if need be; GPUs that came free go to the gangs that wait for
their turn there. Introspective: judge what was packed, take turns, pack, level and repair placements, grow. Gangs that share
nothing are admitted by the planner as ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.scheduling.counting import counted
from muster.scheduling.decisions import Join, Migrate, Place, Reason, Wait
from muster.scheduling.gang import Gang, Placement, describe, gpus_by_node
from muster.scheduling.packing.packing import can_pack, hosts, is_profiled, judge, pack_onto, shared_gpus, utilisation
from muster.scheduling.placing.placement import find
from muster.scheduling.policies.gandiva import elasticity, migration, turns
from muster.scheduling.policies.gandiva.migration import height
from muster.scheduling.session import Session

QUEUED = 10.0
"""A gang that was in the queue for so many slices takes turns on servers of any size; the paper leaves it there, to starve."""


def react(session: Session) -> None:
    """Find nodes for waiting gangs, and use what came free."""
    fill(session)
    if session.can(Migrate):
        migration.level(session)
        migration.improve(session)
    fill(session)


def introspect(session: Session) -> None:
    """Judge, take turns, pack, repair, grow."""
    judge(session)
    turns.next_slice(session)
    if _cluster_height(session) > 1:
        pack(session)
    if session.can(Migrate):
        migration.level(session)
        migration.improve(session)
        migration.defragment(session)
    fill(session)
    if not session.waiting():
        elasticity.grow(session, session.settings.grow_after)


def fill(session: Session) -> None:
    """Use unused GPUs: for gangs that wait for their turn there, for gangs that wait for a placement, for their turns."""
    turns.fill(session, turns.crowded(session))
    ahead: dict[str, Gang] = {}
    for gang in session.waiting() if session.can(Place) else ():
        if gang.sharing.slices and gang.is_ready(session.now):
            _start(session, gang, ahead.get(gang.queue))
        wait = session.waits.get(gang.name)
        if wait and wait.reason is Reason.QUOTA_EXHAUSTED:
            ahead.setdefault(gang.queue, gang)
        if wait and wait.reason is Reason.INSUFFICIENT_GPUS:
            elasticity.shrink_everywhere(session, gang.fewest_gpus)
    turns.fill(session, turns.crowded(session))


def _start(session: Session, gang: Gang, ahead: Gang | None) -> None:
    """Find a placement for the gang, unless one ahead waits for the quota of its queue."""
    if ahead:
        message = f"comes after {ahead.name}, which waits for quota of {gang.queue}"
        session.apply(Wait(gang, Reason.BEHIND_IN_QUEUE, message))
        return
    allowed = session.quotas.within(gang)
    if allowed is None:
        session.apply(
            Wait(gang, Reason.QUOTA_EXHAUSTED, f"needs {counted(gang.fewest_gpus, 'GPU')}; {session.quotas.usage(gang.queue)}")
        )
        return
    placement = _on_idle_shrinking_others(session, allowed)
    if placement:
        session.apply(Place(gang, placement, Reason.PLACED, describe(placement)))
    elif placement := _oversubscribed(session, gang, allowed):
        residents = [gang for node in sorted({one.node for one in placement}) for gang in session.on(node)]
        message = f"takes turns with {len(residents)} others: {describe(placement)}"
        session.apply(Join(gang, placement, Reason.TIME_SLICED, message))
    else:
        message = f"needs {counted(gang.gpus, 'GPU')}; none idle, and no server of its size takes turns"
        session.apply(Wait(gang, Reason.INSUFFICIENT_GPUS, message))


def _on_idle_shrinking_others(session: Session, gang: Gang) -> Placement | None:
    """Idle GPUs for the gang; where there are none, after elastic gangs gave back what they have beyond what they asked for."""
    placement = get_nodes(session, gang)
    for node in sorted(session.occupancy.on_node):
        if placement is None and elasticity.shrink(session, node, gang.fewest_gpus - session.idle(node).bit_count()):
            placement = get_nodes(session, gang)
    return placement


def get_nodes(session: Session, gang: Gang) -> Placement | None:
    """Return idle GPUs for the gang: on servers that serve its size, else on empty ones, else wherever they are."""
    same = [node for node in _of_size(session, gang) if height(session, node) < 1]
    empty = [node for node in session.nodes if not session.occupancy.residents(node)]
    return _least_loaded(session, gang, same) or _least_loaded(session, gang, empty) or find(gang, session.capacity)


def _oversubscribed(session: Session, gang: Gang, allowed: Gang) -> Placement | None:
    if not turns.can_take_turns(session) or not session.can(Join):
        return None
    patient = session.now - gang.since <= QUEUED * session.settings.slice_seconds
    return oversubscribe(session, allowed, _of_size(session, allowed) if patient else session.nodes)


def oversubscribe(session: Session, gang: Gang, nodes: Iterable[str]) -> Placement | None:
    """Return GPUs of the least loaded of these servers, on which all gangs take turns."""
    nodes = sorted(nodes, key=lambda node: (height(session, node), node))
    capacity = session.capacity.only({})
    for load in sorted({height(session, node) for node in nodes}):
        for node in nodes:
            if height(session, node) == load:
                capacity.set(node, shared_gpus(session, node))
        placement = find(gang, capacity)
        if placement:
            return placement
    return None


def _least_loaded(session: Session, gang: Gang, nodes: Iterable[str]) -> Placement | None:
    """A placement on the least loaded of these nodes; a gang of several servers gets the least loaded of them."""
    capacity = session.capacity.only({})
    for node in sorted(nodes, key=lambda node: (height(session, node), node)):
        capacity.set(node, session.idle(node))
        placement = find(gang, capacity)
        if placement:
            return placement
    return None


def pack(session: Session) -> None:
    """Pack suspended gangs onto GPUs of their nodes that others use (section 3.3); what was never measured is tried."""
    if not can_pack(session):
        return
    for node in sorted({node for gang in session.gangs.values() if gang.suspended for node in gpus_by_node(gang.placement)}):
        waiting = [gang for gang in session.on(node) if gang.suspended and is_profiled(session, gang)]
        for gang in sorted(waiting, key=lambda gang: (utilisation(session, gang), gang.name)):
            wanted = _counts(gang)
            bundles = [bundle for bundle in hosts(session, session.on(node)) if _counts(bundle[0]) == wanted]
            by_load = sorted(bundles, key=lambda bundle: (sum(utilisation(session, g) for g in bundle), bundle[0].name))
            for bundle in by_load:
                if pack_onto(session, gang, bundle, least=1.0):
                    break


def _counts(gang: Gang) -> dict[str, int]:
    return {node: gpus.bit_count() for node, gpus in gpus_by_node(gang.placement).items()}


def _cluster_height(session: Session) -> float:
    """GPUs that all gangs ask for over those there are; over 1 the cluster is overloaded."""
    healthy = sum(node.healthy.bit_count() for node in session.nodes.values())
    wanted = sum(gang.held if gang.placement else gang.gpus for gang in session.gangs.values())
    return wanted / healthy if healthy else float("inf")


def _of_size(session: Session, gang: Gang) -> list[str]:
    """The servers that serve the gang's size: that of the largest gang there."""
    size = _size(session, gang)
    return [node for node in session.nodes if size == max((_size(session, g) for g in session.on(node)), default=None)]


def _size(session: Session, gang: Gang) -> int:
    """The GPUs that the gang wants of a server."""
    return min(gang.gpus, session.largest)
