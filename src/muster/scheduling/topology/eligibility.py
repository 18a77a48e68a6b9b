"""Which nodes a task may use, and which it prefers: node selector, node affinity, taints and tolerations.

The rules are those of kube-scheduler (NodeAffinity, TaintToleration), so that no gang is pinned to a node that would refuse
it. Constraints are hashable: a pass checks each once, not once a task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Toleration:
    """An empty key tolerates every taint, an empty effect every effect, Exists every value."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        if self.effect not in ("", taint.effect) or self.key not in ("", taint.key):
            return False
        return self.operator == "Exists" or (self.operator in ("", "Equal") and bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One matchExpression of a node selector term."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt":
                return _compare(value, self.values) > 0
            case "Lt":
                return _compare(value, self.values) < 0
        return False


AVERSION: Final = 100
"""How much a taint PreferNoSchedule counts against a node: as much as the largest weight of a preferred node affinity."""


class Constraint(NamedTuple):
    """What a task requires of a node: every label of `labels`, one of `terms` (each a conjunction), and its tolerations.

    Of the nodes that it may use it prefers those of the terms in `preferred`, by the sum of their weights.

    A requirement on the key metadata.name is about the node's name (matchFields).
    """

    labels: tuple[tuple[str, str], ...] = ()
    terms: tuple[tuple[Requirement, ...], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    preferred: tuple[tuple[int, tuple[Requirement, ...]], ...] = ()

    def admits(self, name: str, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> bool:
        """Say whether a node with this name, these labels and these taints is allowed."""
        if any(labels.get(key) != value for key, value in self.labels):
            return False
        if self.terms:
            named = {**labels, "metadata.name": name}
            if not any(term and all(requirement.matches(named) for requirement in term) for term in self.terms):
                return False
        return self.untolerated(taints) is None

    def untolerated(self, taints: tuple[Taint, ...]) -> Taint | None:
        """Return the first taint that keeps the task away; None if none does."""
        keeping = (taint for taint in taints if taint.effect != "PreferNoSchedule" and not self._tolerates(taint))
        return next(keeping, None)

    def preference(self, name: str, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> int:
        """Return how much a node is preferred: weights of preferred terms less those of taints that say PreferNoSchedule."""
        named = {**labels, "metadata.name": name}
        likes = sum(weight for weight, term in self.preferred if term and all(each.matches(named) for each in term))
        dislikes = sum(taint.effect == "PreferNoSchedule" and not self._tolerates(taint) for taint in taints)
        return likes - AVERSION * dislikes

    def _tolerates(self, taint: Taint) -> bool:
        return any(toleration.tolerates(taint) for toleration in self.tolerations)


ANYWHERE = Constraint()


_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
"""What Go reads as an integer of 64 bits; Python would take other digits, spaces and 1_000 too."""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


def _compare(value: str | None, bounds: tuple[str, ...]) -> int:
    left, right = _number(value), _number(bounds[0]) if len(bounds) == 1 else None
    return 0 if left is None or right is None else (left > right) - (left < right)
