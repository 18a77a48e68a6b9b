"""Which nodes a task may use, and which it prefers: node selector, node affinity, volumes, taints and tolerations.

The rules are those of kube-scheduler (NodeAffinity, VolumeBinding, TaintToleration), so that no gang is pinned to a node that
would refuse it. Constraints are hashable: a pass checks each once, not once a task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")


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


class HashedOnce(tuple[T, ...]):
    """A tuple that remembers its hash: of a long one the tasks of a gang, thousands perhaps, share the same."""

    _hash: int

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            self._hash = super().__hash__()
            return self._hash


def shared(items: Iterable[T]) -> tuple[T, ...]:
    """Return what the constraints of many tasks have in common; a short one is hashed as fast as its hash is looked up."""
    plain = tuple(items)
    return HashedOnce(plain) if len(plain) > _SHORT else plain


_SHORT: Final = 4
Alternatives = tuple[tuple[Requirement, ...], ...]
"""Terms of which one must hold, each a conjunction; an empty term holds nowhere."""

AVERSION: Final = 100
"""How much a taint PreferNoSchedule counts against a node: as much as the largest weight of a preferred node affinity."""


class Constraint(NamedTuple):
    """What a task requires of a node: every label of `labels`, one of `terms`, one of each of `volumes`, and its tolerations.

    Of the nodes that it may use it prefers those of the terms in `preferred`, by the sum of their weights.

    A requirement on the key metadata.name is about the node's name (matchFields).
    """

    labels: tuple[tuple[str, str], ...] = ()
    terms: Alternatives = ()
    tolerations: tuple[Toleration, ...] = ()
    preferred: tuple[tuple[int, tuple[Requirement, ...]], ...] = ()
    volumes: tuple[Alternatives, ...] = ()
    """Where each of its volumes can be reached, of those that cannot be everywhere."""

    def admits(self, name: str, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> bool:
        """Say whether a node with this name, these labels and these taints is allowed."""
        if any(labels.get(key) != value for key, value in self.labels):
            return False
        if self.terms or self.volumes:
            named = {**labels, "metadata.name": name}
            if (self.terms and not one_holds(self.terms, named)) or self.out_of_reach(named) is not None:
                return False
        return self.untolerated(taints) is None

    def out_of_reach(self, named: Mapping[str, str]) -> Alternatives | None:
        """Return where the first volume can be reached that cannot be on a node with these labels; None if all can."""
        return next((places for places in self.volumes if not one_holds(places, named)), None)

    def untolerated(self, taints: tuple[Taint, ...]) -> Taint | None:
        """Return the first taint that keeps the task away; None if none does."""
        keeping = (taint for taint in taints if taint.effect != "PreferNoSchedule" and not self._tolerates(taint))
        return next(keeping, None)

    def preference(self, name: str, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> int:
        """Return how much a node is preferred: weights of preferred terms less those of taints that say PreferNoSchedule."""
        named = {**labels, "metadata.name": name}
        likes = sum(weight for weight, term in self.preferred if _holds(term, named))
        dislikes = sum(taint.effect == "PreferNoSchedule" and not self._tolerates(taint) for taint in taints)
        return likes - AVERSION * dislikes

    def _tolerates(self, taint: Taint) -> bool:
        return any(toleration.tolerates(taint) for toleration in self.tolerations)


ANYWHERE = Constraint()


def one_holds(terms: Alternatives, named: Mapping[str, str]) -> bool:
    """Say whether one of these terms holds for a node with these labels, its name among them."""
    return any(_holds(term, named) for term in terms)


def _holds(term: tuple[Requirement, ...], named: Mapping[str, str]) -> bool:
    return bool(term) and all(requirement.matches(named) for requirement in term)


_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
"""What Go reads as an integer of 64 bits; Python would take other digits, spaces and 1_000 too."""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


def _compare(value: str | None, bounds: tuple[str, ...]) -> int:
    left, right = _number(value), _number(bounds[0]) if len(bounds) == 1 else None
    return 0 if left is None or right is None else (left > right) - (left < right)
