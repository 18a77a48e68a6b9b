"""The HTTP servers of a process: they begin and end together."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn


class _Server(uvicorn.Server):
    """uvicorn that leaves the signals to the process: it would end it by the signal, not with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Servers:
    """One uvicorn for each listener."""

    def __init__(self) -> None:
        self._servers: list[tuple[_Server, socket.socket]] = []

    def add(self, listening: socket.socket, config: uvicorn.Config) -> None:
        """Serve a socket as `config` says."""
        self._servers.append((_Server(config), listening))

    async def run(self) -> None:
        """Serve until `end`, and until the requests in flight are answered."""
        await asyncio.gather(*(server.serve([listening]) for server, listening in self._servers))

    def end(self) -> None:
        """Have all servers end."""
        for server, _ in self._servers:
            server.should_exit = True
