"""A policy under watch: each of its answers is checked against what every policy must keep.

`promises` has the rules of a single answer. Here are those that take more than one:
- Deciding changes nothing, and rests on nothing but the snapshot: another policy of the same making, asked for the first time
  and with gangs and nodes in another order, answers the same.
- Undo restores the state: an Unpack gives a gang back the place that it had before the Pack (or none), as far as it is there.
- Nobody starves. Counted are the passes in which a gang that shares does not run although it would fit, were it not for gangs
  that share and have no higher priority. A gang that takes turns is passed over `SLACK` times for each gang on its servers, and
  for one that weighs more as many times as it does. One that has no place comes first, by muster's rule, when it waited
  `PATIENCE` times as long as it ran, and goes after those that came before it then: `SLACK` passes for each gang that shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from types import MappingProxyType

from muster.scheduling.decisions import Assignment, Decision, Pack, Unpack
from muster.scheduling.gang import Gang, Placement, gpus_by_node
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.time_sharing.rank import PATIENCE
from muster.simulator.engine import Policy
from muster.simulator.outcome import Outcome, runs
from muster.simulator.promises import RULES

SLACK = 3.0
SPARE = 10
"""Times that a policy may be asked in one moment beside once for each gang."""


class Broken(Exception):
    """A policy broke one of its promises; the message says which, and for which gang."""


class Checked:
    """A policy whose every answer is checked; `make` gives a new one."""

    def __init__(self, make: Callable[[], Policy]) -> None:
        self._make, self._policy = make, make()
        self.period = self._policy.period
        self.asked = 0
        """How often the policy was asked."""
        self._moment, self._times = -1.0, 0
        """When it was asked last, and how often at that moment."""
        self._packed_from: dict[str, Placement] = {}
        self._passed_over: dict[tuple[str, bool], tuple[int, float]] = {}
        """Passes, and how many there may be, by name and whether the gang has a place: who gets one begins to wait anew."""

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        decisions = self._policy.react(read_only(snapshot), now)
        again = self._make().react(turned_round(snapshot), now)
        outcome = Outcome(snapshot, now, decisions)
        running = {gang.name for gang in outcome.running()}
        self._passed_over = {key: times for key, times in self._passed_over.items() if key[0] not in running}
        return self._checked(outcome, again)

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        decisions = self._policy.introspect(read_only(snapshot), now)
        again = self._make().introspect(turned_round(snapshot), now)
        outcome = Outcome(snapshot, now, decisions)
        return self._checked(outcome, again, *self._starved(outcome))

    def _checked(self, outcome: Outcome, again: Sequence[Decision], *complaints: str) -> Sequence[Decision]:
        self.asked += 1
        found = [*complaints, *self._not_undone(outcome), *self._restless(outcome)]
        for rule in RULES:
            found += [f"{rule.__name__}: {complaint}" for complaint in rule(outcome)]
        if list(outcome.decisions) != list(again):
            found.append(f"undecided: {_difference(outcome.decisions, again)}")
        if found:
            raise Broken("; ".join(found))
        return outcome.decisions

    def _restless(self, outcome: Outcome) -> Iterator[str]:
        """Each gang may be made way for once in a moment; who is asked again and again turns something round and round."""
        self._moment, self._times = outcome.now, self._times + 1 if outcome.now == self._moment else 1
        if self._times > len(outcome.before) + SPARE:
            yield f"restless: asked {self._times} times at {outcome.now:g} s, with {len(outcome.before)} gangs"

    def _not_undone(self, outcome: Outcome) -> Iterator[str]:
        for change in outcome.changes:
            name = change.before.name
            if isinstance(change.decision, Pack):
                self._packed_from[name] = change.before.placement
            elif isinstance(change.decision, Unpack):
                before = self._packed_from[name]
                if change.after.placement != before and _is_there(outcome, before):
                    yield f"not_undone: {name} does not get back the place that it had before it was packed"

    def _starved(self, outcome: Outcome) -> Iterator[str]:
        passed_over = {}
        for gang in outcome.gangs.values():
            if gang.sharing.slices and not runs(gang) and _could_run(outcome, gang):
                key = gang.name, bool(gang.placement)
                times, bound = self._passed_over.get(key, (0, 0.0))
                bound = max(bound, _turns(outcome, gang) if gang.placement else self._patience(outcome, gang))
                passed_over[key] = times + 1, bound
                if times + 1 > bound:
                    yield f"starved: {gang.name} was passed over {times + 1} times, and may be {bound:.0f} times"
        self._passed_over = passed_over

    def _patience(self, outcome: Outcome, gang: Gang) -> float:
        """The passes for which a gang without a place may be passed over."""
        ran = gang.attained / max(1, gang.gpus) / (self.period or 1.0)
        return PATIENCE * max(1.0, ran) + SLACK * sum(other.sharing.slices for other in outcome.gangs.values())


def _turns(outcome: Outcome, gang: Gang) -> float:
    """The passes for which a gang that takes turns may be passed over."""
    others = _beside(outcome, gang)
    return SLACK * sum(max(1.0, other.sharing.weight / gang.sharing.weight) for other in others)


def _beside(outcome: Outcome, gang: Gang) -> list[Gang]:
    """The gangs that have a place on a node of the gang, this one too."""
    nodes = set(gpus_by_node(gang.placement))
    return [other for other in outcome.gangs.values() if nodes & set(gpus_by_node(other.placement))]


def _could_run(outcome: Outcome, gang: Gang) -> bool:
    if gang.placement:
        return all(other.sharing.slices and other.priority <= gang.priority for other in _beside(outcome, gang))
    fixed = (g for g in outcome.gangs.values() if g.placement and not (g.sharing.slices and g.priority <= gang.priority))
    return not gang.absent and gang.not_before <= outcome.now and outcome.fits(gang, outcome.without(fixed))


def _is_there(outcome: Outcome, placement: Placement) -> bool:
    """Say whether GPUs are in order, and with gangs that take turns."""
    exclusive = (gang for gang in outcome.gangs.values() if gang.placement and not gang.sharing.slices)
    left = outcome.without(exclusive)
    return all(not gpus & ~left[node] for node, gpus in gpus_by_node(placement).items())


def read_only(snapshot: Snapshot) -> Snapshot:
    """The same snapshot, which fails who changes it; gangs and nodes are values already."""
    nodes, queues, profiles = snapshot.nodes, snapshot.queues, snapshot.profiles
    return replace(
        snapshot, nodes=MappingProxyType(nodes), queues=MappingProxyType(queues), profiles=MappingProxyType(profiles)
    )


def turned_round(snapshot: Snapshot) -> Snapshot:
    """The same snapshot with everything in the opposite order."""
    return replace(
        snapshot,
        nodes=dict(reversed(list(snapshot.nodes.items()))),
        gangs=snapshot.gangs[::-1],
        profiles=dict(reversed(list(snapshot.profiles.items()))),
    )


def _difference(decisions: Sequence[Decision], again: Sequence[Decision]) -> str:
    """The first decision that came out otherwise."""
    for one, other in zip_longest(decisions, again):
        if one != other:
            return f"{_told(one)}, and asked again {_told(other)}"
    return "nothing"


def _told(decision: Decision | None) -> str:
    if decision is None:
        return "nothing"
    effect = f" {decision.effect}" if isinstance(decision, Assignment) else ""
    return f"{type(decision).__name__} {decision.gang.name}: {decision.message}{effect}"
