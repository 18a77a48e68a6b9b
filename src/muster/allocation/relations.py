"""The rules between pods as the core sees them, from a pod of the API server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from muster.kube.objects import LabelSelector, Pod, PodAffinity, PodAffinityTerm, PodSpec, SpreadConstraint
from muster.scheduling.relations import NAMESPACE_NAME, Kind, Relations, Rule, Selector
from muster.scheduling.topology.eligibility import Requirement, shared


def relations_of(pod: Pod) -> Relations:
    """Return what a pod is to the rules of others, and its own rules."""
    return relations(pod.metadata.namespace or "", pod.metadata.labels or {}, pod.spec)


def relations(namespace: str, labels: Mapping[str, str], spec: PodSpec) -> Relations:
    """Return the relations of a pod with these labels."""
    return Relations(namespace, shared(sorted(labels.items())), shared(_rules(namespace, labels, spec)))


def untold(relations: Relations) -> Relations:
    """Return the relations of a pod that muster writes itself, without the `minDomains` of its constraints."""
    rules = tuple(rule._replace(told=False) if rule.min_domains > 1 else rule for rule in relations.rules)
    return relations if rules == relations.rules else relations._replace(rules=rules)


def _rules(namespace: str, labels: Mapping[str, str], spec: PodSpec) -> Iterator[Rule]:
    if spec.affinity:
        yield from _terms(Kind.APART, spec.affinity.pod_anti_affinity, namespace, labels)
        yield from _terms(Kind.TOGETHER, spec.affinity.pod_affinity, namespace, labels)
    for constraint in spec.topology_spread_constraints or ():
        if constraint.when_unsatisfiable == "DoNotSchedule":
            yield _spread(constraint, namespace, labels)


def _terms(kind: Kind, affinity: PodAffinity | None, namespace: str, labels: Mapping[str, str]) -> Iterator[Rule]:
    for term in (affinity.required if affinity else None) or ():
        selector = _selector(term.label_selector)
        if selector is not None:
            selector += (*_own(term.match_label_keys, "In", labels), *_own(term.mismatch_label_keys, "NotIn", labels))
        named = term.namespaces or (() if term.namespace_selector else (namespace,))
        yield Rule(kind, term.topology_key, _unique(selector), tuple(sorted(named)), _namespaces(kind, term))


def _namespaces(kind: Kind, term: PodAffinityTerm) -> Selector:
    """The namespaces that a term selects. By labels that are unknown here, an anti-affinity selects all, an affinity none."""
    selector = _selector(term.namespace_selector)
    if selector and any(requirement.key != NAMESPACE_NAME for requirement in selector):
        return () if kind is Kind.APART else None
    return selector


def _spread(constraint: SpreadConstraint, namespace: str, labels: Mapping[str, str]) -> Rule:
    selector = _selector(constraint.label_selector)
    if selector is not None:
        selector += tuple(_own(constraint.match_label_keys, "In", labels))
    return Rule(
        Kind.SPREAD,
        constraint.topology_key,
        _unique(selector),
        (namespace,),
        max_skew=constraint.max_skew,
        min_domains=constraint.min_domains or 1,
        honours_affinity=constraint.node_affinity_policy != "Ignore",
        honours_taints=constraint.node_taints_policy == "Honor",
    )


def _selector(selector: LabelSelector | None) -> Selector:
    if selector is None:
        return None
    labels = (Requirement(key, "In", (value,)) for key, value in sorted((selector.match_labels or {}).items()))
    expressions = (Requirement(e.key, e.operator, tuple(e.values or ())) for e in selector.match_expressions or ())
    return (*labels, *expressions)


def _own(keys: Iterable[str] | None, operator: str, labels: Mapping[str, str]) -> Iterator[Requirement]:
    """What the pod's own labels add to a selector (KEP-3243, KEP-3633); the API server may have added it already."""
    return (Requirement(key, operator, (labels[key],)) for key in keys or () if key in labels)


def _unique(selector: Selector) -> Selector:
    return None if selector is None else tuple(dict.fromkeys(selector))
