"""/metrics, /healthz and /readyz. A standby is ready, since it can take over."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


class Endpoints:
    """The operator's HTTP server; `waits_for` returns what readiness waits for ("" if nothing), and may be replaced."""

    def __init__(self, host: str, port: int) -> None:
        self.waits_for: Callable[[], str] = lambda: "starting"
        self._where = host, port
        app = web.Application()
        app.add_routes([web.get("/metrics", _metrics), web.get("/healthz", _healthy), web.get("/readyz", self._ready)])
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> Endpoints:
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._where).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _ready(self, _: web.Request) -> web.Response:
        missing = self.waits_for()
        return web.Response(text=missing or "ok", status=503 if missing else 200)


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")
