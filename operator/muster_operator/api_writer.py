"""The one writer to the API server. Every answer goes into the stores at once, so the operator reads its own writes.

It takes patches and manifests that are ready, for any resource; it builds none and decides nothing. What a refusal means is the
caller's matter: the errors of `muster.kube.errors` are raised as they are, except where a method says otherwise.

Every write has a precondition: it changes the version of an object on which it was decided, and no other. Where somebody else
was quicker it raises Conflict, which is nobody's error: the watch brings the newer object, and that one is decided about anew.
A write that follows upon another of the same object is decided on the answer to the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from muster.kube import paths
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

    async def warnings(self, meta: Meta) -> Sequence[bytes | msgspec.Raw]:
        """Return the Events of type Warning about an object, as JSON."""
        about = f"involvedObject.uid={meta.uid},type=Warning"
        return (await self._client.list(paths.events(meta.namespace or ""), fieldSelector=about)).items

    def adopt(self, resource: Resource[T], whole: Json) -> None:
        """Put an object that was read whole into its store, before the watch brings it."""
        self._stores.of(resource).put(resource.decode(json.dumps(whole).encode()))

    async def create(self, resource: Resource[T], manifest: Json) -> None:
        """Create an object; raise AlreadyExists, or another ApiError with the API server's words."""
        body = await self._client.create(resource.path(manifest["metadata"]["namespace"]), manifest)
        self._stores.of(resource).put(resource.decode(body))

    async def dry_run(self, resource: Resource[T], manifest: Json, *, strict: bool = False) -> None:
        """Let the API server check an object without creating it; raise ApiError where it would refuse.

        With `strict` it refuses unknown fields too, which it drops where an object is created.
        """
        await self._client.create(resource.path(manifest["metadata"]["namespace"]), manifest, dry_run=True, strict=strict)

    async def patch(self, resource: Resource[T], meta: Meta, patch: Json, subresource: str | None = None) -> T | None:
        """Merge `patch` into this version of an object; return the object as it is then, None if it is gone; raise Conflict."""
        store = self._stores.of(resource)
        metadata = {**patch.get("metadata", {}), "resourceVersion": _version(meta)}
        try:
            body = await self._client.patch(
                resource.path(meta.namespace, meta.name, subresource), {**patch, "metadata": metadata}
            )
        except NotFound:
            store.remove(meta.key, meta.resource_version)
            return None
        changed = resource.decode(body)
        store.put(changed)
        return changed

    async def annotate(self, resource: Resource[T], meta: Meta, annotations: dict[str, str | None]) -> T | None:
        """Change the annotations of this version of an object (None removes one); as `patch`."""
        return await self.patch(resource, meta, {"metadata": {"annotations": annotations}})

    async def patch_status(self, resource: Resource[T], meta: Meta, status: Json) -> T | None:
        """Merge `status` into the status of this version of an object; as `patch`."""
        return await self.patch(resource, meta, {"status": status}, "status")

    async def delete(
        self, resource: Resource[T], meta: Meta, *, grace_seconds: int | None = None, propagation: Propagation | None = None
    ) -> None:
        """Delete this very object, whatever its version, and none of its name that came later; fine if it is gone already."""
        path, store = resource.path(meta.namespace, meta.name), self._stores.of(resource)
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

    async def delete_unchanged(self, resource: Resource[T], meta: Meta, *, propagation: Propagation | None = None) -> None:
        """Delete this version of an object, where its state is the reason; fine if it is gone already; raise Conflict."""
        path, version = resource.path(meta.namespace, meta.name), _version(meta)
        with suppress(NotFound):
            await self._client.delete(path, uid=meta.uid, resource_version=version, propagation=propagation)


def _version(meta: Meta) -> str:
    """The version that a write is decided on; the API server takes 0 for no precondition."""
    if meta.resource_version == "0":
        raise ValueError(f"{meta.key} was not read from the API server: a write to it would have no precondition")
    return meta.resource_version
