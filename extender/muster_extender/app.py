"""The HTTP face: POST /filter and /prioritize as kube-scheduler sends them; GET /metrics, /healthz and /readyz elsewhere.

Raw routes: `wire` decodes and encodes the bodies, since models would cost milliseconds on 5,000 nodes. A body that is not JSON
gets 400, one over the limit 413, one of unknown length 411; each ends the connection, so that the rest of it is not read.
JSON of the wrong shape, and an internal failure, get 200: with `Error` from filter (it fails one scheduling cycle and says
why), with an empty list from prioritize (it leaves the choice to kube-scheduler).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from muster.allocation.view import ClusterView
from muster_extender import wire
from muster_extender.guard import Asker, Guard, Undecided
from muster_extender.metrics import CONTENT_TYPE, Metrics
from muster_extender.turns import InTurn, Turn, Turns, address_of, at_once
from muster_extender.wire import ExtenderArgs

log: Final = logging.getLogger(__name__)

BODY_LIMIT: Final = 2 << 20
"""Bytes: a pod has at most 1.5 MB, the names of 5,000 nodes 160 kB."""
BODY_SECONDS: Final = 10.0


class Answer(NamedTuple):
    """A body for kube-scheduler and the outcome to count."""

    body: bytes
    outcome: str


Verb = Callable[[ExtenderArgs, Turn], Awaitable[Answer]]
Fallback = Callable[[str], bytes]


class Unreadable(Exception):
    """The request cannot be read; an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def asking_app(guard: Guard, metrics: Metrics, asker: Asker = Asker.OWN, *, body_limit: int = BODY_LIMIT) -> FastAPI:
    """Return the ASGI application that kube-schedulers ask; `body_limit` in bytes. Over the Service each is asked in turn."""

    async def filter_verb(args: ExtenderArgs, turn: Turn) -> Answer:
        verdict = await guard.filter(args, asker, turn)
        body = wire.filter_result(verdict.passed, verdict.failed, verdict.unresolvable)
        return Answer(body, f"{verdict.rule}-{'passed' if verdict.passed else 'refused'}")

    async def prioritize_verb(args: ExtenderArgs, _: Turn) -> Answer:
        return Answer(wire.priorities(guard.prioritize(args)), "scored")

    turns = Turns() if asker is Asker.SERVICE else None
    nothing: Fallback = lambda _: wire.priorities([])  # noqa: E731
    app = _app()
    for name, verb, fallback in (("filter", filter_verb, wire.filter_error), ("prioritize", prioritize_verb, nothing)):
        app.add_route(f"/{name}", _route(name, verb, fallback, metrics, body_limit, turns), methods=["POST"])
    if turns is not None:
        app.add_middleware(InTurn, turns)
    return app


def status_app(view: ClusterView, metrics: Metrics) -> FastAPI:
    """Return the ASGI application of probes and Prometheus."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if view.synced:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("nodes, pods and jobs have not all been read from the API server yet\n", 503)

    async def scrape(_: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    app = _app()
    for path, endpoint in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", scrape)):
        app.add_route(path, endpoint, methods=["GET"])
    return app


def _app() -> FastAPI:
    return FastAPI(title="muster extender", docs_url=None, redoc_url=None, openapi_url=None)


def _route(
    name: str, verb: Verb, fallback: Fallback, metrics: Metrics, limit: int, turns: Turns | None
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        turn = partial(turns.take, address_of(request.scope)) if turns is not None else at_once
        try:
            body = await _body(request, limit)
            await turn()
            began = time.perf_counter()
            answer = await _answered(body, verb, turn, fallback)
        except Unreadable as error:
            metrics.requests.labels(name, "unreadable").inc()
            return PlainTextResponse(f"{error}\n", error.status, {"Connection": "close"})
        metrics.seconds.labels(name).observe(time.perf_counter() - began)
        metrics.requests.labels(name, answer.outcome).inc()
        return Response(answer.body, media_type="application/json")

    return endpoint


async def _answered(body: bytes, verb: Verb, turn: Turn, fallback: Fallback) -> Answer:
    try:
        return await verb(wire.decode(body), turn)
    except wire.NoJson as error:
        raise Unreadable(400, str(error)) from error
    except wire.WrongShape as error:
        return Answer(fallback(str(error)), "malformed")
    except Undecided as error:
        return Answer(fallback(str(error)), error.outcome)
    except Exception as error:
        log.exception("a request of kube-scheduler failed")
        return Answer(fallback(f"the extender failed: {type(error).__name__}: {error}"), "failed")


async def _body(request: Request, limit: int) -> bytes:
    """Read the body; raise Unreadable if it is too long, too slow, or breaks off. The server reads no more than its length."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise Unreadable(411, "the body's length is not known: send Content-Length, as kube-scheduler does")
    if len(length) > 20 or int(length) > limit:
        raise Unreadable(413, f"the body is longer than {limit} bytes; set nodeCacheCapable: true, so that names are sent")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except TimeoutError:
        raise Unreadable(408, f"the body did not arrive within {BODY_SECONDS:.0f} seconds") from None
    except ClientDisconnect:
        raise Unreadable(400, "the body broke off") from None
