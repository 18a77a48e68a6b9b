"""A wrapper around a policy that checks each of its answers against the invariants of every policy.

`invariants` has the invariants of a single answer. This module adds those of a sequence of answers:
- Deciding is pure: it changes nothing and depends on the snapshot alone. A fresh policy with the same settings, given the gangs
  and nodes in reverse order, decides the same.
- Undo restores the state: Unpack returns a gang to its placement before the Pack (or to none), if those GPUs still exist.
- No gang starves. A pass skips a time-sharing gang if the gang does not run although it would fit in place of time-sharing
  gangs of the same or a lower priority. A suspended gang with a placement may be skipped `SLACK` times for each gang on its
  nodes, times the ratio of their weights if that exceeds 1. A gang without a placement heads the queue, by muster's rule, after
  waiting `PATIENCE` times as long as it has run; the gangs then ahead of it add `SLACK` passes for each time-sharing gang.
- Passes end: at one moment the policy is called at most once for each gang, plus `EXTRA_CALLS`.
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
from muster.simulator.invariants import INVARIANTS
from muster.simulator.outcome import Outcome, runs

SLACK = 3.0
EXTRA_CALLS = 10
"""Calls of a policy at one moment that are allowed in addition to one for each gang."""


class InvariantError(Exception):
    """A policy violated an invariant; the message names the invariant and the gang."""


class Checked:
    """A policy that raises InvariantError for a bad answer of the wrapped one; `make` returns a fresh policy."""

    def __init__(self, make: Callable[[], Policy]) -> None:
        self._make, self._policy = make, make()
        self.period = self._policy.period
        self.calls = 0
        self._moment, self._calls_at_moment = -1.0, 0
        """The time of the last call, and the number of calls at that time."""
        self._packed_from: dict[str, Placement] = {}
        self._skipped: dict[tuple[str, bool], tuple[int, float]] = {}
        """Passes that skipped a gang and their bound, by name and whether it has a placement: placing it restarts the count."""

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        decisions = self._policy.react(read_only(snapshot), now)
        repeated = self._make().react(reversed_order(snapshot), now)
        outcome = Outcome(snapshot, now, decisions)
        running = {gang.name for gang in outcome.running()}
        self._skipped = {key: counts for key, counts in self._skipped.items() if key[0] not in running}
        return self._checked(outcome, repeated)

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        decisions = self._policy.introspect(read_only(snapshot), now)
        repeated = self._make().introspect(reversed_order(snapshot), now)
        outcome = Outcome(snapshot, now, decisions)
        return self._checked(outcome, repeated, *self._starvation(outcome))

    def _checked(self, outcome: Outcome, repeated: Sequence[Decision], *complaints: str) -> Sequence[Decision]:
        self.calls += 1
        violations = [*complaints, *self._incomplete_undo(outcome), *self._livelock(outcome)]
        for invariant in INVARIANTS:
            violations += [f"{invariant.__name__}: {complaint}" for complaint in invariant(outcome)]
        if list(outcome.decisions) != list(repeated):
            violations.append(f"nondeterminism: {_difference(outcome.decisions, repeated)}")
        if violations:
            raise InvariantError("; ".join(violations))
        return outcome.decisions

    def _livelock(self, outcome: Outcome) -> Iterator[str]:
        """Each gang may cause one preemption at a moment; more calls than that mean decisions that undo each other."""
        self._moment, self._calls_at_moment = outcome.now, self._calls_at_moment + 1 if outcome.now == self._moment else 1
        if self._calls_at_moment > len(outcome.before) + EXTRA_CALLS:
            yield f"livelock: called {self._calls_at_moment} times at {outcome.now:g} s, with {len(outcome.before)} gangs"

    def _incomplete_undo(self, outcome: Outcome) -> Iterator[str]:
        for change in outcome.changes:
            name = change.before.name
            if isinstance(change.decision, Pack):
                self._packed_from[name] = change.before.placement
            elif isinstance(change.decision, Unpack):
                before = self._packed_from[name]
                if change.after.placement != before and _is_available(outcome, before):
                    yield f"incomplete_undo: {name} does not return to its placement before it was packed"

    def _starvation(self, outcome: Outcome) -> Iterator[str]:
        skipped = {}
        for gang in outcome.gangs.values():
            if gang.sharing.slices and not runs(gang) and _could_run(outcome, gang):
                key = gang.name, bool(gang.placement)
                passes, bound = self._skipped.get(key, (0, 0.0))
                bound = max(bound, _turns(outcome, gang) if gang.placement else self._patience(outcome, gang))
                skipped[key] = passes + 1, bound
                if passes + 1 > bound:
                    yield f"starvation: {gang.name} was skipped {passes + 1} times; expected at most {bound:.0f}"
        self._skipped = skipped

    def _patience(self, outcome: Outcome, gang: Gang) -> float:
        """The number of passes that may skip a gang without a placement."""
        ran = gang.attained / max(1, gang.gpus) / (self.period or 1.0)
        return PATIENCE * max(1.0, ran) + SLACK * sum(other.sharing.slices for other in outcome.gangs.values())


def _turns(outcome: Outcome, gang: Gang) -> float:
    """The number of passes that may skip a suspended gang with a placement."""
    return SLACK * sum(max(1.0, other.sharing.weight / gang.sharing.weight) for other in _on_its_nodes(outcome, gang))


def _on_its_nodes(outcome: Outcome, gang: Gang) -> list[Gang]:
    """The gangs with a placement on any node of the gang, including itself."""
    nodes = set(gpus_by_node(gang.placement))
    return [other for other in outcome.gangs.values() if nodes & set(gpus_by_node(other.placement))]


def _could_run(outcome: Outcome, gang: Gang) -> bool:
    if gang.placement:
        return all(other.sharing.slices and other.priority <= gang.priority for other in _on_its_nodes(outcome, gang))
    immovable = (g for g in outcome.gangs.values() if g.placement and not (g.sharing.slices and g.priority <= gang.priority))
    return not gang.absent and gang.not_before <= outcome.now and outcome.fits(gang, outcome.without(immovable))


def _is_available(outcome: Outcome, placement: Placement) -> bool:
    """Say whether the GPUs are healthy and held by time-sharing gangs at most."""
    exclusive = (gang for gang in outcome.gangs.values() if gang.placement and not gang.sharing.slices)
    available = outcome.without(exclusive)
    return all(not gpus & ~available[node] for node, gpus in gpus_by_node(placement).items())


def read_only(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with read-only mappings; gangs and nodes are immutable anyway."""
    nodes, queues, profiles = snapshot.nodes, snapshot.queues, snapshot.profiles
    return replace(
        snapshot, nodes=MappingProxyType(nodes), queues=MappingProxyType(queues), profiles=MappingProxyType(profiles)
    )


def reversed_order(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with its nodes, gangs and profiles in reverse order."""
    return replace(
        snapshot,
        nodes=dict(reversed(list(snapshot.nodes.items()))),
        gangs=snapshot.gangs[::-1],
        profiles=dict(reversed(list(snapshot.profiles.items()))),
    )


def _difference(decisions: Sequence[Decision], repeated: Sequence[Decision]) -> str:
    """The first pair of decisions that differ."""
    for first, second in zip_longest(decisions, repeated):
        if first != second:
            return f"first {_text(first)}, then {_text(second)}"
    return "nothing"


def _text(decision: Decision | None) -> str:
    if decision is None:
        return "nothing"
    effect = f" {decision.effect}" if isinstance(decision, Assignment) else ""
    return f"{type(decision).__name__} {decision.gang.name}: {decision.message}{effect}"
