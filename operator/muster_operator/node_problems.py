"""Tells people, by an Event about the node, what muster cannot use of a node."""

from __future__ import annotations

from muster.kube.objects import Node
from muster_operator.controller import Context
from muster_operator.reporting import about_node


class NodeProblems:
    """What was told about each node; it follows the view, which knows what is the matter."""

    def __init__(self, context: Context) -> None:
        self._view, self._reporter = context.stores.view, context.reporter
        self._told: dict[str, str] = {}
        self._view.nodes.subscribe(self._changed)

    def _changed(self, old: Node | None, new: Node | None) -> None:
        node = new or old
        if node is None:
            return
        name = node.metadata.name
        problem = self._view.problems.get(name, "")
        if problem and problem != self._told.get(name):
            self._reporter.event(about_node(name), "Warning", "NodeNotUsable", problem)
        self._told.pop(name, None)
        if problem:
            self._told[name] = problem
