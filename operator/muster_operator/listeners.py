"""kopf's part: it owns signals and shutdown, watches DLQueues, and feeds their store.

DLJobs are a Reflector's: anybody may write thousands of them, each as long as an object can be, and kopf decodes all that there
is of an object. DLQueues are few and short, and administrators write them. What kopf costs: docs/critiques.md.

There is only an `on.event` handler: it writes nothing to the objects (no finalizers, no annotations). kopf does not report an
object that was deleted while its watch was down; a list of our own now and then (`Audit`) finds those, and the first one says
when everything has been heard.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any, Generic

import kopf
import msgspec

from muster.api import names
from muster.kube import configuration
from muster.kube.client import Client
from muster.kube.errors import KubeError
from muster.kube.store import Store, T
from muster_operator.resources import Resource

AUDIT_SECONDS = 60.0
RETRY_SECONDS = 2.0
PAGE = 100
"""Objects in one page of kopf's lists; by default it asks for all at once."""


def registry(resource: Resource[T], store: Store[T]) -> kopf.OperatorRegistry:
    """Return kopf's handlers, which feed the store of one of muster's own resources."""
    handlers = kopf.OperatorRegistry()
    kopf.on.login(registry=handlers)(login)
    kopf.on.startup(registry=handlers)(_configure)
    kopf.on.event(names.GROUP, names.VERSION, resource.plural, registry=handlers)(_feed(resource, store))
    return handlers


class Audit(Generic[T]):
    """Lists a resource now and then, to find objects that were deleted unnoticed. `trouble` says why it cannot."""

    def __init__(self, client: Client, resource: Resource[T], store: Store[T]) -> None:
        self.trouble = ""
        self._client, self._resource, self._store = client, resource, store

    async def run(self) -> None:
        """List for ever, at the start and after a failure until it works."""
        while True:
            try:
                await self._list()
                self.trouble = ""
            except (KubeError, msgspec.MsgspecError) as error:
                self.trouble = str(error)
            await asyncio.sleep(RETRY_SECONDS if self.trouble else AUDIT_SECONDS)

    async def _list(self) -> None:
        listing = await self._client.list(self._resource.path())
        self._store.replace_all(map(self._resource.decode, listing.items), listing.resource_version)


def _feed(resource: Resource[T], store: Store[T]) -> Callable[..., Any]:
    async def heard(event: kopf.RawEvent, **_: Any) -> None:
        obj = resource.decode(msgspec.json.encode(event["object"]))
        if event["type"] == "DELETED":
            store.remove(f"{obj.metadata.namespace}/{obj.metadata.name}", obj.metadata.resource_version)
        else:
            store.put(obj)

    return heard


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Return the credentials that `Client` uses. In a pod kopf would use the server's name, and wait for the cluster's DNS."""
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
        """Write nothing to the object."""


async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    settings.networking.error_backoffs = itertools.repeat(5.0)  # kopf would end after some minutes without its rights
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = 120
    settings.watching.client_timeout = 150
    settings.queueing.idle_timeout = 1.0
    settings.persistence.diffbase_storage = _NoDiff()
