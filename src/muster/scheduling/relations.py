"""What pods ask of each other's places: required pod affinity and anti-affinity, topology spread constraints.

The rules are those of kube-scheduler (InterPodAffinity, PodTopologySpread). A rule is about domains: the nodes that have one
value of a label, its key. Rules and labels are hashable, and the pods of a role share theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from muster.scheduling.topology.eligibility import Requirement

Selector = tuple[Requirement, ...] | None
"""A conjunction about labels: the empty one selects everything, None nothing."""
NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that every namespace has: its name. A namespace's other labels are unknown here."""


class Kind(IntEnum):
    """What a pod wants of the pods that its rule selects."""

    APART = 0
    """None of them in its domain (anti-affinity)."""
    TOGETHER = 1
    """One of them in its domain (affinity)."""
    SPREAD = 2
    """At most `max_skew` more of them in its domain than in the one that has fewest."""


class Rule(NamedTuple):
    """One rule of a pod; those from `max_skew` on are a spread constraint's."""

    kind: Kind
    key: str
    selector: Selector
    namespaces: tuple[str, ...] = ()
    namespace_selector: Selector = None
    """Further namespaces, by their name alone."""
    max_skew: int = 1
    min_domains: int = 1
    """With fewer eligible domains than these, the fewest that one has count as 0."""
    told: bool = True
    """Whether the pod tells kube-scheduler of `min_domains`, which sees one domain then: that of the node it is pinned to."""
    honours_affinity: bool = True
    """Whether only nodes that the pod's selector and node affinity allow are eligible (nodeAffinityPolicy)."""
    honours_taints: bool = False
    """Whether only nodes whose taints the pod tolerates are eligible (nodeTaintsPolicy)."""

    def selects(self, pod: Relations) -> bool:
        """Say whether a pod is one of those that the rule is about."""
        return _selects(self.selector, self.namespaces, self.namespace_selector, pod.namespace, pod.labels)

    def __str__(self) -> str:
        if self.kind is Kind.SPREAD:
            return f"spread by {self.key} (max skew {self.max_skew})"
        return (
            f"{'anti-affinity' if self.kind is Kind.APART else 'affinity'} by {self.key} to pods with {_words(self.selector)}"
        )


class Relations(NamedTuple):
    """What a pod is to the rules of others, and its own rules."""

    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    rules: tuple[Rule, ...] = ()

    def of(self, kind: Kind) -> tuple[Rule, ...]:
        """Return its rules of one kind."""
        return tuple(rule for rule in self.rules if rule.kind is kind)


UNRELATED = Relations()


@lru_cache(maxsize=1 << 14)
def _selects(
    selector: Selector,
    namespaces: tuple[str, ...],
    namespace_selector: Selector,
    namespace: str,
    labels: tuple[tuple[str, str], ...],
) -> bool:
    if namespace not in namespaces and not _matches(namespace_selector, ((NAMESPACE_NAME, namespace),)):
        return False
    return _matches(selector, labels)


def _matches(selector: Selector, labels: Iterable[tuple[str, str]]) -> bool:
    if selector is None:
        return False
    found = dict(labels)
    return all(requirement.matches(found) for requirement in selector)


def _words(selector: Selector) -> str:
    if not selector:
        return "any labels" if selector == () else "no labels"
    return ", ".join(_requirement(requirement) for requirement in selector)


def _requirement(requirement: Requirement) -> str:
    key, operator, values = requirement.key, requirement.operator, requirement.values
    if operator == "In" and len(values) == 1:
        return f"{key}={values[0]}"
    return f"{key} {operator}" + (f" ({', '.join(values)})" if values else "")
