"""Everything that the operator watches, as stores."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from muster.allocation.view import ClusterView
from muster.kube.objects import DLQueue, Meta, Pod
from muster.kube.store import Store
from muster.scheduling.snapshot import Queue


class Service(msgspec.Struct):
    """What is read of a Service: whose it is."""

    metadata: Meta


class PriorityClass(msgspec.Struct):
    """What is read of a PriorityClass."""

    metadata: Meta
    value: int = 0


class PodTemplate(msgspec.Struct):
    """What is read of a PodTemplate that keeps a bare pod (see `templates`)."""

    metadata: Meta
    template: Pod

    @property
    def pod(self) -> Pod:
        """The pod as it will be created: in the template's own namespace, whatever is written in it."""
        meta = msgspec.structs.replace(self.template.metadata, namespace=self.metadata.namespace)
        return msgspec.structs.replace(self.template, metadata=meta)


class _QueueSpec(msgspec.Struct):
    gpus: int | None = None


_decode_queue_spec = msgspec.json.Decoder(_QueueSpec | None).decode


@dataclass(slots=True)
class Stores:
    """Nodes, pods and DLJobs (the view that the extender has as well), and what only the operator needs."""

    view: ClusterView = field(default_factory=ClusterView)
    queues: Store[DLQueue] = field(default_factory=Store)
    services: Store[Service] = field(default_factory=Store)
    priorities: Store[PriorityClass] = field(default_factory=Store)
    templates: Store[PodTemplate] = field(default_factory=Store)

    @property
    def synced(self) -> bool:
        others = (self.queues, self.services, self.priorities, self.templates)
        return self.view.synced and all(store.synced.is_set() for store in others)

    async def wait_synced(self) -> None:
        """Wait until every first list is in: before that nothing may be decided."""
        await self.view.wait_synced()
        for store in (self.queues, self.services, self.priorities, self.templates):
            await store.synced.wait()

    def quotas(self) -> dict[str, Queue]:
        """The queues as the planner sees them, by "namespace/name"."""
        specs = {queue.metadata.key: _decode_queue_spec(queue.spec) for queue in self.queues.values()}
        return {key: Queue(key, spec.gpus if spec else None) for key, spec in specs.items()}

    def priority_classes(self) -> dict[str, int]:
        """The value of each PriorityClass."""
        return {found.metadata.name: found.value for found in self.priorities.values()}
