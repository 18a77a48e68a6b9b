"""Whole-gang admission: one pass over the gangs, in turn, with the room that is left for each.

Same snapshot, same decisions: every ordering ends in a name. A gang that is placed takes its GPUs out of the room for those
after it; one that must wait keeps what it may use from those after it (see `queueing`). Gangs that want to move come first:
what they leave is not counted as free before their pods have gone, so a move never takes from anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from muster.scheduling.decisions import Admission, Place, Preempt, Reason, Wait
from muster.scheduling.placement import Room, Shortage, describe, fewest_gpus, place
from muster.scheduling.queueing import Claims, Quotas, in_order
from muster.scheduling.settings import DEFAULTS, Settings
from muster.scheduling.snapshot import Gang, Node, Placement, Snapshot


def admit(
    snapshot: Snapshot,
    now: float,
    settings: Settings = DEFAULTS,
    *,
    memory: Memory | None = None,
    which: Callable[[Gang], bool] | None = None,
) -> list[Admission]:
    """Decide for every gang that waits or wants to move; gangs that run and want nothing get no decision.

    Of those that wait, only for `which`. With a `memory` of earlier passes the answer is the same, and comes sooner.
    """
    turn = _Pass(snapshot, now, settings, memory or Memory())
    moving = [gang for gang in snapshot.gangs if gang.placement and gang.leave is not None]
    moves = [turn.move(gang) for gang in in_order(moving)]
    due = [gang for gang in snapshot.gangs if not gang.placement or (gang.resize and gang.leave is None)]
    chosen = due if which is None else [gang for gang in due if gang.placement or which(gang)]
    return moves + [turn.resize(gang) if gang.placement else turn.admit(gang) for gang in in_order(chosen)]


@dataclass(frozen=True, slots=True)
class _Behind:
    """An answer that holds as long as the gang is the same, and the same one ahead keeps every node that it may use."""

    wait: Wait
    ahead: str
    eligible: tuple[str, ...]


class Memory:
    """What passes leave for those after them: the room, and answers that may still hold."""

    def __init__(self) -> None:
        self.behind: dict[str, _Behind] = {}
        self._room: Room | None = None

    def room(self, nodes: Mapping[str, Node]) -> Room:
        """The room of these nodes, made anew only where they changed."""
        if self._room is None or not self._room.fleet.matches(nodes):
            self._room, self.behind = Room(nodes), {}
        else:
            self._room.follow(nodes)
        return self._room


class _Pass:
    """One pass: `room` is what is free, `open` what of it no waiting gang keeps."""

    def __init__(self, snapshot: Snapshot, now: float, settings: Settings, memory: Memory) -> None:
        self.now, self.settings, self._memory = now, settings, memory
        self.room = self.open = memory.room(snapshot.nodes)
        self.quotas = Quotas(snapshot.queues, snapshot.gangs)
        self.claims = Claims()
        self.running = [gang for gang in snapshot.gangs if gang.placement]

    def admit(self, gang: Gang) -> Admission:
        """Place the gang, make room for it, or say why it waits."""
        before = self._as_before(gang)
        if before:
            return before
        wait = self._not_yet(gang) or self._never_fits(gang) or self._quota(gang)
        if wait:
            return wait
        allowed = self.quotas.within(gang) or gang
        decision = self._all_kept(gang) or self._find(gang, allowed)
        if not isinstance(decision, Place):
            self.quotas.keep(gang.queue, allowed.gpus)
        return decision

    def _find(self, gang: Gang, allowed: Gang) -> Admission:
        found = place(allowed, self.open)
        if isinstance(found, Shortage):
            return self._blocked(gang, found)
        self._take(gang, found)
        return Place(gang, found, Reason.PLACED, describe(found))

    def move(self, gang: Gang) -> Admission:
        """Find another place: beside the one it has if there is room, else over what it gives up itself."""
        away = self._left_behind(gang)
        if not any(place.node in away for place in gang.placement):
            return Wait(gang, Reason.NOT_THERE, f"does not move: it is not on {gang.leave}")
        return self._elsewhere(gang, self.room.without(away), self._given_up(gang, self.room).without(away), Reason.MIGRATED)

    def resize(self, gang: Gang) -> Admission:
        """Find a place of the new size in turn: growing must not overtake those who wait for the same GPUs."""
        return self._elsewhere(gang, self.open, self._given_up(gang, self.open), Reason.RESIZED)

    def _given_up(self, gang: Gang, room: Room) -> Room:
        own = room.copy()
        own.give_back(gang.placement)
        return own

    def _elsewhere(self, gang: Gang, beside: Room, within: Room, reason: Reason) -> Admission:
        found = place(gang, beside)
        if isinstance(found, Shortage) and gang.leave != "":
            found = place(gang, within)
        if isinstance(found, Shortage):
            return Wait(gang, Reason.NO_OTHER_PLACE, f"stays where it is: {found.message}")
        if not self._may_grow(gang, found):
            return Wait(gang, Reason.QUOTA_EXHAUSTED, f"stays as it is: {self.quotas.used(gang.queue)}")
        self._take(gang, found)
        self.running.remove(gang)
        return Place(gang, found, reason, f"moves to {describe(found)}")

    def _take(self, gang: Gang, found: Placement) -> None:
        held = sum(a.gpus.bit_count() for a in found) - sum(a.gpus.bit_count() for a in gang.placement)
        self._fill(found)
        self.quotas.add(gang.queue, held)

    def _fill(self, found: Placement) -> None:
        self.room.take(found)
        if self.open is not self.room:
            self.open.take(found)

    def _not_yet(self, gang: Gang) -> Wait | None:
        if gang.absent:
            message = f"has {len(gang.tasks)} of {len(gang.tasks) + gang.absent} pods; {gang.absent} not created yet"
            return Wait(gang, Reason.PODS_ABSENT, message)
        if gang.not_before > self.now:
            message = f"tries again in {gang.not_before - self.now:.0f} s"
            return Wait(gang, Reason.BACK_OFF, message, until=gang.not_before)
        return None

    def _quota(self, gang: Gang) -> Wait | None:
        """Hold the gang at its queue's quota. It keeps the place in the cluster that it would have now."""
        least = fewest_gpus(gang)
        if not self.quotas.ever_allows(gang, least):
            limit = self.quotas.limit(gang.queue)
            return Wait(gang, Reason.OVER_QUOTA, f"needs {least} GPUs; queue {gang.queue} may never hold more than {limit}")
        first = self.claims.queues.get(gang.queue)
        if first:
            return Wait(gang, Reason.BEHIND_IN_QUEUE, f"comes after {first.name}, which waits for quota of {gang.queue}")
        if self.quotas.allows(gang, least):
            return None
        self.claims.claim_queue(gang)
        found = place(gang, self.open)
        if isinstance(found, Shortage):
            self._keep_nodes(gang)
        else:
            self._fill(found)
        return Wait(gang, Reason.QUOTA_EXHAUSTED, f"needs {least} GPUs; {self.quotas.used(gang.queue)}")

    def _may_grow(self, gang: Gang, found: Placement) -> bool:
        more = sum(a.gpus.bit_count() for a in found) - sum(a.gpus.bit_count() for a in gang.placement)
        return more <= 0 or self.quotas.allows(gang, more)

    def _all_kept(self, gang: Gang) -> Wait | None:
        """Spare the search where gangs ahead keep every node; a long queue is mostly this."""
        eligible = self.room.eligible(gang)
        if not self.claims.keep_all(eligible):
            return None
        wait, ahead = self._behind(gang), self.claims.ahead(eligible)
        if wait and ahead:
            self._memory.behind[gang.name] = _Behind(wait, ahead.name, eligible)
        return wait

    def _as_before(self, gang: Gang) -> Wait | None:
        """The answer of an earlier pass, if nothing that it rests on has changed."""
        known = self._memory.behind.get(gang.name)
        if known is None or known.wait.gang is not gang or self.quotas.limit(gang.queue) is not None:
            return None
        ahead = self.claims.ahead(known.eligible) if self.claims.keep_all(known.eligible) else None
        return known.wait if ahead and ahead.name == known.ahead else None

    def _behind(self, gang: Gang) -> Wait | None:
        ahead = self.claims.ahead(self.room.eligible(gang))
        if ahead is None:
            return None
        return Wait(gang, Reason.BEHIND_IN_QUEUE, f"needs {gang.gpus} GPUs; comes after {ahead.name}, which waits for GPUs")

    def _blocked(self, gang: Gang, shortage: Shortage) -> Admission:
        decision = self._behind(gang) or self._stopping(gang) or self._preempt(gang)
        self._keep_nodes(gang)
        return decision or Wait(gang, Reason.INSUFFICIENT_GPUS, shortage.message)

    def _never_fits(self, gang: Gang) -> Wait | None:
        """Refuse what would not fit even if nobody else ran; asked once for gangs of the same shape."""
        tasks = tuple((task.role, task.index, task.gpus, task.rest, task.where) for task in gang.tasks)
        key = (gang.spread, gang.preferred, gang.required, gang.fewest, gang.asked, tasks)
        hopeless = self.room.fleet.hopeless
        if key not in hopeless:
            found = place(gang, Room(self.room.fleet.empty, self.room.fleet))
            hopeless[key] = f"{found.message}, with nobody else running" if isinstance(found, Shortage) else None
        message = hopeless[key]
        return Wait(gang, Reason.NEVER_FITS, message) if message else None

    def _stopping(self, gang: Gang) -> Wait | None:
        """Wait for pods that are on their way out, where that will be enough."""
        found = place(gang, self.room.settled())
        if isinstance(found, Shortage):
            return None
        return Wait(gang, Reason.PODS_STOPPING, f"waits for pods that are stopping; then has {describe(found)}")

    def _preempt(self, gang: Gang) -> Preempt | None:
        """The least that has to go: lowest priority first, of these the last to have started."""
        if not self.settings.preemption:
            return None
        lower = [g for g in self.running if g.preemptible and g.priority < gang.priority]
        victims: list[Gang] = []
        for victim in sorted(lower, key=lambda g: (g.priority, -g.started, g.name)):
            victims.append(victim)
            if self._fits_without(gang, victims):
                break
        else:
            return None
        for victim in victims[-2::-1]:
            fewer = [v for v in victims if v is not victim]
            if self._fits_without(gang, fewer):
                victims = fewer
        self.running = [g for g in self.running if g not in victims]
        names = ", ".join(v.name for v in victims)
        return Preempt(gang, tuple(victims), Reason.PREEMPTING, f"takes the place of {names} (lower priority)")

    def _fits_without(self, gang: Gang, victims: Iterable[Gang]) -> bool:
        room = self.room.settled()
        for victim in victims:
            room.give_back(victim.placement)
        return not isinstance(place(gang, room), Shortage)

    def _keep_nodes(self, gang: Gang) -> None:
        """From here on nobody behind the gang gets a GPU of a node that the gang may use."""
        names = [name for name in self.room.eligible(gang) if name not in self.claims.nodes]
        self.claims.claim_nodes(gang, names)
        if names and self.open is self.room:
            self.open = self.room.copy()
        for name in names:
            self.open.close(name)

    def _left_behind(self, gang: Gang) -> list[str]:
        if gang.leave is None:
            return []
        if gang.leave == "":
            return [a.node for a in gang.placement]
        return [n.name for n in self.room.nodes.values() if gang.leave in (n.name, n.rack)]
