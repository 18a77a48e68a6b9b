"""Growing and shrinking: an elastic gang has GPUs that no other gang wants, for as long as none does.

Gandiva (OSDI'18, section 3.5): a gang grows only to the idle GPUs of the server that it is on, and only after they stayed idle
for a while; it shrinks at once when another gang needs them.
"""

from __future__ import annotations

from muster.scheduling.counting import counted
from muster.scheduling.decisions import Grow, Reason, Shrink
from muster.scheduling.gang import Assigned, Gang, Placement, gpus_by_node, gpus_of, renumbered
from muster.scheduling.session import Session


def grow(session: Session, after: float) -> None:
    """Let gangs that have been as they are for `after` seconds grow to the idle GPUs of their server."""
    if not session.can(Grow, Shrink):
        return
    for gang in sorted(session.gangs.values(), key=lambda gang: (gang.since, gang.name)):
        if not gang.running or gang.asked is None or session.now - gang.since < after:
            continue
        if len(gpus_by_node(gang.placement)) != 1 or session.is_packed(gang):
            continue
        larger = _larger(session, gang)
        if larger:
            message = f"{gang.held} to {counted(gpus_of(larger), 'GPU')} that stayed idle for {after:.0f} s"
            session.apply(Grow(gang, larger, Reason.GPUS_IDLE, message, session.rates.effect(gang, larger)))


def shrink(session: Session, node: str, gpus: int) -> bool:
    """Take back up to `gpus` GPUs of a node that gangs have beyond what they asked for; say whether there were any."""
    shrunk_any = False
    for gang in session.on(node) if session.can(Shrink) else ():
        less = _smaller(gang, gpus) if gang.running and gpus > 0 and gang.grown else gang.placement
        if less != gang.placement:
            left = gpus_of(less)
            message = f"{gang.held} to {counted(left, 'GPU')}: others need them"
            session.apply(Shrink(gang, less, Reason.GPUS_NEEDED, message, session.rates.effect(gang, less)))
            gpus -= gang.held - left
            shrunk_any = True
    return shrunk_any


def shrink_everywhere(session: Session, gpus: int) -> None:
    """Take back up to `gpus` GPUs of each node that gangs have beyond what they asked for."""
    nodes = {node for gang in session.gangs.values() if gang.grown for node in gpus_by_node(gang.placement)}
    for node in sorted(nodes):
        shrink(session, node, gpus)


def _smaller(gang: Gang, gpus: int) -> Placement:
    """The gang without its last workers, so many that `gpus` GPUs come free, or all beyond what it asked for."""
    less = gang.placement
    workers = sum(assigned.task.role == "worker" for assigned in less)
    while workers > (gang.asked or 0) and gang.held - gpus_of(less) < gpus:
        workers -= 1
        less = renumbered(one for one in less if one.task.role != "worker" or one.task.index < workers)
    return less


def _larger(session: Session, gang: Gang) -> Placement | None:
    """The gang with as many workers more as its server has idle GPUs for, and its queue's quota allows."""
    ((node, _),) = gpus_by_node(gang.placement).items()
    idle, resources, machine = session.idle(node), session.capacity.resources(node), session.nodes[node].machine
    placed = {assigned.task.name for assigned in gang.placement}
    more: list[Assigned] = []
    quota = 0
    for task in (task for task in gang.tasks if task.name not in placed):
        quota += task.gpus
        fits = task.gpus <= idle.bit_count() and resources.covers(task.resources)
        if not fits or not session.quotas.allows(gang, quota):
            break
        gpus = machine.fastest(idle, task.gpus)
        idle, resources = idle & ~gpus, resources - task.resources
        more.append(Assigned(task, node, gpus, len(gang.placement) + len(more)))
    return (*gang.placement, *more) if more else None
