"""What a constraint objects to in a node, in words that say it of several nodes: "have the taint team=x:NoSchedule"."""

from __future__ import annotations

from muster.scheduling.topology.eligibility import Constraint, Requirement, Taint
from muster.scheduling.topology.node import Node

_MOST_VALUES = 3
"""Values of a requirement that are repeated."""
_NAME = "metadata.name"


def objection(where: Constraint, node: Node, closed: str = "") -> str:
    """Return what the constraint, or the state of a node that is `closed`, objects to first; empty if it admits the node.

    kube-scheduler's order but for the first: what the user wrote comes before what the administrator did.
    """
    return _label(where, node) or _affinity(where, node) or closed or _taint(where, node) or _volume(where, node)


def _label(where: Constraint, node: Node) -> str:
    missing = next((f"{key}={value}" for key, value in where.labels if node.labels.get(key) != value), "")
    return missing and f"do not have the label {missing}"


def _affinity(where: Constraint, node: Node) -> str:
    labels = {**node.labels, _NAME: node.name}
    unmet = [next((one for one in term if not one.matches(labels)), None) for term in where.terms if term]
    if not where.terms or None in unmet:
        return ""
    return _unmet(unmet[0], labels) if len(unmet) == 1 and unmet[0] else "do not match the required node affinity"


def _unmet(requirement: Requirement, labels: dict[str, str]) -> str:
    key, operator, values = requirement.key, requirement.operator, requirement.values
    what = "name" if key == _NAME else f"label {key}"
    joint = " " if key == _NAME else "="
    match operator:
        case "NotIn":
            return f"have the {what}{joint}{labels[key]}"
        case "Exists":
            return f"do not have the {what}"
        case "DoesNotExist":
            return f"have the {what}"
        case "In" if len(values) == 1:
            return f"do not have the {what}{joint}{values[0]}"
        case "In":
            return f"do not have the {what} in ({', '.join(values[:_MOST_VALUES])}{', ...' if values[_MOST_VALUES:] else ''})"
    return f"do not have the {what} {'>' if operator == 'Gt' else '<'} {', '.join(values[:_MOST_VALUES])}"


def _taint(where: Constraint, node: Node) -> str:
    taint = where.untolerated(node.taints)
    return f"have the taint {_written(taint)}" if taint else ""


def _volume(where: Constraint, node: Node) -> str:
    places = where.out_of_reach({**node.labels, _NAME: node.name})
    if places is None:
        return ""
    if len(places) != 1 or len(places[0]) != 1 or places[0][0].operator != "In":
        return "cannot reach its volume"
    key, values = places[0][0].key, places[0][0].values
    return f"cannot reach its volume at {'node ' if key == _NAME else f'{key}='}{'|'.join(values[:_MOST_VALUES])}"


def _written(taint: Taint) -> str:
    """As kubectl writes it."""
    return f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"
