"""The stand-in machine under the real pynvml, and an API server on loopback that keeps Node objects."""

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
    """pynvml remembers functions of the library before."""
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield
    assert pynvml.nvmlLib is None
    pynvml._nvmlGetFunctionPointer_cache.clear()


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    return tmp_path / "sys"


@pytest.fixture
def install(sysfs: Path) -> Iterator[Install]:
    """Put a machine (by name, or laid out) under pynvml and its tree into `sysfs`."""
    with ExitStack() as stack:

        def put(which: str | Hardware) -> Library:
            hardware = which if isinstance(which, Hardware) else lay_out(machine(which), "n1")
            write_tree(sysfs, hardware)
            return stack.enter_context(installed(Library(hardware)))

        yield put


def override(library: Library, **functions: Callable[..., int]) -> None:
    """Let C functions of the stand-in do something else from now on."""
    vars(library).update(functions)
    pynvml._nvmlGetFunctionPointer_cache.clear()


@dataclass
class Nodes:
    """Node objects with what a client did to them; watches get every change."""

    url: str = ""
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    patches: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    gets: list[str] = field(default_factory=list)
    lists: int = 0
    refuse: int = 0
    """How many of the next requests get a 403."""
    refuse_patches: int = 0
    """How many of the next patches get a 403."""
    vanished: set[str] = field(default_factory=set)
    """Nodes that lists still show and that a patch does not find."""
    goodbye: bool = False
    """Answer the next watch with 410 Gone."""
    streams: list[asyncio.Queue[bytes]] = field(default_factory=list)

    def add(self, name: str, machine: str | None = None, **annotations: str) -> None:
        labels = {"muster.dev/machine": machine} if machine else {}
        self.objects[name] = {"metadata": {"name": name, "labels": labels, "annotations": annotations}}
        self._tell("ADDED", self.objects[name])

    def annotation(self, name: str) -> str | None:
        found: str | None = self.objects[name]["metadata"]["annotations"].get("muster.dev/topology")
        return found

    def change(self, name: str, machine: str) -> None:
        self.objects[name]["metadata"]["labels"]["muster.dev/machine"] = machine
        self._tell("MODIFIED", self.objects[name])

    def _tell(self, kind: str, node: dict[str, Any]) -> None:
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
        self._tell("MODIFIED", self.objects[name])
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
        if self.goodbye:
            self.goodbye = False
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
    """Wait for something that another task brings about; the deadline only ends a broken test."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (what it waits for is seen from outside only)
            await asyncio.sleep(0.005)
