"""Preemption: which running gangs of lower priority make way for one that waits, and for which it is enough to wait.

A gang makes way for one of a higher priority, and for one of its own namespace with the same priority and a higher local one.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.scheduling.decisions import Preempt, Reason, Wait
from muster.scheduling.gang import Gang, Placement, describe, gpus_by_node
from muster.scheduling.naming import all_named
from muster.scheduling.placing.placement import find
from muster.scheduling.queue_order import by_local_priority
from muster.scheduling.session import Session


def wait_for_stopping_pods(session: Session, gang: Gang) -> Wait | None:
    """Let the gang wait for pods that are on their way out, where that will be enough."""
    placement = _once_gone(session, gang, ())
    if placement is None:
        return None
    message = f"waits for pods that are stopping; then has {describe(placement)}"
    return Wait(gang, Reason.PODS_STOPPING, message, keeps=placement)


def preempt(session: Session, gang: Gang, candidates: Sequence[Gang]) -> Preempt | None:
    """Return the least that has to go, by lowest priority, of equal ones the last to have started; None if nothing helps.

    Where the quota of the gang's queue is used up, gangs of that queue are among the victims.
    """
    victims, placement = _enough(session, gang, candidates)
    if placement is None:
        return None
    for victim in victims[-2::-1]:
        fewer = [other for other in victims if other is not victim]
        if smaller := _once_gone(session, gang, fewer):
            victims, placement = fewer, smaller
    message = f"takes the place of {all_named(victims, gang.namespace)} (lower priority)"
    return Preempt(gang, tuple(victims), Reason.PREEMPTING, message, placement)


def _enough(session: Session, gang: Gang, candidates: Sequence[Gang]) -> tuple[list[Gang], Placement | None]:
    """The candidates, one after another, until the gang has a placement."""
    lower = [running for running in candidates if makes_way(running, gang)]
    lower.sort(key=lambda running: (running.priority, -running.started, running.name))
    victims: list[Gang] = []
    for victim in by_local_priority(lower, highest_first=False):
        victims.append(victim)
        if placement := _once_gone(session, gang, victims):
            return victims, placement
    return [], None


def makes_way(running: Gang, gang: Gang) -> bool:
    """Say whether a running gang has to make way for one that waits."""
    if not (running.preemptible and gang.preempts) or gang.start_failed:
        return False
    if running.priority != gang.priority:
        return running.priority < gang.priority
    return running.namespace == gang.namespace and running.local_priority < gang.local_priority


def _once_gone(session: Session, gang: Gang, gone: Sequence[Gang]) -> Placement | None:
    """Where the gang would start, within its quota, once these gangs, and all pods on their way out, have gone."""
    allowed = session.quotas.once_gone(gone).within(gang)
    if allowed is None:
        return None
    with session.capacity.trial():
        session.capacity.vacate_stopping()
        release(session, gone)
        return find(allowed, session.capacity)


def release(session: Session, gone: Sequence[Gang]) -> None:
    """Count as free what these gangs have, but for GPUs on which others have a placement as well; within a trial."""
    capacity, names = session.capacity, {gang.name for gang in gone}
    for gang in gone:
        capacity.give_back(gang.placement)
    for node in {node for gang in gone for node in gpus_by_node(gang.placement) if node in capacity.free}:
        others = 0
        for name, (_, gpus) in session.occupancy.residents(node).items():
            others |= 0 if name in names else gpus
        if capacity.free[node] & others:
            capacity.set(node, capacity.free[node] & ~others)
