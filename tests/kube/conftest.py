"""An API server on loopback that keeps real books and misbehaves on demand.

It holds one collection, /things, with resource versions, a history, list pages and watches as the real one. Faults wait in
queues: each list, watch or write first takes the next fault of its queue, and behaves if there is none.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from muster.kube.access import Access
from muster.kube.backoff import Backoff
from muster.kube.client import Client

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
Object = dict[str, Any]


def line(kind: str, obj: Object) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def failure(code: int, reason: str = "Scripted", message: str = "as the test wants") -> Object:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


@dataclass
class ApiServer:
    """The truth (`objects`), the queues of faults, and what clients asked for (`asked`)."""

    url: str = ""
    revision: int = 100
    compacted: int = 0
    objects: dict[str, Object] = field(default_factory=dict)
    history: list[tuple[int, bytes]] = field(default_factory=list)
    list_faults: deque[Fault] = field(default_factory=deque)
    watch_faults: deque[Fault] = field(default_factory=deque)
    write_faults: deque[Fault] = field(default_factory=deque)
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    watching: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _pages: dict[str, tuple[int, list[Object]]] = field(default_factory=dict)

    # What tests do to it

    def put(self, name: str, value: Any = 0, **fields: Any) -> Object:
        """Create or change an object; `fields` are some that no test reads."""
        self.revision += 1
        old = self.objects.get(name)
        uid = old["metadata"]["uid"] if old else f"{name}-{self.revision}"
        obj = {"metadata": {"name": name, "uid": uid, "resourceVersion": str(self.revision)}, "value": value, **fields}
        self.objects[name] = obj
        self._record("MODIFIED" if old else "ADDED", obj)
        return obj

    def delete(self, name: str) -> None:
        self.revision += 1
        obj = self.objects.pop(name)
        self._record("DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}})

    def compact(self) -> None:
        """Forget the history: watches from before now get 410."""
        self.compacted = self.revision
        self.history.clear()

    def truth(self) -> dict[str, int]:
        return {name: obj["value"] for name, obj in self.objects.items()}

    def _record(self, kind: str, obj: Object) -> None:
        self.history.append((self.revision, line(kind, obj)))
        news, self._news = self._news, asyncio.Event()
        news.set()

    # Faults

    def answers(self, code: int, reason: str = "Scripted", **headers: str) -> Fault:
        async def fault(_: web.Request) -> web.StreamResponse:
            return web.json_response(failure(code, reason), status=code, headers=headers)

        return fault

    def streams(self, *chunks: bytes | Callable[[], bytes], then: str = "end") -> Fault:
        """A watch that sends these bytes and then ends: cleanly ("end"), by a cut connection ("cut"), or never ("hang")."""

        async def fault(request: web.Request) -> web.StreamResponse:
            response = await self._stream(request)
            for chunk in chunks:
                await response.write(chunk if isinstance(chunk, bytes) else chunk())
            if then == "hang":
                await asyncio.Event().wait()
            if then == "cut" and request.transport is not None:
                request.transport.abort()
            return response

        return fault

    def bookmark(self) -> bytes:
        return line("BOOKMARK", {"metadata": {"resourceVersion": str(self.revision)}})

    # What it does for clients

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        if request.method != "GET":
            return await self._next(self.write_faults, self._write, request)
        if "watch" in request.query:
            return await self._next(self.watch_faults, self._watch, request)
        return await self._next(self.list_faults, self._list, request)

    async def _next(self, faults: deque[Fault], well: Fault, request: web.Request) -> web.StreamResponse:
        return await (faults.popleft() if faults else well)(request)

    async def _write(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.put("written"), status=201)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        limit = int(request.query.get("limit", 0)) or len(self.objects)
        token = request.query.get("continue")
        if token and token not in self._pages:
            return await self.answers(410, "Expired")(request)
        revision, rest = self._pages[token] if token else (self.revision, list(self.objects.values()))
        items, rest = rest[:limit], rest[limit:]
        meta = {"resourceVersion": str(revision)}
        if rest:
            meta["continue"] = f"token {revision}/{len(rest)}"
            self._pages[meta["continue"]] = (revision, rest)
        return web.json_response({"kind": "ThingList", "metadata": meta, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        after = int(request.query["resourceVersion"])
        response = await self._stream(request)
        if after < self.compacted:
            await response.write(line("ERROR", failure(410, "Expired")))
            return response
        self.watching += 1
        try:
            while True:
                news = self._news
                for revision, text in [entry for entry in self.history if entry[0] > after]:
                    await response.write(text)
                    after = revision
                await news.wait()
        finally:
            self.watching -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        return response


Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Poll until a condition holds; fail after a generous while."""

    async def poll(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 (the condition may be about anything)
                await asyncio.sleep(0.005)

    return poll


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    books = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", books.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    books.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield books
    await runner.cleanup()


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    async with Client(Access(server.url), backoff=Backoff(base=0.001, cap=1.0)) as connected:
        yield connected


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Path:
    """A kubeconfig for the server whose user's token is in the file tmp_path/token."""
    (tmp_path / "token").write_text("first")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"tokenFile": str(tmp_path / "token")}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    return tmp_path / "config"
