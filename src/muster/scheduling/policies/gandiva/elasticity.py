"""Growing and shrinking: an elastic gang has GPUs that nobody else wants, for as long as nobody does.

Gandiva (OSDI'18, section 3.5): a gang grows only to the idle GPUs of the server that it is on, and only after they stayed idle
for a while; it shrinks at once when another gang needs them.
"""

from __future__ import annotations

from muster.scheduling.decisions import Grow, Reason, Shrink
from muster.scheduling.gang import Assigned, Effect, Gang, Placement
from muster.scheduling.placing.placement import renumbered
from muster.scheduling.session import Session
from muster.scheduling.speed.occupancy import gpus_of, shape


def grow(session: Session, after: float) -> None:
    """Let gangs that have been as they are for `after` seconds grow to the idle GPUs of their server."""
    for gang in sorted(session.gangs.values(), key=lambda gang: (gang.since, gang.name)):
        if not gang.running or gang.asked is None or session.now - gang.since < after:
            continue
        if len(session.spots(gang)) != 1 or session.is_packed(gang):
            continue
        larger = _larger(session, gang)
        if larger:
            message = f"{gang.held} to {gpus_of(larger)} GPUs that stayed idle for {after:.0f} s"
            session.put(Grow(gang, larger, Reason.GPUS_IDLE, message, effect(session, gang, larger)))


def shrink(session: Session, node: str, gpus: int) -> bool:
    """Take back up to `gpus` GPUs of a node that gangs have beyond what they asked for; say whether there were any."""
    found = False
    for gang in session.on(node):
        less = _smaller(gang, gpus) if gang.running and gpus > 0 and is_grown(gang) else gang.placement
        if less != gang.placement:
            left = gpus_of(less)
            message = f"{gang.held} to {left} GPUs: others need them"
            session.put(Shrink(gang, less, Reason.GPUS_NEEDED, message, effect(session, gang, less)))
            gpus -= gang.held - left
            found = True
    return found


def make_room(session: Session, gpus: int) -> bool:
    """Take back up to `gpus` GPUs of each node that gangs have beyond what they asked for; say whether there were any."""
    nodes = {node for gang in session.gangs.values() if is_grown(gang) for node in session.spots(gang)}
    found = [shrink(session, node, gpus) for node in sorted(nodes)]
    return any(found)


def is_grown(gang: Gang) -> bool:
    """Say whether a gang has more workers than it asked for."""
    return gang.asked is not None and sum(place.task.role == "worker" for place in gang.placement) > gang.asked


def _smaller(gang: Gang, gpus: int) -> Placement:
    """The gang without its last workers, so many that `gpus` GPUs come free, or all beyond what it asked for."""
    less = gang.placement
    workers = sum(place.task.role == "worker" for place in less)
    while workers > (gang.asked or 0) and gang.held - gpus_of(less) < gpus:
        workers -= 1
        less = renumbered(place for place in less if place.task.role != "worker" or place.task.index < workers)
    return less


def _larger(session: Session, gang: Gang) -> Placement | None:
    """The gang with as many workers more as its server has idle GPUs for, and its queue's quota allows."""
    ((node, _),) = session.spots(gang).items()
    idle, rest, machine = session.idle(node), session.capacity.resources(node), session.nodes[node].machine
    placed = {place.task.name for place in gang.placement}
    more: list[Assigned] = []
    quota = 0
    for task in (task for task in gang.tasks if task.name not in placed):
        quota += task.gpus
        if task.gpus > idle.bit_count() or not rest.covers(task.resources) or not session.quotas.allows(gang, quota):
            break
        part = machine.fastest(idle, task.gpus)
        idle, rest = idle & ~part, rest - task.resources
        more.append(Assigned(task, node, part, len(gang.placement) + len(more)))
    return (*gang.placement, *more) if more else None


def effect(session: Session, gang: Gang, after: Placement) -> Effect | None:
    """What is expected of another placement beside what is expected of the one that the gang has."""
    now = session.rates.expected(gang, shape(gang.placement, session.nodes))
    then = session.rates.expected(gang, shape(after, session.nodes))
    return Effect(now, then) if now is not None and then is not None else None
