"""The process: what it needs to start, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start an extender with these arguments."""
    running: list[Process] = []

    async def run(*arguments: str) -> Process:
        command = [sys.executable, "-m", "muster_extender", *arguments]
        running.append(await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stderr=PIPE))
        return running[-1]

    yield run
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    """The kubeconfig of an API server that serves lists of nothing and refuses the watches that follow."""

    async def serve(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return web.json_response({"code": 500, "reason": "InternalError", "message": "no watches today"}, status=500)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    yield tmp_path / "config"
    await runner.cleanup()


async def address(process: Process, listener: str) -> str:
    """Read on in the log until it says where a listener is."""
    assert process.stderr is not None
    said = f"{listener}: listening on "
    async with asyncio.timeout(60):
        async for line in process.stderr:
            if said in line.decode():
                return "http://" + line.decode().split(said)[1].strip()
    raise AssertionError("the extender ended")


async def ready(url: str) -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(60):
        while True:
            async with http.get(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_cleanly_on_a_signal(start: Start, kubeconfig: Path, number: signal.Signals) -> None:
    process = await start(f"--kubeconfig={kubeconfig}", "--port=0", "--metrics-port=0")
    await ready(await address(process, "status"))
    process.send_signal(number)
    _, errors = await process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in errors


@pytest.mark.parametrize("flag", ["port", "metrics-port"])
async def test_taken_port_is_named(start: Start, kubeconfig: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start(f"--kubeconfig={kubeconfig}", "--port=0", "--metrics-port=0", f"--{flag}={port}")
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().startswith(f"muster-extender: cannot listen on 127.0.0.1:{port}: Address already in use")


async def test_missing_kubeconfig_is_named(start: Start, tmp_path: Path) -> None:
    process = await start(f"--kubeconfig={tmp_path}/none", "--port=0", "--metrics-port=0")
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert f"muster-extender: no kubeconfig at {tmp_path}/none" in errors.decode()


async def test_missing_certificates_are_named(start: Start, kubeconfig: Path, tmp_path: Path) -> None:
    ports = ("--port=0", "--metrics-port=0", "--service-port=0")
    process = await start(f"--kubeconfig={kubeconfig}", *ports, f"--service-tls={tmp_path}/none")
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert f"muster-extender: cannot use tls.crt, tls.key and ca.crt in {tmp_path}/none" in errors.decode()
