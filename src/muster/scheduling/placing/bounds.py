"""Bounds: how many tasks of each batch a node may take more, by the rules between pods.

There are none for a gang without rules that no resident keeps away: its search does not ask. For the others each rule becomes a
check with counts by domain, which follow the search task by task, as kube-scheduler would see pod after pod.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from muster.scheduling.gang import Task
from muster.scheduling.placing.batches import Batches, Counts
from muster.scheduling.placing.checks import Away, Check, Even, Near, Tally
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.relations import Kind, Relations, Rule
from muster.scheduling.topology.eligibility import Constraint, Toleration

_EVERY = (Toleration(operator="Exists"),)
Ruled = dict[Rule, Counter[str]]
"""Anti-affinities of residents, and on which nodes these are."""


class InForce(NamedTuple):
    """The rules that some tasks of a gang have to meet."""

    own: tuple[Rule, ...]
    others: Ruled
    names: frozenset[str]
    """The tasks' own pods, NAMESPACE/NAME: where these are now does not count."""

    def kind(self, task: Task) -> object:
        """Return what of a task decides which rules it has, and which are about it."""
        relations = task.relations
        return (relations.rules, tuple([rule.selects(relations) for rule in chain(self.own, self.others)]))


def in_force(tasks: Iterable[Task], capacity: FreeCapacity) -> InForce | None:
    """Return the rules that these tasks have to meet; None, as a rule, where there are none."""
    distinct = {id(task.relations): task.relations for task in tasks}.values()
    own = tuple(dict.fromkeys(rule for relations in distinct for rule in relations.rules))
    residents = capacity.residents
    if not own and not residents.rules:
        return None
    names = frozenset(f"{task.relations.namespace}/{task.name}" for task in tasks)
    others: Ruled = {}
    for relations in distinct:
        others |= residents.keep_away(relations, names)
    return InForce(own, others, names) if own or others else None


class Bounds:
    """The checks of one search."""

    def __init__(self, rules: InForce, batches: Batches, capacity: FreeCapacity) -> None:
        self._capacity, self._rules, self._counts = capacity, rules, batches.counts
        self._batches = [(batch.tasks[0].relations, batch.ask.where) for batch in batches.all]
        self._numbers = range(len(self._batches))
        self._checks: list[Check] = [*self._kept_away(), *self._apart(), *self._together(), *self._spread()]
        self.together = self._shared_keys()

    def begin(self) -> Filling:
        """Return the bounds before the first task is placed."""
        return Filling(self._checks, self._counts)

    def hold_all(self, name: str) -> bool:
        """Say whether a node may take all tasks."""
        filling = self.begin()
        waiting = list(self._counts)
        while any(waiting):
            caps = filling.caps(name)
            number = next((number for number in self._numbers if waiting[number] and caps[number]), None)
            if number is None:
                return False
            taken = min(waiting[number], caps[number])
            waiting[number] -= taken
            filling.add(name, number, taken)
        return True

    def divided(self, members: Sequence[str], free: Mapping[str, int], *, emptiest: bool) -> Iterable[Sequence[str]]:
        """Return the nodes by the domains in which affinity holds the gang together, the fullest first; or as they are."""
        if not self.together:
            return (members,)
        values = [self._domain(key) for key in self.together]
        parts: dict[tuple[str, ...], list[str]] = {}
        for name in members:
            if all(name in value for value in values):
                parts.setdefault(tuple([value[name] for value in values]), []).append(name)
        order = sorted((sum(free[name] for name in names), domain) for domain, names in parts.items())
        return [parts[domain] for _, domain in (reversed(order) if emptiest else order)]

    # Checks

    def _domain(self, key: str) -> Mapping[str, str]:
        """The domain of each node, of those that take no pods now too."""
        capacity = self._capacity
        closed = capacity.residents.closed
        known = capacity.fleet.labelled[key]
        return {**known, **{name: node.labels[key] for name, node in closed.items() if key in node.labels}} if closed else known

    def _which(self, holds: Callable[[Relations], bool]) -> frozenset[int]:
        """The batches whose pods are such."""
        return frozenset(number for number in self._numbers if holds(self._batches[number][0]))

    def _residents(self, rules: Sequence[Rule]) -> Counter[str]:
        return self._capacity.residents.selected(rules, self._rules.names)

    def _kept_away(self) -> Iterable[Check]:
        for rule, nodes in self._rules.others.items():
            tally = Tally(self._domain(rule.key), nodes)
            yield Away(rule, self._which(rule.selects), frozenset(), tally, others=True)

    def _apart(self) -> Iterable[Check]:
        for rule in self._rules.own:
            if rule.kind is Kind.APART:
                domain, selected = self._domain(rule.key), self._which(rule.selects)
                holders = self._which(lambda relations, rule=rule: rule in relations.rules)  # type: ignore[misc]
                yield Away(rule, holders, selected, Tally(domain, self._residents([rule])))
                yield Away(rule, selected, holders, Tally(domain, {}))

    def _together(self) -> Iterable[Check]:
        for rules, batches in self._alike(Kind.TOGETHER):
            selected = self._which(lambda relations, rules=rules: all(rule.selects(relations) for rule in rules))  # type: ignore[misc]
            nodes = self._residents(rules)
            tallies = [Tally(self._domain(rule.key), nodes) for rule in rules]
            yield Near(rules, batches, selected, tallies, strict=self._capacity.residents.known)

    def _alike(self, kind: Kind) -> Iterable[tuple[tuple[Rule, ...], frozenset[int]]]:
        """The batches that have rules of a kind, by these rules."""
        for rules in dict.fromkeys(relations.of(kind) for relations, _ in self._batches):
            if rules:
                yield rules, self._which(lambda relations, rules=rules: relations.of(kind) == rules)  # type: ignore[misc]

    def _spread(self) -> Iterable[Check]:
        for rules, batches in self._alike(Kind.SPREAD):
            keyed = frozenset.intersection(*(frozenset(self._domain(rule.key)) for rule in rules))
            for where in dict.fromkeys(self._batches[number][1] for number in batches):
                holders = frozenset(number for number in batches if self._batches[number][1] == where)
                for rule in rules:
                    yield from self._even(rule, holders, keyed & self._eligible(rule, where))

    def _even(self, rule: Rule, holders: frozenset[int], eligible: Collection[str]) -> Iterable[Check]:
        """The checks of a constraint. Of `min_domains` domains kube-scheduler sees one, if it is told: the pod is pinned."""
        domain = {name: value for name, value in self._domain(rule.key).items() if name in eligible}
        if rule.selector == ():  # kube-scheduler counts no pod for it, and wants the label on the node all the same
            yield Even(rule, holders, frozenset(), Tally(domain, {}), from_zero=False)
            return
        nodes, selected = self._residents([rule]), self._which(rule.selects)
        few = len(set(domain.values())) < rule.min_domains
        yield Even(rule, holders, selected, Tally(domain, nodes), from_zero=few)
        if rule.told and rule.min_domains > 1 and rule.honours_affinity:
            yield Even(rule, holders, selected, Tally({name: name for name in domain}, nodes), from_zero=True)

    def _eligible(self, rule: Rule, where: Constraint) -> frozenset[str]:
        """The nodes whose domains a spread constraint compares."""
        labels, terms = (where.labels, where.terms) if rule.honours_affinity else ((), ())
        where = Constraint(labels, terms, where.tolerations if rule.honours_taints else _EVERY)
        closed = self._capacity.residents.closed.values()
        return self._capacity.fleet.admitted[where].union(
            node.name for node in closed if where.admits(node.name, node.labels, node.taints)
        )

    def _shared_keys(self) -> tuple[str, ...]:
        """The keys by which every pod of the gang wants to be with pods of the gang."""
        keys: set[str] = set()
        for check in self._checks:
            if isinstance(check, Near) and check.holders.issuperset(self._numbers) and check.selected:
                keys.update(rule.key for rule in check.rules)
        return tuple(sorted(keys))

    # Words

    def describe(self, names: Sequence[str]) -> str:
        """Say which rules there are, and how many of these nodes each closes before any task is placed."""
        said: dict[str, set[str]] = {}
        for check in self._checks:
            shut = said.setdefault(check.words, set())
            shut.update(name for name in names if not any(check.most(name, number) for number in check.holders))
        return "; ".join(
            f"{words} (closes {len(shut)} of {len(names)} nodes)" if shut else words for words, shut in said.items()
        )


class Filling:
    """The bounds during one fill."""

    def __init__(self, checks: Sequence[Check], counts: Counts) -> None:
        self._checks, self._counts = [check.fresh() for check in checks], counts
        self._by_batch = [[check for check in self._checks if number in check.holders] for number in range(len(counts))]

    def caps(self, name: str) -> Counts:
        """Return how many tasks of each batch a node may take now, at once."""
        return tuple(
            [
                min([most, *(check.most(name, number) for check in self._by_batch[number])])
                for number, most in enumerate(self._counts)
            ]
        )

    def add(self, name: str, number: int, tasks: int) -> None:
        """Place tasks of a batch on a node."""
        for check in self._checks:
            if number in check.selected:
                check.add(name, tasks)
