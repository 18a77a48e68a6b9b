"""Admission: one pass over the gangs that wait, or are to move or be resized, in queue order.

A gang that is placed takes its GPUs out of the session's capacity; one that must wait reserves what it may use from those after
it (`backfill`). Gangs that are to move come first: what they leave is not free before their pods have gone, so a move never
takes from another gang.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from muster.scheduling.admission.backfill import Backfill
from muster.scheduling.admission.preemption import preempt, release, wait_for_stopping_pods
from muster.scheduling.admission.resizing import in_place, span
from muster.scheduling.counting import counted
from muster.scheduling.decisions import Admission, Move, Place, Preempt, Reason, Resize, Wait
from muster.scheduling.gang import Gang, Placement, describe, gpus_by_node, gpus_of
from muster.scheduling.placing.interference_avoidance import avoid_interference
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.placing.refusals import refusals
from muster.scheduling.planner_cache import GangFacts
from muster.scheduling.queue_order import in_order
from muster.scheduling.session import Session


def admit(session: Session, which: Callable[[Gang], bool] | None = None) -> list[Admission]:
    """Decide for every gang that waits or is to change, of those that wait only for `which`; within a trial of the session.

    Gangs that run and want nothing get no decision. What waiting gangs reserve is lost with the trial.
    """
    turn, verbs, index = _Turn(session), session.settings.verbs, session.index
    moving = [gang for gang in index.changing.values() if gang.leave is not None]
    moves = [turn.move(gang) for gang in in_order(moving)] if Move in verbs else []
    waiting = (index.waiting.values() if which is None else filter(which, index.waiting.values())) if Place in verbs else ()
    resizing = [gang for gang in index.changing.values() if gang.leave is None] if Resize in verbs else []
    due = in_order([*waiting, *resizing])
    return moves + [
        turn.resize(gang) if gang.placement else turn.admit(gang) for gang in due if gang.name not in turn.preempted
    ]


class _Turn:
    """What the gangs so far reserve, and which of those that run may still be preempted."""

    def __init__(self, session: Session) -> None:
        self._session, self._facts, self._backfill = session, session.cache.facts, Backfill()
        self._capacity, self._quotas = session.capacity, session.quotas
        self._running = dict(session.index.placed)
        self._ahead: dict[int, Gang] = {}
        """By `GangFacts.alike`, the gang that all further ones come after; 10,000 queued gangs take 26 ms, not 33."""
        self.preempted: set[str] = set()
        """The names of gangs whose place a gang before them takes."""

    def admit(self, gang: Gang) -> Admission:
        """Place the gang, make room for it, or say why it waits."""
        facts = self._facts(gang)
        if not facts.alike or gang.stopping or gang.not_before > self._session.now:
            return self._kept_turn(facts) if facts.alike and gang.keeps_turn else self._cannot_start(facts)
        if ahead := self._ahead.get(facts.alike):
            return facts.behind(ahead)  # a long queue is mostly this
        if missing := self._quotas.missing(gang):
            return Wait(gang, Reason.QUEUE_NOT_FOUND, missing)
        if gang.queue in self._quotas.limits:
            return self._behind_in_quota(facts) or self._over_budget(gang) or self._within_quota(facts)
        blocking = self._backfill.blocking(facts.may_use, facts.eligible)  # spares the search
        if blocking:
            self._ahead[facts.alike] = blocking
            return facts.behind(blocking)
        return self._over_budget(gang) or self._search(facts, self._quotas.within(gang) or gang)

    def move(self, gang: Gang) -> Admission:
        """Find a placement apart from the one that the gang has if there is one, else one that overlaps with it."""
        away = self._left_behind(gang)
        if not any(assigned.node in away for assigned in gang.placement):
            why = f"it is not on {gang.leave}" if away else f"there is no node or rack {gang.leave}"
            return Wait(gang, Reason.NOT_THERE, f"does not move: {why}")
        return self._change(Move, Reason.MIGRATED, gang, self._elsewhere(gang, away))

    def resize(self, gang: Gang) -> Admission:
        """Find a placement of the new size, in turn: growing must not overtake gangs that wait for the same GPUs.

        What need not move stays, unless a gang that grows is nearer together elsewhere.
        """
        closed, capacity = self._backfill.nodes, self._capacity
        present = in_place(gang, capacity, closed)
        if present and len(present) <= len(gang.placement):
            return self._change(Resize, Reason.RESIZED, gang, present)
        placement = self._elsewhere(gang, closed)
        if present and (isinstance(placement, Shortage) or span(present, capacity) <= span(placement, capacity)):
            placement = present
        return self._change(Resize, Reason.RESIZED, gang, placement)

    def _search(self, facts: GangFacts, allowed: Gang) -> Admission:
        """Place the gang in the size that its quotas allow."""
        session, gang, closed = self._session, facts.gang, self._backfill.nodes
        rate = session.rates.by_shape(gang)
        placement = place(allowed, self._capacity, closed=closed, fragmentation=session.fragmentation, rate=rate)
        if isinstance(placement, Shortage):
            return self._blocked(facts, placement)
        if session.profiles:
            placement = avoid_interference(allowed, placement, self._capacity, closed, session.occupancy, session.rates)
        decision = Place(gang, placement, Reason.PLACED, describe(placement))
        session.apply(decision)
        return decision

    def _blocked(self, facts: GangFacts, shortage: Shortage) -> Admission:
        session, gang = self._session, facts.gang
        ahead = self._backfill.ahead(facts.eligible)
        decision = facts.behind(ahead) if ahead else wait_for_stopping_pods(session, gang) or self._preempt(gang)
        self._backfill.reserve_nodes(gang, facts.eligible)
        return decision or Wait(gang, Reason.INSUFFICIENT_GPUS, shortage.message + refusals(gang))

    def _preempt(self, gang: Gang) -> Preempt | None:
        if Preempt not in self._session.settings.verbs:
            return None
        decision = preempt(self._session, gang, list(self._running.values()))
        if decision:
            for victim in decision.victims:
                del self._running[victim.name]
                self.preempted.add(victim.name)
            self._session.apply(decision)
        return decision

    def _cannot_start(self, facts: GangFacts) -> Wait:
        """Say why the gang would not start even if nobody else ran: it is incomplete, backs off, or never fits."""
        gang = facts.gang
        if gang.unplannable:
            return Wait(gang, Reason.UNPLANNABLE, gang.unplannable)
        if gang.missing:
            return Wait(gang, Reason.NOT_FOUND, gang.missing)
        if gang.absent:
            message = f"has {len(gang.tasks)} of {len(gang.tasks) + gang.absent} pods; {gang.absent} not created yet"
            return Wait(gang, Reason.PODS_ABSENT, message)
        if gang.stopping:
            return Wait(gang, Reason.PODS_STOPPING, "waits for the end of its own pods")
        if gang.not_before > self._session.now:
            message = f"tries again in {gang.not_before - self._session.now:.0f} s"
            return Wait(gang, Reason.BACK_OFF, message, until=gang.not_before)
        return Wait(gang, Reason.NEVER_FITS, (facts.infeasible or "") + refusals(gang))

    def _kept_turn(self, facts: GangFacts) -> Wait:
        """Keep what a gang needs that starts again in a moment: GPUs where it finds them, else the nodes that it may use."""
        gang, wait = facts.gang, self._cannot_start(facts)
        kept = wait_for_stopping_pods(self._session, gang)
        self._quotas.reserve(gang.queue, gpus_of(kept.keeps) if kept else facts.fewest)
        if kept is None:
            self._backfill.reserve_nodes(gang, facts.eligible)
            return wait
        wait = wait._replace(keeps=kept.keeps)
        self._session.apply(wait)
        return wait

    # Quotas

    def _over_budget(self, gang: Gang) -> Wait | None:
        """Hold the gang where a resource quota of its namespace has too little left for the whole of it."""
        short = self._quotas.shortfall(gang)
        return Wait(gang, Reason.RESOURCE_QUOTA, short.message) if short else None

    def _behind_in_quota(self, facts: GangFacts) -> Wait | None:
        """Hold the gang where its queue's quota is too small for it, or a gang ahead waits for the quota."""
        gang, least, limit = facts.gang, facts.fewest, self._quotas.limits[facts.gang.queue]
        if least > limit:
            return Wait(
                gang, Reason.OVER_QUOTA, f"needs {counted(least, 'GPU')}; queue {gang.queue} may never hold more than {limit}"
            )
        first = self._backfill.queues.get(gang.queue)
        if first:
            return Wait(gang, Reason.BEHIND_IN_QUEUE, f"comes after {first.name}, which waits for quota of {gang.queue}")
        return None

    def _wait_for_quota(self, facts: GangFacts) -> Admission:
        """Let gangs of lower priority make way in a quota that is used up, or hold the gang at it."""
        gang, quotas = facts.gang, self._quotas
        self._backfill.reserve_queue(gang)
        if stopping := wait_for_stopping_pods(self._session, gang):
            return self._await_quota(gang, stopping)
        decision = None if self._backfill.ahead(facts.eligible) else self._preempt(gang)
        if decision:
            self._backfill.reserve_nodes(gang, facts.eligible)
        return decision or Wait(
            gang, Reason.QUOTA_EXHAUSTED, f"needs {counted(facts.fewest, 'GPU')}; {quotas.usage(gang.queue)}"
        )

    def _await_quota(self, gang: Gang, wait: Wait) -> Wait:
        """Hold the gang until the pods that fill its quota have gone; it keeps GPUs only where these come free by that."""
        kept = gpus_by_node(wait.keeps).items()
        if gang.start_failed or not any(self._session.nodes[node].leaving & gpus for node, gpus in kept):
            return Wait(gang, Reason.PODS_STOPPING, f"waits for pods that are stopping: {self._quotas.usage(gang.queue)}")
        self._session.apply(wait)
        return wait

    def _within_quota(self, facts: GangFacts) -> Admission:
        """Admit a gang in the size that its queue's quota allows; where it waits for GPUs, reserve that much of the quota."""
        gang = facts.gang
        allowed = self._quotas.within(gang)
        if allowed is None:
            return self._wait_for_quota(facts)
        blocking = self._backfill.blocking(facts.may_use, facts.eligible)
        decision = facts.behind(blocking) if blocking else self._search(facts, allowed)
        if not isinstance(decision, Place) and not gang.start_failed:
            self._quotas.reserve(gang.queue, allowed.gpus)
        return decision

    # Moves and resizes

    def _elsewhere(self, gang: Gang, closed: Collection[str]) -> Placement | Shortage:
        """Find a placement apart from the gang's own; where only that is short, and the gang need not leave, within it."""
        capacity = self._capacity
        placement = place(gang, capacity, closed=closed)
        if not isinstance(placement, Shortage) or gang.leave == "":
            return placement
        left = () if gang.leave is None else closed
        own = tuple(assigned for assigned in gang.placement if assigned.node not in left)
        with capacity.trial():
            for node in {assigned.node for assigned in own}.intersection(closed):
                capacity.set(node, 0)  # reserved for another gang, but for what this one has there
            release(self._session, [replace(gang, placement=own)])
            return place(gang, capacity, closed=set(closed).difference(assigned.node for assigned in own))

    def _change(self, verb: type[Move | Resize], reason: Reason, gang: Gang, placement: Placement | Shortage) -> Admission:
        if isinstance(placement, Shortage):
            return Wait(gang, Reason.NO_OTHER_PLACE, f"stays where it is: {placement.message}")
        if refusal := self._refused(gang, placement):
            return refusal
        del self._running[gang.name]
        message = f"{'moves' if verb is Move else 'is resized'} to {describe(placement)}"
        decision = verb(gang, placement, reason, message)
        self._session.apply(decision)
        return decision

    def _refused(self, gang: Gang, placement: Placement) -> Wait | None:
        """Hold a running gang as it is where a quota does not allow what it would have more."""
        more, quotas = gpus_of(placement) - gang.held, self._quotas
        if more > 0 and (missing := quotas.missing(gang)):
            return Wait(gang, Reason.QUEUE_NOT_FOUND, f"stays as it is: {missing}")
        if more > 0 and not quotas.allows(gang, more):
            return Wait(gang, Reason.QUOTA_EXHAUSTED, f"stays as it is: {quotas.usage(gang.queue)}")
        if short := quotas.shortfall(gang, placement):
            return Wait(gang, Reason.RESOURCE_QUOTA, f"stays as it is: {short.message}")
        return None

    def _left_behind(self, gang: Gang) -> list[str]:
        """The nodes that the gang is to leave."""
        if gang.leave is None:
            return []
        if gang.leave == "":
            return [assigned.node for assigned in gang.placement]
        return [node.name for node in self._session.nodes.values() if gang.leave in (node.name, node.rack)]
