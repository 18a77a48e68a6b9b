"""kopf's part: it listens to DLJobs and DLQueues, and puts what it hears into the stores.

Only `on.event` handlers: they write nothing to the objects (no finalizers, no annotations), so ten thousand jobs cost ten
thousand events and no patch. kopf does not tell of an object that was deleted while its watch was down; a list of our own
now and then (`audit`) takes those out, and at the start says when everything has been heard.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import kopf
import msgspec

from muster.api import names
from muster.kube import configuration, paths
from muster.kube.client import Client
from muster.kube.errors import KubeError
from muster.kube.objects import DLJob, DLQueue
from muster.kube.store import KubeObject, Store

AUDIT_SECONDS = 60.0
RETRY_SECONDS = 2.0
OURS = names.JOB
"""Label selector of the Services that muster made."""
PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
T = TypeVar("T", bound=KubeObject)


def registry(jobs: Store[DLJob], queues: Store[DLQueue]) -> kopf.OperatorRegistry:
    """Return kopf's handlers, which feed these stores."""
    handlers = kopf.OperatorRegistry()
    kopf.on.login(registry=handlers)(login)
    kopf.on.startup(registry=handlers)(_configure)
    kopf.on.event(names.GROUP, names.VERSION, "dljobs", registry=handlers)(_feed(jobs, DLJob))
    kopf.on.event(names.GROUP, names.VERSION, "dlqueues", registry=handlers)(_feed(queues, DLQueue))
    return handlers


class Audit:
    """Lists both kinds now and then: what is not in the list is not in the cluster. `trouble` says why it cannot."""

    def __init__(self, client: Client, jobs: Store[DLJob], queues: Store[DLQueue]) -> None:
        self.trouble = ""
        self._client, self._jobs, self._queues = client, jobs, queues

    async def run(self) -> None:
        """List for ever, at the start and after a failure until it works."""
        while True:
            try:
                await self._list(paths.dljobs(), self._jobs, DLJob)
                await self._list(paths.dlqueues(), self._queues, DLQueue)
                self.trouble = ""
            except (KubeError, msgspec.MsgspecError) as error:
                self.trouble = str(error)
            await asyncio.sleep(RETRY_SECONDS if self.trouble else AUDIT_SECONDS)

    async def _list(self, path: str, store: Store[T], kind: type[T]) -> None:
        listing = await self._client.list(path)
        store.replace_all((msgspec.json.decode(item, type=kind) for item in listing.items), listing.resource_version)


def _feed(store: Store[T], kind: type[T]) -> Callable[..., Any]:
    async def heard(event: kopf.RawEvent, **_: Any) -> None:
        obj = msgspec.json.decode(msgspec.json.encode(event["object"]), type=kind)
        if event["type"] == "DELETED":
            key = f"{obj.metadata.namespace}/{obj.metadata.name}"
            store.remove(key, obj.metadata.resource_version)
        else:
            store.put(obj)

    return heard


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Who we are, as `Client` has it. In a pod kopf would go by the server's name, and wait for the cluster's DNS."""
    server = configuration.server_of_pod()
    if server is None:
        return kopf.login_with_kubeconfig(**kwargs)
    token = (configuration.ACCOUNT / "token").read_text().strip()
    return kopf.ConnectionInfo(server=server, ca_path=configuration.ACCOUNT / "ca.crt", token=token)


class _NoDiff(kopf.DiffBaseStorage):
    """Event handlers compare nothing, so kopf need not copy each object to find out what changed in it."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:  # noqa: ARG002
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is written to the object."""


async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    settings.networking.error_backoffs = itertools.repeat(5.0)  # kopf would end after some minutes without its rights
    settings.watching.server_timeout = 120
    settings.watching.client_timeout = 150
    settings.queueing.idle_timeout = 1.0
    settings.persistence.diffbase_storage = _NoDiff()
