"""Rules between pods, checked pod by pod as Kubernetes' documentation has them; slow, and shares no code with the planner.

(Assigning Pods to Nodes: inter-pod affinity and anti-affinity; Pod Topology Spread Constraints.) No pod is pinned here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from muster.scheduling.gang import Placement, Task
from muster.scheduling.relations import Kind, Relations, Rule
from muster.scheduling.topology.eligibility import Constraint, Requirement, Toleration
from muster.scheduling.topology.node import Node


class Standing(NamedTuple):
    """A pod on a node."""

    relations: Relations
    node: str
    leaving: bool = False


def matches(rule: Rule, pod: Relations) -> bool:
    if pod.namespace not in rule.namespaces or rule.selector is None:
        return False
    return all(_matches(one, dict(pod.labels)) for one in rule.selector)


def _matches(one: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(one.key)
    return {
        "In": value in one.values,
        "NotIn": value not in one.values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[one.operator]


def allowed(task: Task, node: str, nodes: Mapping[str, Node], pods: Sequence[Standing]) -> bool:
    """Whether kube-scheduler would let a pod that is not pinned onto a node, as far as rules between pods go."""
    me = task.relations
    return (
        all(_is_apart(rule, node, nodes, pods) for rule in me.of(Kind.APART))
        and all(_keeps_apart(rule, me, pod, node, nodes) for pod in pods for rule in pod.relations.of(Kind.APART))
        and _is_together(me, node, nodes, pods)
        and all(_is_even(rule, task, node, nodes, pods) for rule in me.of(Kind.SPREAD))
    )


def _same(key: str, one: str, other: str, nodes: Mapping[str, Node]) -> bool:
    value = nodes[one].labels.get(key)
    return value is not None and value == nodes[other].labels.get(key)


def _is_apart(rule: Rule, node: str, nodes: Mapping[str, Node], pods: Iterable[Standing]) -> bool:
    return not any(matches(rule, pod.relations) and _same(rule.key, node, pod.node, nodes) for pod in pods)


def _keeps_apart(rule: Rule, me: Relations, pod: Standing, node: str, nodes: Mapping[str, Node]) -> bool:
    return not (matches(rule, me) and _same(rule.key, node, pod.node, nodes))


def _is_together(me: Relations, node: str, nodes: Mapping[str, Node], pods: Iterable[Standing]) -> bool:
    rules = me.of(Kind.TOGETHER)
    if any(rule.key not in nodes[node].labels for rule in rules):
        return False
    wanted = [pod for pod in pods if all(matches(rule, pod.relations) for rule in rules)]
    if all(any(_same(rule.key, node, pod.node, nodes) for pod in wanted) for rule in rules):
        return True
    anywhere = any(rule.key in nodes[pod.node].labels for rule in rules for pod in wanted)
    return not anywhere and all(matches(rule, me) for rule in rules)


def _is_even(rule: Rule, task: Task, node: str, nodes: Mapping[str, Node], pods: Iterable[Standing]) -> bool:
    if rule.key not in nodes[node].labels:
        return False
    keys = [other.key for other in task.relations.of(Kind.SPREAD)]
    where = task.where if rule.honours_affinity else Constraint(tolerations=task.where.tolerations)
    if not rule.honours_taints:
        where = where._replace(tolerations=(Toleration(operator="Exists"),))
    eligible = {
        name: one.labels[rule.key]
        for name, one in nodes.items()
        if all(key in one.labels for key in keys) and where.admits(name, one.labels, one.taints)
    }
    counts = dict.fromkeys(eligible.values(), 0)
    for pod in pods:
        if rule.selector and pod.node in eligible and not pod.leaving and matches(rule, pod.relations):
            counts[eligible[pod.node]] += 1
    least = min(counts.values()) if len(counts) >= rule.min_domains else 0
    return counts.get(nodes[node].labels[rule.key], 0) + matches(rule, task.relations) - least <= rule.max_skew


def broken(placement: Placement, nodes: Mapping[str, Node], pods: Iterable[Standing]) -> list[str]:
    """The tasks of a placement that kube-scheduler would never let onto their nodes, in whatever order it tries them."""
    there, waiting = list(pods), list(placement)
    while waiting:
        able = next((one for one in waiting if allowed(one.task, one.node, nodes, there)), None)
        if able is None:
            return [one.task.name for one in waiting]
        waiting.remove(able)
        there.append(Standing(able.task.relations, able.node))
    return []
