"""The HTTP servers of a process: they begin and end together."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn

from muster_extender.connections import Config, LimitedProtocol
from muster_extender.handshakes import SecureListener


class _Server(uvicorn.Server):
    """uvicorn with TLS by `SecureListener`, which leaves the signals to the process: it would end by the signal, not with 0."""

    config: Config

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        if self.config.certificates is None:
            await super().startup(sockets)
            return
        state: dict[str, Any] = {}
        protocol = partial(LimitedProtocol, self.config, self.server_state, state)
        listeners: Any = [SecureListener(each, protocol, self.config, self.config.certificates) for each in sockets or ()]
        self.servers = listeners
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Servers:
    """One uvicorn for each listener."""

    def __init__(self) -> None:
        self._servers: list[tuple[_Server, socket.socket]] = []

    def add(self, listening: socket.socket, config: Config) -> None:
        """Serve a socket as `config` says."""
        self._servers.append((_Server(config), listening))

    async def run(self) -> None:
        """Serve until `end`, and until the requests in flight are answered."""
        await asyncio.gather(*(server.serve([listening]) for server, listening in self._servers))

    def end(self) -> None:
        """Have all servers end."""
        for server, _ in self._servers:
            server.should_exit = True
