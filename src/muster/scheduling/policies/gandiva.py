"""Gandiva's policy, as in the paper (OSDI'18, sections 3 and 4, algorithm 1).

Reactive: a gang that arrives gets nodes at once, oversubscribed if need be; GPUs that came free go to those who wait for their
turn there. Introspective: judge what was packed, take turns, pack, level and repair placements, grow. Gangs that share nothing
are admitted by the planner as ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.scheduling.decisions import Join, Place, Reason
from muster.scheduling.mechanisms import elasticity, migration, packing, turns
from muster.scheduling.mechanisms.board import Board
from muster.scheduling.placing.placement import describe, fewest_gpus, place
from muster.scheduling.placing.room import Room
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.queueing import is_ready
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Gang, Placement

QUEUED = 10.0
"""A gang that was in the queue for so many slices takes turns on servers of any size; the paper leaves it there, to starve."""


def react(board: Board, settings: Settings) -> None:
    """Find nodes for those who wait, and use what came free."""
    fill(board, settings)
    if settings.migration:
        migration.level(board)
        migration.improve(board)
    fill(board, settings)


def introspect(board: Board, settings: Settings) -> None:
    """Judge, take turns, pack, repair, grow."""
    packing.judge(board)
    turns.next_slice(board)
    if settings.packing and board.cluster_height() > 1:
        packing.pack(board)
    if settings.migration:
        migration.level(board)
        migration.improve(board)
        migration.defragment(board)
    fill(board, settings)
    if not board.waiting():
        elasticity.grow(board, settings.grow_after)


def fill(board: Board, settings: Settings) -> None:
    """Use GPUs that nobody uses: for those who wait for their turn on them, for those who wait for a place, for their turns."""
    turns.fill(board, _crowded(board))
    ahead: dict[str, Gang] = {}
    for gang in board.waiting():
        if gang.sharing.slices and is_ready(gang, board.now):
            _start(board, gang, ahead.get(gang.queue), settings)
        wait = board.waits.get(gang.name)
        if wait and wait.reason is Reason.QUOTA_EXHAUSTED:
            ahead.setdefault(gang.queue, gang)
        if wait and wait.reason is Reason.INSUFFICIENT_GPUS:
            elasticity.make_room(board, fewest_gpus(gang))
    turns.fill(board, _crowded(board))


def _start(board: Board, gang: Gang, ahead: Gang | None, settings: Settings) -> None:
    """Find a place for the gang, unless one ahead waits for the quota of its queue."""
    if ahead:
        board.wait(gang, Reason.BEHIND_IN_QUEUE, f"comes after {ahead.name}, which waits for quota of {gang.queue}")
        return
    allowed = board.quotas.within(gang)
    if allowed is None:
        board.wait(gang, Reason.QUOTA_EXHAUSTED, f"needs {fewest_gpus(gang)} GPUs; {board.quotas.used(gang.queue)}")
        return
    found = get_nodes(board, allowed)
    for node in sorted(board.residents):
        if found is None and elasticity.shrink(board, node, fewest_gpus(allowed) - board.idle(node).bit_count()):
            found = get_nodes(board, allowed)
    if found:
        board.put(Place(gang, found, Reason.PLACED, describe(found)))
        return
    patient = board.now - gang.since <= QUEUED * settings.slice_seconds
    found = oversubscribe(board, allowed, _same(board, allowed) if patient else board.nodes)
    if found:
        others = [g for node in sorted({p.node for p in found}) for g in board.on(node)]
        message = f"takes turns with {len(others)} others: {describe(found)}"
        board.put(Join(gang, found, Reason.TIME_SLICED, message))
        return
    message = f"needs {gang.gpus} GPUs; none idle, and no server of its size takes turns"
    board.wait(gang, Reason.INSUFFICIENT_GPUS, message)


def get_nodes(board: Board, gang: Gang) -> Placement | None:
    """Idle GPUs for the gang: on servers that serve its size, else on empty ones, else wherever they are."""
    same = [node for node in _same(board, gang) if board.height(node) < 1]
    empty = [n for n in board.nodes if not board.residents.get(n)]
    return _least_loaded(board, gang, same) or _least_loaded(board, gang, empty) or _found(gang, board.room)


def oversubscribe(board: Board, gang: Gang, nodes: Iterable[str]) -> Placement | None:
    """GPUs of the least loaded of these servers, on which everyone takes turns."""
    nodes = sorted(nodes, key=lambda node: (board.height(node), node))
    room = board.only({})
    for height in sorted({board.height(n) for n in nodes}):
        for node in nodes:
            if board.height(node) == height:
                room.set(node, board.shared(node))
        found = _found(gang, room)
        if found:
            return found
    return None


def _least_loaded(board: Board, gang: Gang, nodes: Iterable[str]) -> Placement | None:
    """A place on one of these nodes, the one with the least load; a gang of several servers gets the least loaded of them."""
    room = board.only({})
    for node in sorted(nodes, key=lambda n: (board.height(n), n)):
        room.set(node, board.idle(node))
        found = _found(gang, room)
        if found:
            return found
    return None


def _found(gang: Gang, room: Room) -> Placement | None:
    found = place(gang, room)
    return None if isinstance(found, Shortage) else found


def _same(board: Board, gang: Gang) -> list[str]:
    """The servers that serve the gang's size."""
    size = _size(board, gang)
    return [node for node in board.nodes if _affinity(board, node) == size]


def _size(board: Board, gang: Gang) -> int:
    """The GPUs that the gang wants of a server."""
    return min(gang.gpus, board.largest)


def _affinity(board: Board, node: str) -> int | None:
    """The size of the gangs that a server serves (the largest there); None for an empty one."""
    gangs = board.residents.get(node)
    return max(_size(board, board.gangs[name]) for name in gangs) if gangs else None


def _crowded(board: Board) -> list[str]:
    return sorted({node for gang in board.gangs.values() if turns.waits(gang) for node in board.spots(gang)})
