"""Migration: moving gangs to where they, or those to come, do better (Gandiva, OSDI'18, section 3.4).

A move pays when what the gang gains outweighs what moving costs. How long it will still run nobody knows; run times are
heavy-tailed, so a gang that has run for a while is taken to run as long again (Harchol-Balter and Downey, 1997, found this of
process lifetimes and migrate by it). Moves that help others (defragmentation) must not slow the gang that moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from muster.scheduling.decisions import Migrate, Reason
from muster.scheduling.mechanisms.board import Board, Spots
from muster.scheduling.mechanisms.turns import waits
from muster.scheduling.placing.placement import place
from muster.scheduling.placing.room import Room
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.snapshot import Effect, Gang, Placement
from muster.scheduling.speed.occupancy import gpus_by_node as _spots
from muster.scheduling.speed.occupancy import shape_of

COST_SECONDS = 10.0
"""What a move costs where it was never measured: CRIU took 8 to 10 s for a job of one GPU (Gandiva, section 4.2)."""
TOO_MANY_FREE = 3
"""Free GPUs that make a server of 4 worth emptying (Gandiva, section 3.4); others in proportion."""


def level(board: Board) -> None:
    """Let gangs that take turns on crowded servers move to servers that have GPUs for them."""
    for node in sorted(_crowded(board), key=lambda name: (-board.height(name), name)):
        for gang in sorted(board.on(node), key=lambda gang: (gang.running, -gang.held, gang.name)):
            if board.height(node) <= 1:
                break
            found = _place(board, gang, board.room) if gang.sharing.slices else None
            if found:
                message = f"leaves a server on which {board.height(node):.1f} gangs want each GPU"
                board.put(Migrate(gang, found, Reason.BALANCED, message))


def improve(board: Board, nodes: Iterable[str] | None = None) -> None:
    """Move gangs whose placement or neighbours slow them to idle GPUs where they gain more than the move costs.

    `nodes` are those where GPUs came free; without them every gang is looked at.
    """
    if not any(board.idle(node) for node in (nodes if nodes is not None else board.nodes)):
        return
    slowed = [(_relative(board, gang, board.spots(gang)), gang) for gang in board.gangs.values() if _may_move(board, gang)]
    for relative, gang in sorted(slowed, key=lambda item: (item[0], item[1].name)):
        if relative >= 1.0:
            break
        found = _place(board, gang, _with_own(board, gang).without(_crowded(board)))
        if found and _pays(board, gang, relative, found):
            after = _relative(board, gang, _spots(found))
            alone = len(board.spots(gang)) > len(_spots(found))
            reason = Reason.LOCALITY if alone else Reason.INTERFERENCE
            message = f"runs at {relative:.2f} of its best rate, {after:.2f} expected there"
            board.put(Migrate(gang, found, reason, message, Effect(relative, after, "of its best rate")))


def defragment(board: Board) -> None:
    """Empty the server with the most idle GPUs onto servers with fewer, as long as one has too many (3 of 4)."""
    crowded = _crowded(board)
    half_empty = [node for node in board.nodes if board.residents.get(node) and _wastes(board, node)]
    for node in sorted(half_empty, key=lambda name: (-board.idle(name).bit_count(), name)):
        others = (n for n in board.nodes if board.residents.get(n) and n != node and n not in crowded)
        fuller = {n for n in others if 0 < _idle(board, n) <= _idle(board, node)}
        for gang in board.on(node):
            found = _place(board, gang, board.only({n: board.idle(n) for n in fuller})) if _may_move(board, gang) else None
            if found and _relative(board, gang, _spots(found)) >= _relative(board, gang, board.spots(gang)):
                message = f"{node} has {_idle(board, node)} GPUs idle; without this gang it can take a whole one"
                board.put(Migrate(gang, found, Reason.DEFRAGMENTED, message))


def pays(gain: float, seconds_so_far: float, cost: float) -> bool:
    """Say whether a rate that is `gain` times as high makes up for `cost` seconds lost, in the time that is to be expected."""
    return (gain - 1.0) * seconds_so_far > cost * gain


def _pays(board: Board, gang: Gang, relative: float, found: Placement) -> bool:
    cost = board.rates.profile(gang).migrate_seconds
    so_far = board.now - gang.started
    after = _relative(board, gang, _spots(found))
    return pays(after / relative, so_far, COST_SECONDS if cost is None else cost)


def _crowded(board: Board) -> set[str]:
    """Servers on which somebody waits for its turn: what comes free there is for those."""
    return {node for gang in board.gangs.values() if waits(gang) for node in board.spots(gang)}


def _may_move(board: Board, gang: Gang) -> bool:
    return bool(gang.placement) and gang.running and gang.sharing.slices and not board.is_packed(gang)


def _wastes(board: Board, node: str) -> bool:
    return 4 * _idle(board, node) >= TOO_MANY_FREE * board.nodes[node].healthy.bit_count()


def _idle(board: Board, node: str) -> int:
    return board.idle(node).bit_count()


def _relative(board: Board, gang: Gang, spots: Spots) -> float:
    company = board.running.company(gang.name, spots, board.nodes)
    return board.rates.relative(gang, shape_of(spots, board.nodes), company)


def _place(board: Board, gang: Gang, room: Room) -> Placement | None:
    """Another place for the gang, in the size that it has: growing and shrinking are decided elsewhere."""
    found = place(replace(gang, tasks=tuple(one.task for one in gang.placement), fewest=None, asked=None), room)
    return None if isinstance(found, Shortage) or _spots(found) == board.spots(gang) else found


def _with_own(board: Board, gang: Gang) -> Room:
    room = board.room.copy()
    room.give_back(gang.placement)
    return room
