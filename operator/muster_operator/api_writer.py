"""The one writer to the API server. Every answer goes into the stores at once, so the operator reads its own writes.

It takes patches and manifests that are ready, for any resource; it builds none and decides nothing. What a refusal means is the
caller's matter: the errors of `muster.kube.errors` are raised as they are, except where a method says otherwise.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from muster.kube.client import Client
from muster.kube.errors import Conflict, NotFound
from muster.kube.objects import Meta
from muster.kube.store import T
from muster_operator.resources import Resource
from muster_operator.stores import Stores

Json = dict[str, Any]
Propagation = Literal["Background", "Foreground", "Orphan"]


class ApiWriter:
    """Writes to the API server and keeps the stores up to date with its answers."""

    def __init__(self, client: Client, stores: Stores) -> None:
        self._client, self._stores = client, stores

    async def read(self, resource: Resource[T], meta: Meta) -> Json:
        """Return an object as the API server has it, whole; raise NotFound."""
        whole: Json = json.loads(await self._client.get(resource.path(meta.namespace, meta.name)))
        return whole

    def adopt(self, resource: Resource[T], whole: Json) -> None:
        """Put an object that was read whole into its store, before the watch brings it."""
        self._stores.of(resource).put(resource.decode(json.dumps(whole).encode()))

    async def create(self, resource: Resource[T], manifest: Json) -> None:
        """Create an object; raise AlreadyExists, or another ApiError with the API server's words."""
        body = await self._client.create(resource.path(manifest["metadata"]["namespace"]), manifest)
        self._stores.of(resource).put(resource.decode(body))

    async def dry_run(self, resource: Resource[T], manifest: Json) -> None:
        """Let the API server check an object without creating it; raise ApiError where it would refuse."""
        await self._client.create(resource.path(manifest["metadata"]["namespace"]), manifest, dry_run=True)

    async def patch(self, resource: Resource[T], meta: Meta, patch: Json, subresource: str | None = None) -> bool:
        """Merge `patch` into an object; return False if it is gone. A patch with a resourceVersion may raise Conflict."""
        store = self._stores.of(resource)
        try:
            body = await self._client.patch(resource.path(meta.namespace, meta.name, subresource), patch)
        except NotFound:
            store.remove(meta.key, meta.resource_version)
            return False
        store.put(resource.decode(body))
        return True

    async def annotate(self, resource: Resource[T], meta: Meta, annotations: dict[str, str | None]) -> bool:
        """Change an object's annotations (None removes one); return False if it is gone."""
        return await self.patch(resource, meta, {"metadata": {"annotations": annotations}})

    async def patch_status(self, resource: Resource[T], meta: Meta, status: Json) -> bool:
        """Merge `status` into an object's status; return False if it is gone."""
        return await self.patch(resource, meta, {"status": status}, "status")

    async def delete(
        self, resource: Resource[T], meta: Meta, *, grace_seconds: int | None = None, propagation: Propagation | None = None
    ) -> None:
        """Delete this very object, not one of the same name that came later; fine if it is gone already."""
        store = self._stores.of(resource)
        path = resource.path(meta.namespace, meta.name)
        try:
            body = await self._client.delete(path, uid=meta.uid, grace_seconds=grace_seconds, propagation=propagation)
        except (NotFound, Conflict):
            store.remove(meta.key, meta.resource_version)
            return
        if grace_seconds == 0:
            return  # the watch says when it is gone
        if "deletionTimestamp" in json.loads(body).get("metadata", {}):
            store.put(resource.decode(body))
        else:
            store.remove(meta.key, meta.resource_version)
