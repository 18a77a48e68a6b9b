"""A small API server on loopback that keeps real books: any resource, with versions, preconditions and merge patches.

It is as strict as the real one where muster relies on it: names are unique, a precondition that does not hold is a Conflict,
a status is written by its own subresource only, a bound pod stays until its kubelet confirms its end. `refuse` makes it say
no. Of schemas it knows the names of a pod's fields, for strict
validation; what else a test needs refused for its content, the test refuses.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from builders.dljobs import NOW, Json, time
from muster.api.podtemplate import POD_FIELDS
from muster.api.status import DLJobStatus

OWN_FIELDS = "containers initContainers volumes restartPolicy schedulerName nodeName hostname subdomain"
"""Fields of a pod's spec that a template may not have, or that muster reads itself."""
META_FIELDS = "name generateName namespace labels annotations ownerReferences finalizers creationTimestamp"

Refusal = Callable[[str, str, Json], web.Response | None]
"""From method, path and body to a refusal; None: go on."""


def failure(code: int, message: str, reason: str = "Scripted") -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}, status=code
    )


@dataclass
class ApiServer:
    """The truth by path, and everything that was asked for."""

    url: str = ""
    revision: int = 100
    objects: dict[str, Json] = field(default_factory=dict)
    asked: list[tuple[str, str, Json]] = field(default_factory=list)
    """Writes."""
    reads: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    held: list[tuple[str, asyncio.Event]] = field(default_factory=list)

    # What tests do to it

    def put(self, collection: str, body: Json) -> Json:
        """Create or replace an object as somebody else would."""
        path = f"{collection}/{body['metadata']['name']}"
        return self._store(path, json.loads(json.dumps(body)))

    def drop(self, path: str) -> Json:
        """Take an object away: a kubelet confirmed a pod's end, or somebody deleted it."""
        self.revision += 1
        return self.objects.pop(path)

    def refuse(self, method: str, part: str, code: int, message: str, times: int = 1, reason: str = "Scripted") -> None:
        """Refuse the next so many requests of this method whose path contains `part`."""
        left = [times]

        def refusal(asked: str, path: str, _: Json) -> web.Response | None:
            if asked != method or part not in path or not left[0]:
                return None
            left[0] -= 1
            return failure(code, message, reason)

        self.refusals.append(refusal)

    def hold(self, part: str) -> asyncio.Event:
        """Leave requests whose path contains `part` unanswered until the event that is returned is set."""
        self.held.append((part, asyncio.Event()))
        return self.held[-1][1]

    def writes(self, *methods: str) -> list[str]:
        """Methods and paths of the writes so far, "?dryRun" where they were only tried."""
        return [f"{method} {path}" for method, path, _ in self.asked if method in methods or not methods]

    def of(self, collection: str) -> list[Json]:
        """The objects of a collection; "pods" means those of every namespace."""
        return [
            obj for path, obj in self.objects.items() if path.split("/")[-2] == collection or path.startswith(f"{collection}/")
        ]

    # What it does for clients

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read() or b"{}")
        path = request.path
        named = path + ("?dryRun" if "dryRun" in request.query else "")
        if request.method == "GET":
            self.reads.append(path)
        else:
            self.asked.append((request.method, named, body))
        for part, event in self.held:
            if part in path:
                await event.wait()
        for refusal in self.refusals:
            answer = refusal(request.method, named, body)
            if answer is not None:
                return answer
        match request.method:
            case "POST":
                if request.query.get("fieldValidation") == "Strict" and (field := _unknown(body)):
                    words = f'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "{field}"'
                    return failure(400, words, "BadRequest")
                return self._create(path, body, dry="dryRun" in request.query)
            case "PATCH":
                return self._patch(path, body)
            case "PUT":
                return self._replace(path, body)
            case "DELETE":
                return self._delete(path, body)
            case _:
                found = self.objects.get(path)
                return web.json_response(found) if found else self._missing(path)

    def _create(self, collection: str, body: Json, *, dry: bool) -> web.Response:
        name = body["metadata"].get("name") or body["metadata"]["generateName"] + "x7k2p"
        body["metadata"]["name"] = name
        path = f"{collection}/{name}"
        if path in self.objects:
            return failure(409, f'{collection.split("/")[-1]} "{name}" already exists', "AlreadyExists")
        meta = {"uid": f"uid-{name}-{self.revision}", "creationTimestamp": time(NOW), "generation": 1} | body["metadata"]
        body = {**body, "metadata": meta}
        if collection.endswith("/pods"):
            body["status"] = {"phase": "Pending"}
        return web.json_response(body if dry else self._store(path, body), status=201)

    def _patch(self, path: str, patch: Json) -> web.Response:
        sub = path.endswith("/status")
        path = path.removesuffix("/status")
        found = self.objects.get(path)
        if found is None:
            return self._missing(path)
        version = patch.get("metadata", {}).get("resourceVersion")
        if version not in (None, found["metadata"]["resourceVersion"]):
            return failure(409, "the object has been modified", "Conflict")
        split = path.split("/")[-2] in ("dljobs", "dlqueues")
        allowed = {key: value for key, value in patch.items() if not split or (key == "status") == sub}
        merged: Json = _merge(found, allowed)
        if merged == found:
            return web.json_response(found)
        if "dljobs" in path:
            DLJobStatus.model_validate(merged.get("status") or {})
        return web.json_response(self._store(path, merged))

    def _replace(self, path: str, body: Json) -> web.Response:
        found = self.objects.get(path)
        if found is None:
            return self._missing(path)
        if body["metadata"].get("resourceVersion") not in (None, found["metadata"]["resourceVersion"]):
            return failure(409, "the object has been modified", "Conflict")
        kept = {key: found["metadata"][key] for key in ("uid", "creationTimestamp", "generation")}
        return web.json_response(self._store(path, {**body, "metadata": {**body["metadata"], **kept}}))

    def _delete(self, path: str, options: Json) -> web.Response:
        found = self.objects.get(path)
        if found is None:
            return self._missing(path)
        for key, value in options.get("preconditions", {}).items():
            if value != found["metadata"][key]:
                return failure(409, f"the precondition {key} {value} does not hold", "Conflict")
        leaving = {**found, "kind": "Pod", "metadata": {**found["metadata"], "deletionTimestamp": time(NOW)}}
        if "/pods/" not in path:
            self.drop(path)
            return web.json_response({"kind": "Status", "status": "Success"})
        if options.get("gracePeriodSeconds") != 0 and found["spec"].get("nodeName"):
            return web.json_response(self._store(path, leaving))
        self.drop(path)
        leaving["metadata"]["resourceVersion"] = str(self.revision)
        return web.json_response(leaving)

    def _store(self, path: str, body: Json) -> Json:
        self.revision += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.revision)}}
        self.objects[path] = body
        return body

    def _missing(self, path: str) -> web.Response:
        return failure(404, f"{path} not found", "NotFound")


def _unknown(pod: Json) -> str:
    """The path of the first field that no pod has, as far as this server knows; empty if there is none."""
    known = {"": "apiVersion kind metadata spec status", "spec.": f"{POD_FIELDS} {OWN_FIELDS}", "metadata.": META_FIELDS}
    parts = {"": pod, "spec.": pod["spec"], "metadata.": pod["metadata"]}
    fields = (prefix + name for prefix, part in parts.items() for name in part if name not in known[prefix].split())
    return next(fields, "")


def _merge(target: Json, patch: Json) -> Json:
    """JSON merge patch, RFC 7386."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            old = merged.get(key)
            merged[key] = _merge(old if isinstance(old, dict) else {}, value)
        else:
            merged[key] = value
    return merged


@asynccontextmanager
async def serving() -> AsyncIterator[ApiServer]:
    """Serve empty books on loopback."""
    books = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", books.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    books.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield books
    await runner.cleanup()
