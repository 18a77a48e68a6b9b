"""From where gangs are to where they are to be: decisions in an order in which each is possible after those before it.

Gangs that leave or shrink make room for those that come or grow. Where some wait for each other's GPUs in a circle, one of
them is queued again first and placed later in the pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from muster.scheduling.counting import counted
from muster.scheduling.decisions import Grow, Migrate, Place, Reason, Requeue, Shrink
from muster.scheduling.gang import Gang, Placement, describe, gpus_by_node, gpus_of
from muster.scheduling.placing.fit import misfit
from muster.scheduling.session import Session


def carry_out(session: Session, targets: Mapping[str, Placement]) -> None:
    """Decide what brings each gang to its placement; where several are possible, in the order given."""
    pending = {name: target for name, target in targets.items() if target != session.gangs[name].placement}
    while pending:
        possible = [name for name, target in pending.items() if _is_possible(session, session.gangs[name], target)]
        for name in possible:
            if _is_possible(session, session.gangs[name], pending[name]):
                _bring(session, session.gangs[name], pending.pop(name))
        if possible:
            continue
        gang = next((session.gangs[name] for name in pending if session.gangs[name].placement), None)
        if gang is None:
            return
        session.apply(Requeue(gang, Reason.PREEMPTED, "changes places with others"))


def _is_possible(session: Session, gang: Gang, target: Placement) -> bool:
    own, more = gpus_by_node(gang.placement), gpus_of(target) - gang.held
    fits = not any(
        misfit(gpus, session.nodes[node].healthy, session.idle(node) | own.get(node, 0))
        for node, gpus in gpus_by_node(target).items()
    )
    return fits and (more <= 0 or session.quotas.allows(gang, more))


def _bring(session: Session, gang: Gang, target: Placement) -> None:
    """Decide to bring a gang there; where the caller cannot migrate it, it is queued again and placed."""
    decision = _change(session, gang, target) if gang.placement else None
    if isinstance(decision, Migrate) and not session.can(Migrate):
        session.apply(Requeue(gang, decision.reason, decision.message))
        decision = None
    session.apply(decision or Place(gang, target, Reason.PLACED, describe(target)))


def _change(session: Session, gang: Gang, target: Placement) -> Grow | Shrink | Migrate:
    """The decision by what it means to the gang."""
    change = f"{counted(gang.held, 'GPU')} to {describe(target)}"
    effect = session.rates.effect(gang, target)
    if gpus_of(target) > gang.held:
        return Grow(gang, target, Reason.GPUS_IDLE, f"{change}: it makes more of them than others would", effect)
    if gpus_of(target) < gang.held:
        return Shrink(gang, target, Reason.GPUS_NEEDED, f"{change}: others make more of the rest", effect)
    return Migrate(gang, target, Reason.GPUS_NEEDED, f"{change}: others have its GPUs now", effect)
