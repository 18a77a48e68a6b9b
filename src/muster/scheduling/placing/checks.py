"""Checks of single rules between pods: how many tasks of a batch a node may take more, by what is in its domain.

As kube-scheduler filters (plugins InterPodAffinity and PodTopologySpread, Kubernetes 1.35), for each pod in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from muster.scheduling.relations import Rule

ANY = 1 << 30
"""No bound."""


class Tally:
    """Pods by domain: those that were there, and those that a fill has added."""

    def __init__(self, domain: Mapping[str, str], nodes: Mapping[str, int]) -> None:
        self.domain = domain
        """By node that is in any."""
        self.before: Counter[str] = Counter()
        for name, number in nodes.items():
            if name in domain:
                self.before[domain[name]] += number
        self.added: dict[str, int] = {}

    def fresh(self) -> Self:
        """Return the tally before anything was added."""
        twin = object.__new__(type(self))
        twin.domain, twin.before, twin.added = self.domain, self.before, {}
        return twin

    def count(self, domain: str) -> int:
        return self.before.get(domain, 0) + self.added.get(domain, 0)

    def add(self, name: str, tasks: int) -> None:
        domain = self.domain.get(name)
        if domain is not None:
            self.added[domain] = self.added.get(domain, 0) + tasks


class Check:
    """A rule that the tasks of the batches `holders` have to meet; those of `selected` are what it counts."""

    def __init__(self, holders: frozenset[int], selected: frozenset[int], words: str) -> None:
        self.holders, self.selected, self.words = holders, selected, words

    def most(self, name: str, number: int) -> int:
        """Return how many tasks of a batch may go to a node at once."""
        raise NotImplementedError

    def add(self, name: str, tasks: int) -> None:
        """Count tasks of a selected batch that go to a node."""
        raise NotImplementedError

    def fresh(self) -> Self:
        """Return the check before any task was placed."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin


class Away(Check):
    """No selected pod in the domain of a holder."""

    def __init__(
        self, rule: Rule, holders: frozenset[int], selected: frozenset[int], tally: Tally, *, others: bool = False
    ) -> None:
        super().__init__(holders, selected, f"{rule} of other pods" if others else str(rule))
        self._tally = tally

    def most(self, name: str, number: int) -> int:
        domain = self._tally.domain.get(name)
        if domain is None:
            return ANY
        if self._tally.count(domain):
            return 0
        return 1 if number in self.selected else ANY

    def add(self, name: str, tasks: int) -> None:
        self._tally.add(name, tasks)

    def fresh(self) -> Self:
        twin = super().fresh()
        twin._tally = self._tally.fresh()
        return twin


class Near(Check):
    """A selected pod in the domain of a holder, by each of its rules; the first of pods that select themselves goes anywhere.

    Where the gang has selected pods without the rule, these come first: kube-scheduler may bind them before any other, and then
    no pod is the first. Where it is not known who is there (not `strict`), the first goes anywhere in any case.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        holders: frozenset[int],
        selected: frozenset[int],
        tallies: Sequence[Tally],
        *,
        strict: bool,
    ) -> None:
        super().__init__(holders, selected, " and ".join(map(str, rules)))
        self.rules, self._tallies, self._strict = rules, tallies, strict
        self._none = not any(tally.before for tally in tallies)

    def most(self, name: str, number: int) -> int:
        domains = [tally.domain.get(name) for tally in self._tallies]
        if None in domains:
            return 0
        if self._none:
            first = number in self.selected and self.selected <= self.holders
            return ANY if first or not self._strict else 0
        met = all(domain is not None and tally.count(domain) for tally, domain in zip(self._tallies, domains, strict=True))
        return ANY if met else 0

    def add(self, name: str, tasks: int) -> None:
        for tally in self._tallies:
            tally.add(name, tasks)
            self._none = self._none and not tally.added

    def fresh(self) -> Self:
        twin = super().fresh()
        twin._tallies = [tally.fresh() for tally in self._tallies]
        return twin


class Even(Check):
    """At most `max_skew` more selected pods in the domain of a holder than in the one that has fewest, or than 0."""

    def __init__(self, rule: Rule, holders: frozenset[int], selected: frozenset[int], tally: Tally, *, from_zero: bool) -> None:
        super().__init__(holders, selected, str(rule))
        self._tally, self._skew, self._from_zero = tally, rule.max_skew, from_zero
        self._levels = Counter(tally.count(domain) for domain in set(tally.domain.values()))
        """How many domains have each count."""
        self._least = 0 if from_zero else min(self._levels, default=0)

    def most(self, name: str, number: int) -> int:
        domain = self._tally.domain.get(name)
        if domain is None:
            return 0
        room = self._least + self._skew - self._tally.count(domain)
        return max(room, 0) if number in self.selected else ANY * (room >= 0)

    def add(self, name: str, tasks: int) -> None:
        domain = self._tally.domain.get(name)
        if domain is None:
            return
        count = self._tally.count(domain)
        self._levels[count] -= 1
        self._levels[count + tasks] += 1
        self._tally.add(name, tasks)
        while not self._from_zero and not self._levels[self._least]:
            self._least += 1

    def fresh(self) -> Self:
        twin = super().fresh()
        twin._tally, twin._levels = self._tally.fresh(), Counter(self._levels)
        return twin
