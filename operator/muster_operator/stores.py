"""A store for each resource that the operator watches.

Nodes, pods and DLJobs are in the view that the extender keeps as well. Any store but those of nodes, of pods and of what is
added to pods comes to be when a controller asks for it, and from then on its resource is watched: so a new kind of object needs
no change here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from muster.allocation.reservations import Reserving
from muster.allocation.view import ClusterView
from muster.kube import paths
from muster.kube.store import Store, T
from muster.scheduling.resources import Resources
from muster_operator.defaults import LIMIT_RANGES, RUNTIME_CLASSES, Defaults, LimitRange, RuntimeClass
from muster_operator.node_digest import digest
from muster_operator.resources import NODES, PODS, Resource


class Stores:
    """Stores by resource; `view` has nodes, pods and DLJobs, and who holds which GPUs."""

    def __init__(self, resources: Callable[[Defaults, Reserving, str], Resources]) -> None:
        limit_ranges: Store[LimitRange] = Store()
        runtime_classes: Store[RuntimeClass] = Store()
        self.defaults = Defaults(limit_ranges, runtime_classes)
        self.view = ClusterView(resources=partial(resources, self.defaults))
        self._by_resource: dict[Resource[Any], Store[Any]] = {
            NODES: self.view.nodes,
            PODS: self.view.pods,
            LIMIT_RANGES: limit_ranges,
            RUNTIME_CLASSES: runtime_classes,
        }

    def of(self, resource: Resource[T]) -> Store[T]:
        """Return the store of a resource."""
        if resource not in self._by_resource:
            self._by_resource[resource] = self.view.jobs if resource.path() == paths.dljobs() else Store()
        return self._by_resource[resource]

    @property
    def watched(self) -> Mapping[Resource[Any], Store[Any]]:
        """All stores by resource."""
        return self._by_resource

    @property
    def synced(self) -> bool:
        """Whether every first list is in."""
        return all(store.synced.is_set() for store in self._by_resource.values())

    async def wait_synced(self) -> None:
        """Wait until every first list is in: before that nothing may be decided."""
        for store in list(self._by_resource.values()):
            await store.synced.wait()

    def node_digest(self, name: str) -> str:
        """Return the digest of what decides which pods a node takes; "" if it is gone."""
        node = self.view.nodes.get(name)
        return digest(node) if node is not None else ""
