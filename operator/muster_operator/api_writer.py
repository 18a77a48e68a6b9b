"""All writing of the operator to the API server. Every answer goes into the stores at once: what is written is known.

Nothing here decides. A call that finds its object gone (404) has nothing left to do; any other refusal is raised.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec

from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from muster.kube.objects import DLJob, DLQueue, Meta, Pod
from muster.scheduling.gang import Assigned
from muster_operator import gates, manifests, templates
from muster_operator.jobs import Job
from muster_operator.stores import PodTemplate, Service, Stores

_decode_job = msgspec.json.Decoder(DLJob).decode
_decode_pod = msgspec.json.Decoder(Pod).decode
_decode_queue = msgspec.json.Decoder(DLQueue).decode
_encode = msgspec.json.encode


_decode_service = msgspec.json.Decoder(Service).decode
_decode_template = msgspec.json.Decoder(PodTemplate).decode


class Refused(Exception):
    """The API server would not have a gang's object; the message has its words."""


class ApiWriter:
    """Writes to the API server and keeps the stores up to date with the answers."""

    def __init__(self, client: Client, stores: Stores) -> None:
        self._client, self._view, self._services, self._queues = client, stores.view, stores.services, stores.queues
        self._templates = stores.templates

    async def patch_status(self, meta: Meta, patch: dict[str, Any]) -> None:
        """Change a DLJob's status."""
        try:
            body = await self._client.patch(paths.dljobs(meta.namespace, meta.name, "status"), {"status": patch})
        except NotFound:
            self._view.jobs.remove(meta.key, meta.resource_version)
            return
        self._view.jobs.put(_decode_job(body))

    async def annotate_job(self, meta: Meta, annotations: dict[str, str | None]) -> None:
        """Change a DLJob's annotations; None takes one away."""
        try:
            body = await self._client.patch(paths.dljobs(meta.namespace, meta.name), {"metadata": {"annotations": annotations}})
        except NotFound:
            self._view.jobs.remove(meta.key, meta.resource_version)
            return
        self._view.jobs.put(_decode_job(body))

    async def remove_job(self, meta: Meta) -> None:
        """Delete a DLJob; the garbage collector takes its pods."""
        with suppress(NotFound, Conflict):
            await self._client.delete(paths.dljobs(meta.namespace, meta.name), uid=meta.uid, propagation="Background")

    async def try_pod(self, job: Job, body: bytes) -> None:
        """Let the API server check a pod without creating it; raise ApiError where it would refuse."""
        await self._client.create(paths.pods(job.meta.namespace), body, dry_run=True)

    async def create_service(self, job: Job) -> None:
        """Create the gang's Service unless it is there; raise Refused where another's has its name."""
        if self._service_of(job) is not None:
            return
        try:
            body = await self._client.create(paths.services(job.meta.namespace), manifests.service(job))
        except AlreadyExists as error:
            found = _decode_service(await self._client.get(paths.services(job.meta.namespace, job.meta.name)))
            if not _owned(found.metadata, job):
                message = f"Service {job.meta.key} exists and is not this job's: delete it, or name the job otherwise"
                raise Refused(message) from error
            self._services.put(found)
            return
        except ApiError as error:
            raise Refused(error.message) from error
        self._services.put(_decode_service(body))

    async def delete_service(self, job: Job) -> None:
        """Delete the gang's Service if it is there."""
        found = self._service_of(job)
        if found is None:
            return
        with suppress(NotFound, Conflict):
            await self._client.delete(paths.services(job.meta.namespace, job.meta.name), uid=found.metadata.uid)
        self._services.remove(job.key, found.metadata.resource_version)

    async def create_pod(self, job: Job, body: bytes) -> None:
        """Create one pod of a gang; raise Refused where the API server would not have it."""
        try:
            answer = await self._client.create(paths.pods(job.meta.namespace), body)
        except AlreadyExists as error:
            raise Refused(f"{error.message}: a pod of that name is not this job's") from error
        except ApiError as error:
            raise Refused(error.message) from error
        self._view.pods.put(_decode_pod(answer))

    async def annotate_pod(self, pod: Pod, annotations: dict[str, str | None]) -> None:
        """Change a pod's annotations."""
        meta = pod.metadata
        try:
            body = await self._client.patch(paths.pods(meta.namespace, meta.name), {"metadata": {"annotations": annotations}})
        except NotFound:
            self._view.pods.remove(meta.key, meta.resource_version)
            return
        self._view.pods.put(_decode_pod(body))

    async def delete_pod(self, pod: Pod, grace_seconds: int | None = None) -> None:
        """Delete this very pod, not one of the same name that came later."""
        meta = pod.metadata
        try:
            body = await self._client.delete(paths.pods(meta.namespace, meta.name), uid=meta.uid, grace_seconds=grace_seconds)
        except (NotFound, Conflict):
            return
        answer = json.loads(body)
        if answer.get("kind") == "Pod" and grace_seconds != 0:
            self._view.pods.put(_decode_pod(body))

    async def park_pod(self, pod: Pod) -> None:
        """Write down a bare pod as a PodTemplate, to be created again; not one that is on its way out already."""
        meta = pod.metadata
        try:
            found = json.loads(await self._client.get(paths.pods(meta.namespace, meta.name)))
            if found["metadata"]["uid"] != meta.uid or "deletionTimestamp" in found["metadata"]:
                return
            body = await self._client.create(paths.podtemplates(meta.namespace), templates.template(found))
        except (NotFound, AlreadyExists):
            return
        self._templates.put(_decode_template(body))

    async def create_again(self, kept: PodTemplate) -> None:
        """Create a bare pod from its PodTemplate, unless there is one of its name, and delete the template."""
        meta = kept.metadata
        with suppress(NotFound, AlreadyExists):
            found = json.loads(await self._client.get(paths.podtemplates(meta.namespace, meta.name)))
            body = await self._client.create(paths.pods(meta.namespace), templates.pod(found))
            self._view.pods.put(_decode_pod(body))
        await self.forget(kept)

    async def forget(self, kept: PodTemplate) -> None:
        """Delete the PodTemplate of a bare pod."""
        meta = kept.metadata
        with suppress(NotFound, Conflict):
            await self._client.delete(paths.podtemplates(meta.namespace, meta.name), uid=meta.uid)
        self._templates.remove(meta.key, meta.resource_version)

    async def ungate(self, pod: Pod, place: Assigned) -> bool:
        """Drop a foreign pod's gate and pin it; False if it changed meanwhile and has to be looked at again."""
        path = paths.pods(pod.metadata.namespace, pod.metadata.name)
        try:
            affinity = await self._affinity(pod) if pod.spec.affinity else None
            body = await self._client.patch(path, gates.release(pod, affinity, place))
        except (NotFound, Conflict):
            return False
        self._view.pods.put(_decode_pod(body))
        return True

    async def _affinity(self, pod: Pod) -> dict[str, Any]:
        """A pod's whole affinity: the store keeps only the part that decides where it may go."""
        raw = json.loads(await self._client.get(paths.pods(pod.metadata.namespace, pod.metadata.name)))
        affinity: dict[str, Any] = raw["spec"].get("affinity") or {}
        return affinity

    async def patch_queue(self, meta: Meta, status: dict[str, Any]) -> None:
        """Change a DLQueue's status."""
        try:
            body = await self._client.patch(paths.dlqueues(meta.namespace, meta.name, "status"), {"status": status})
        except NotFound:
            return
        self._queues.put(_decode_queue(body))

    def _service_of(self, job: Job) -> Service | None:
        found = self._services.get(job.key)
        return found if found is not None and _owned(found.metadata, job) else None


def _owned(meta: Meta, job: Job) -> bool:
    return meta.controller is not None and meta.controller.uid == job.meta.uid
