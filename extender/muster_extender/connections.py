"""The connections of one listener: how many there are, how long a request may take, how large its headers may be.

uvicorn limits neither the time until a request is there nor the headers, and answers 503 to everybody once there are many
connections. Here the address with the most connections loses its oldest one to a newcomer: a stranger who opens thousands
displaces their own, and kube-scheduler or a probe always gets in.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from muster_extender.certificates import Certificates

_numbers: Final = itertools.count()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener takes; seconds and bytes."""

    connections: int = 32
    header_bytes: int = 16 << 10
    header_seconds: float = 5.0
    """From the start of a connection or a request until its headers are complete."""
    answer_seconds: float = 20.0
    """From there until the answer is written; reading a body and waiting for a pod have limits of their own."""
    idle_seconds: int = 120
    """Longer than Go keeps idle connections (90 s), since Go does not repeat a POST that met a closing one."""


class Config(uvicorn.Config):
    """uvicorn's settings for one listener."""

    def __init__(
        self, app: FastAPI, limits: Limits, closed: Callable[[str], None], certificates: Certificates | None = None
    ) -> None:
        """`closed` is told why a connection was closed."""
        super().__init__(
            app,
            http=LimitedProtocol,
            ws="none",  # an upgraded connection would leave the limits behind
            access_log=False,
            log_config=None,
            log_level="error",  # a line for each bad request would fill the log
            lifespan="off",
            proxy_headers=False,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=5,
        )
        self.limits, self.closed, self.certificates = limits, closed, certificates


class LimitedProtocol(HttpToolsProtocol):
    """One connection within the limits of its listener."""

    config: Config

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection and make room for it."""
        self._number = next(_numbers)
        self._header_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._limits = self.config.limits
        super().connection_made(cast("asyncio.Transport", transport))
        self._make_room()
        self._expect_end("slow-header", self._limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._settle()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; end the connection if the headers grow too long."""
        if self._deadline is None:
            self._expect_end("slow-header", self._limits.header_seconds)
        if not self._answering:
            self._header_bytes += len(data)
        super().data_received(data)
        if not self._answering and self._header_bytes > self._limits.header_bytes and not self.transport.is_closing():
            self._end("long-header")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take in the target of the request."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the answer, whose time is limited as well."""
        self._expect_end("slow-request", self._limits.answer_seconds)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Await the next request; an answer that ends the connection must still be taken within its time."""
        self._header_bytes = 0
        if not self.transport.is_closing() and not self.pipeline:
            self._settle()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, even if the last answer was not taken."""
        self._end("idle")

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.header_bytes:
            self.config.closed("long-header")
            raise ValueError("the headers are too long")  # the parser gives up, and uvicorn answers 400

    def _expect_end(self, reason: str, seconds: float) -> None:
        self._settle()
        self._deadline = self.loop.call_later(seconds, self._end, reason)

    def _settle(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self, reason: str) -> None:
        """Close the connection at once, without waiting until what was written is taken."""
        self._settle()
        if self in self.connections:
            self.connections.discard(self)
            self.config.closed(reason)
        self.transport.abort()

    def _make_room(self) -> None:
        """End the oldest connection of the address that has the most, if there are too many."""
        mine = cast("set[LimitedProtocol]", self.connections)
        if len(mine) <= self._limits.connections:
            return
        by_age = sorted(mine, key=lambda connection: connection._number)
        displaced([(connection._address, connection) for connection in by_age])._end("room")


def displaced(held: Sequence[tuple[str, T]]) -> T:
    """Return what makes room for a newcomer, of addresses and what they have, oldest first."""
    count = Counter(address for address, _ in held)
    most = max(count.values())
    return next(each for address, each in held if count[address] == most)
