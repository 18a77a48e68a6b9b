"""From where gangs are to where they are to be: decisions in an order in which each is possible after those before it.

Gangs that leave or shrink make room for those that come or grow. Where some wait for each other's GPUs in a circle, one of
them is taken off its GPUs first and placed again later in the pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from muster.scheduling.decisions import AnyAssignment, Grow, Migrate, Place, Reason, Shrink
from muster.scheduling.gang import Gang, Placement
from muster.scheduling.placing.placement import describe
from muster.scheduling.policies.gandiva.elasticity import effect
from muster.scheduling.session import Session
from muster.scheduling.speed.occupancy import gpus_by_node, gpus_of


def carry_out(session: Session, targets: Mapping[str, Placement]) -> None:
    """Decide what brings each gang to its placement; where several are possible, in the order given."""
    pending = {name: target for name, target in targets.items() if target != session.gangs[name].placement}
    while pending:
        possible = [name for name, target in pending.items() if _is_possible(session, session.gangs[name], target)]
        for name in possible:
            if _is_possible(session, session.gangs[name], pending[name]):
                session.put(_put(session, session.gangs[name], pending.pop(name)))
        if possible:
            continue
        gang = next((session.gangs[name] for name in pending if session.gangs[name].placement), None)
        if gang is None:
            return
        session.requeue(gang, Reason.PREEMPTED, "changes places with others")


def _is_possible(session: Session, gang: Gang, target: Placement) -> bool:
    own, wanted = session.spots(gang), gpus_by_node(target)
    more = gpus_of(target) - gang.held
    fits = all(not gpus & ~(session.idle(node) | own.get(node, 0)) for node, gpus in wanted.items())
    return fits and (more <= 0 or session.quotas.allows(gang, more))


def _put(session: Session, gang: Gang, target: Placement) -> AnyAssignment:
    """The decision that brings a gang there, by what it means to the gang."""
    if not gang.placement:
        return Place(gang, target, Reason.PLACED, describe(target))
    change = f"{gang.held} GPUs to {describe(target)}"
    expected = effect(session, gang, target)
    if gpus_of(target) > gang.held:
        return Grow(gang, target, Reason.GPUS_IDLE, f"{change}: it makes more of them than others would", expected)
    if gpus_of(target) < gang.held:
        return Shrink(gang, target, Reason.GPUS_NEEDED, f"{change}: others make more of the rest", expected)
    return Migrate(gang, target, Reason.GPUS_NEEDED, f"{change}: others have its GPUs now", expected)
