"""The bound pods by node, as rules between pods see them; follows a view by itself.

The tasks of gangs are among them: the planner counts each once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from muster.allocation.relations import relations_of
from muster.allocation.view import ClusterView
from muster.kube.objects import Pod
from muster.scheduling.residents import Bystander


class Bystanders:
    """Bound pods by node; `on_leaving` is told of each that left or changed."""

    def __init__(self, view: ClusterView, on_leaving: Callable[[Bystander], None] = lambda _: None) -> None:
        self._on_leaving = on_leaving
        self._on_node: dict[str, dict[str, Bystander]] = {}
        self._told: dict[str, tuple[Bystander, ...]] = {}
        self._stale: set[str] = set()
        for pod in view.pods.values():
            self._changed(None, pod)
        view.pods.subscribe(self._changed)

    def by_node(self) -> Mapping[str, tuple[Bystander, ...]]:
        """Return the bound pods of each node; the same object where nothing changed."""
        if self._stale:
            stale = {name: tuple(pods.values()) for name in self._stale if (pods := self._on_node.get(name))}
            self._told = {name: pods for name, pods in self._told.items() if name not in self._stale} | stale
            self._stale = set()
        return self._told

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is None:
            return
        key = pod.metadata.key
        before = self._drop(old, key)
        if new is not None and new.spec.node_name and not new.finished:
            after = Bystander(key, relations_of(new), new.leaving)
            after = before if before == after else after
            self._on_node.setdefault(new.spec.node_name, {})[key] = after
            if after is before:
                return
            self._stale.add(new.spec.node_name)
        if before is not None:
            self._stale.update(each.spec.node_name for each in (old, new) if each is not None and each.spec.node_name)
            self._on_leaving(before)

    def _drop(self, old: Pod | None, key: str) -> Bystander | None:
        """Take out what was known of a pod."""
        node = old.spec.node_name if old is not None else None
        if node is None or node not in self._on_node:
            return None
        before = self._on_node[node].pop(key, None)
        if not self._on_node[node]:
            del self._on_node[node]
        return before
