"""What elastic gangs have beyond what they asked for goes to those that wait, in the pass in which they need it.

Gangs claim GPUs from where the elastic ones have their fewest workers (`policies.muster`), and these are given their shares
elsewhere afterwards (`shares`). A gang that found no place then may find one now: on GPUs that nobody has in the end, or on
those of elastic gangs, which go back to what they asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muster.scheduling.mechanisms.board import Board
from muster.scheduling.placing.placement import form, renumbered
from muster.scheduling.placing.room import Room
from muster.scheduling.queueing import Quotas
from muster.scheduling.snapshot import Gang, Placement
from muster.scheduling.speed.occupancy import gpus_by_node, gpus_of


def fill_up(
    board: Board, targets: Mapping[str, Placement], waiting: Iterable[tuple[str, int]], quotas: Quotas
) -> dict[str, Placement]:
    """Return the targets with those of gangs that start beside them.

    `waiting` has by turn those that found no place, each with the GPUs with which it can start. Who finds none here either
    keeps what it needs of its queue's quota from those after it.
    """
    targets = dict(targets)
    surplus = {name: more for name, target in targets.items() if (more := _surplus(board.gangs[name], target))}
    room = _left(board, targets)
    most = room.total + sum(map(gpus_of, surplus.values()))
    quotas.kept.clear()
    too_large: set[object] = set()
    for name, fewest in waiting:
        gang = quotas.within(board.gangs[name]) if fewest <= most else None
        found = None
        if gang and form(gang) not in too_large:
            found = board.find(gang, room) or (board.find(gang, _with(room, surplus.values())) if surplus else None)
            if not found:
                too_large.add(form(gang))
        if not found:
            quotas.keep(board.gangs[name].queue, fewest)
            continue
        for other in [other for other, more in surplus.items() if _meet(found, more)]:
            more = surplus.pop(other)
            targets[other] = renumbered(one for one in targets[other] if one not in more)
            room.give_back(more)
            quotas.add(board.gangs[other].queue, -gpus_of(more))
        room.take(found)
        quotas.add(board.gangs[name].queue, gpus_of(found))
        targets[name] = found
    return targets


def _surplus(gang: Gang, target: Placement) -> Placement:
    """The places of workers beyond those that the gang asked for."""
    asked = gang.asked
    return tuple(one for one in target if asked is not None and one.task.role == "worker" and one.task.index >= asked)


def _left(board: Board, targets: Mapping[str, Placement]) -> Room:
    """The room once everybody is at its target."""
    room = board.room.copy()
    for name in targets:
        room.give_back(board.gangs[name].placement)
    for target in targets.values():
        room.take(target)
    return room


def _with(room: Room, placements: Iterable[Placement]) -> Room:
    more = room.copy()
    for placement in placements:
        more.give_back(placement)
    return more


def _meet(one: Placement, other: Placement) -> bool:
    theirs = gpus_by_node(other)
    return any(gpus & theirs.get(node, 0) for node, gpus in gpus_by_node(one).items())
