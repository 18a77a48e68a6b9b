"""Residents: the pods that are on nodes, by what rules between pods ask of them.

They are the tasks of placed gangs and the bystanders: pods that are no gang's. A pod that is both counts as its gang's task,
so it goes where a pass sends the gang. Kept up to date by single changes; `trial` takes back what was put within it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from muster.scheduling.gang import Assigned, Gang, Placement
from muster.scheduling.relations import UNRELATED, Kind, Relations, Rule
from muster.scheduling.topology.node import Node, Unusable


class Bystander(NamedTuple):
    """A bound pod as rules between pods see it."""

    name: str
    """NAMESPACE/NAME."""
    relations: Relations
    leaving: bool = False
    """A pod on its way out still counts for (anti-)affinity, and not for spread constraints, as kube-scheduler has it."""


class _Seen(NamedTuple):
    """What rules see of a pod."""

    relations: Relations
    leaving: bool


K = TypeVar("K")
_Spots = Counter[tuple[str, str]]
"""Node and name of pods."""
Bystanders = Mapping[str, Sequence[Bystander]]
"""By node."""


class Residents:
    """The pods on nodes, by namespace and by what rules see of them."""

    def __init__(self) -> None:
        self._unusable: Mapping[str, Unusable] = {}
        self.closed: Mapping[str, Node] = {}
        """Nodes that take no pods now: what is on them counts."""
        self.known = False
        """Whether these are the pods that there are; else it is asked what a gang would find whoever else ran."""
        self._pods: dict[str, dict[_Seen, _Spots]] = {}
        self._ruling: dict[str, dict[tuple[Rule, bool], _Spots]] = {}
        """By namespace that an anti-affinity is about ("" where a selector says so), where its pods are; and if they leave."""
        self._bystanders: Bystanders = {}
        self._by_name: dict[str, tuple[str, Bystander]] = {}
        self._owned: Counter[str] = Counter()
        """The tasks of placed gangs."""
        self._leaving_counts = True
        self._undo: list[tuple[str, str, _Seen, int]] | None = None

    # From snapshot to snapshot

    def follow(
        self, bystanders: Bystanders, unusable: Mapping[str, Unusable], gone: Iterable[Gang], came: Iterable[Gang]
    ) -> None:
        """Take in what changed since the last snapshot; what is the same object did not change."""
        self.known = True
        if unusable is not self._unusable:
            self._unusable, self.closed = unusable, {name: one.node for name, one in unusable.items()}
        for gang in gone:
            self._own(gang.placement, -1)
        before = self._bystanders
        if bystanders is not before:
            for node in [*before, *(name for name in bystanders if name not in before)]:
                if before.get(node) is not bystanders.get(node):
                    self._replace(node, before.get(node, ()), bystanders.get(node, ()))
            self._bystanders = bystanders
        for gang in came:
            self._own(gang.placement, 1)

    def _own(self, placement: Placement, change: int) -> None:
        """Take in the tasks of a placed gang, or let them go; a bystander of the same name makes way, or comes back."""
        for assigned in placement:
            if assigned.task.relations is not UNRELATED:
                name = _name(assigned)
                if change > 0 and not self._owned[name]:
                    self._stand_by(name, -1)
                self._owned[name] += change
                self._count(assigned.node, name, _Seen(assigned.task.relations, leaving=False), change)
                if not self._owned[name]:
                    del self._owned[name]
                    self._stand_by(name, 1)

    def _replace(self, node: str, before: Iterable[Bystander], after: Iterable[Bystander]) -> None:
        for bystander in before:
            if self._by_name.get(bystander.name) == (node, bystander):
                if bystander.name not in self._owned:
                    self._stand_by(bystander.name, -1)
                del self._by_name[bystander.name]
        for bystander in after:
            if bystander.name in self._by_name and bystander.name not in self._owned:
                self._stand_by(bystander.name, -1)
            self._by_name[bystander.name] = node, bystander
            if bystander.name not in self._owned:
                self._stand_by(bystander.name, 1)

    def _stand_by(self, name: str, change: int) -> None:
        if name in self._by_name:
            node, bystander = self._by_name[name]
            self._count(node, name, _Seen(bystander.relations, bystander.leaving), change)

    # Within a pass

    def put(self, placement: Placement, change: int) -> None:
        """Take in (1) or drop (-1) what a placement has."""
        for assigned in placement:
            if assigned.task.relations is not UNRELATED:
                self._count(assigned.node, _name(assigned), _Seen(assigned.task.relations, leaving=False), change)

    def without_leaving(self) -> None:
        """Count no pod that is on its way out; within a trial."""
        self._leaving_counts = False

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo every change within the block at its end."""
        outer, leaving_counts, self._undo = self._undo, self._leaving_counts, []
        try:
            yield
        finally:
            changes, self._undo = self._undo, None
            for node, name, seen, change in reversed(changes):
                self._count(node, name, seen, -change)
            self._undo, self._leaving_counts = outer, leaving_counts

    def _count(self, node: str, name: str, seen: _Seen, change: int) -> None:
        if self._undo is not None:
            self._undo.append((node, name, seen, change))
        relations = seen.relations
        _change(self._pods, relations.namespace, seen._replace(relations=relations._replace(rules=())), (node, name), change)
        for rule in relations.rules:
            if rule.kind is Kind.APART:
                for namespace in rule.namespaces if rule.namespace_selector is None else ("",):
                    _change(self._ruling, namespace, (rule, seen.leaving), (node, name), change)

    # What rules ask

    @property
    def rules(self) -> bool:
        """Whether any pod has an anti-affinity."""
        return bool(self._ruling)

    def selected(self, rules: Sequence[Rule], own: Collection[str]) -> Counter[str]:
        """Return how many pods, but for `own`, all of these rules select on each node; rules of one kind."""
        spread = rules[0].kind is Kind.SPREAD
        anywhere = rules[0].namespace_selector is not None
        found: Counter[str] = Counter()
        for namespace in self._pods if anywhere else rules[0].namespaces:
            for seen, spots in self._pods.get(namespace, {}).items():
                counts = not seen.leaving or (self._leaving_counts and not spread)
                if counts and all(rule.selects(seen.relations) for rule in rules):
                    found.update(node for (node, name), number in spots.items() if number > 0 and name not in own)
        return found

    def keep_away(self, pod: Relations, own: Collection[str]) -> dict[Rule, Counter[str]]:
        """Return the anti-affinities of pods, but for `own`, that select this pod, and on which nodes such pods are."""
        found: dict[Rule, Counter[str]] = {}
        for namespace in {pod.namespace, ""} if self._ruling else ():
            for (rule, leaving), spots in self._ruling.get(namespace, {}).items():
                if (self._leaving_counts or not leaving) and rule.selects(pod):
                    nodes = Counter(node for (node, name), number in spots.items() if number > 0 and name not in own)
                    if nodes:
                        found[rule] = found.get(rule, Counter()) + nodes
        return found


def _name(assigned: Assigned) -> str:
    return f"{assigned.task.relations.namespace}/{assigned.task.name}"


def _change(index: dict[str, dict[K, _Spots]], namespace: str, key: K, spot: tuple[str, str], change: int) -> None:
    spots = index.setdefault(namespace, {}).setdefault(key, Counter())
    spots[spot] += change
    if not spots[spot]:
        del spots[spot]
        if not spots:
            del index[namespace][key]
            if not index[namespace]:
                del index[namespace]
