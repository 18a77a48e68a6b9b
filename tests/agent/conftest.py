"""A stand-in machine under the real pynvml, and a fake API server on loopback with Node objects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml
import pytest
from aiohttp import web

from muster.kube.access import Access
from muster.kube.backoff import Backoff
from muster.kube.client import Client
from muster.machines import machine
from muster_agent.standin.hardware import Hardware, lay_out
from muster_agent.standin.library import Library, installed
from muster_agent.standin.tree import write_tree

Install = Callable[..., Library]


@pytest.fixture(autouse=True)
def fresh_pynvml() -> Iterator[None]:
    """Clear the function cache of pynvml, which outlives a library."""
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield
    assert pynvml.nvmlLib is None
    pynvml._nvmlGetFunctionPointer_cache.clear()


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    return tmp_path / "sys"


@pytest.fixture
def install(sysfs: Path) -> Iterator[Install]:
    """Install a machine (a name or its Hardware) under pynvml and write its tree to `sysfs`."""
    with ExitStack() as stack:

        def put(kind: str | Hardware) -> Library:
            hardware = kind if isinstance(kind, Hardware) else lay_out(machine(kind), "n1")
            write_tree(sysfs, hardware)
            return stack.enter_context(installed(Library(hardware)))

        yield put


def override(library: Library, **functions: Callable[..., int]) -> None:
    """Replace C functions of the stand-in."""
    vars(library).update(functions)
    pynvml._nvmlGetFunctionPointer_cache.clear()


@dataclass
class Nodes:
    """Node objects with a record of requests; watches receive every change."""

    url: str = ""
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    patches: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    gets: list[str] = field(default_factory=list)
    lists: int = 0
    refuse: int = 0
    """The number of next requests that get a 403."""
    refuse_patches: int = 0
    """The number of next patches that get a 403."""
    vanished: set[str] = field(default_factory=set)
    """Nodes that lists still contain and that a patch does not find."""
    expired: bool = False
    """Answer the next watch with 410 Gone."""
    streams: list[asyncio.Queue[bytes]] = field(default_factory=list)

    def add(self, name: str, machine: str | None = None, **annotations: str) -> None:
        labels = {"muster.dev/machine": machine} if machine else {}
        self.objects[name] = {"metadata": {"name": name, "labels": labels, "annotations": annotations}}
        self._notify("ADDED", self.objects[name])

    def annotation(self, name: str) -> str | None:
        text: str | None = self.objects[name]["metadata"]["annotations"].get("muster.dev/topology")
        return text

    def change(self, name: str, machine: str) -> None:
        self.objects[name]["metadata"]["labels"]["muster.dev/machine"] = machine
        self._notify("MODIFIED", self.objects[name])

    def _notify(self, kind: str, node: dict[str, Any]) -> None:
        for stream in self.streams:
            stream.put_nowait(json.dumps({"type": kind, "object": node}).encode() + b"\n")

    async def get(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.gets.append(name)
        if refused := self._refused():
            return refused
        if name not in self.objects:
            return web.json_response({"code": 404, "reason": "NotFound", "message": f"no {name}"}, status=404)
        return web.json_response(self.objects[name])

    async def patch(self, request: web.Request) -> web.StreamResponse:
        name, body = request.match_info["name"], await request.json()
        assert request.headers["Content-Type"] == "application/merge-patch+json"
        if refused := self._refused():
            return refused
        if self.refuse_patches:
            self.refuse_patches -= 1
            return web.json_response({"code": 403, "reason": "Forbidden", "message": "no"}, status=403)
        if name in self.vanished:
            return web.json_response({"code": 404, "reason": "NotFound", "message": f"no {name}"}, status=404)
        self.patches.append((name, body))
        self.objects[name]["metadata"]["annotations"].update(body["metadata"]["annotations"])
        self._notify("MODIFIED", self.objects[name])
        return web.json_response(self.objects[name])

    async def list(self, request: web.Request) -> web.StreamResponse:
        assert request.query["labelSelector"] == "muster.dev/machine"
        if "watch" in request.query:
            return await self._watch(request)
        self.lists += 1
        if refused := self._refused():
            return refused
        items = [node for node in self.objects.values() if node["metadata"]["labels"]]
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if self.expired:
            self.expired = False
            status = {"code": 410, "reason": "Expired", "message": "too old"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        stream: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams.append(stream)
        while True:
            await response.write(await stream.get())

    def _refused(self) -> web.Response | None:
        if not self.refuse:
            return None
        self.refuse -= 1
        return web.json_response({"code": 403, "reason": "Forbidden", "message": "no"}, status=403)


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    nodes = Nodes()
    app = web.Application()
    app.router.add_get("/api/v1/nodes", nodes.list)
    app.router.add_get("/api/v1/nodes/{name}", nodes.get)
    app.router.add_patch("/api/v1/nodes/{name}", nodes.patch)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    nodes.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield nodes
    await runner.cleanup()


@pytest.fixture
async def client(nodes: Nodes) -> AsyncIterator[Client]:
    async with Client(Access(nodes.url), backoff=Backoff(0.001, 0.01)) as client:
        yield client


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another task fulfils; the timeout only ends a broken test."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (the condition has no event)
            await asyncio.sleep(0.005)
