"""A listener that speaks TLS: handshakes have the limits of connections, since a client need not have sent a byte for one.

Neither asyncio's servers nor uvicorn's bound how many handshakes are in progress, and each has buffers of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from muster_extender.certificates import Certificates
from muster_extender.connections import Config, displaced


class SecureListener:
    """Accept connections, and hand those whose handshake succeeds to a protocol; stands for the server of an event loop."""

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol], config: Config, certificates: Certificates
    ) -> None:
        """Begin to accept; in a running event loop."""
        listening.setblocking(False)
        self._listening, self._protocol, self._config, self._certificates = listening, protocol, config, certificates
        self._handshakes: dict[asyncio.Task[None], str] = {}
        """Those in progress, oldest first, with the clients' addresses."""
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Accept no more, and give up the handshakes in progress."""
        for task in (self._accepting, *self._handshakes):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until all of that has ended."""
        await asyncio.gather(self._accepting, *self._handshakes, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listening)
            except OSError:  # the client has gone, or there are no file descriptors at the moment
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._shake_hands(connection))
            self._handshakes[task] = str(address[0])
            task.add_done_callback(self._handshakes.pop)
            if len(self._handshakes) > self._config.limits.connections:
                displaced([(address, task) for task, address in self._handshakes.items()]).cancel()

    async def _shake_hands(self, connection: socket.socket) -> None:
        loop, context = asyncio.get_running_loop(), self._certificates.context()
        with contextlib.ExitStack() as undo:
            undo.callback(self._config.closed, "handshake")
            undo.callback(connection.close)
            with contextlib.suppress(OSError):  # ssl.SSLError is one
                await loop.connect_accepted_socket(
                    self._protocol, connection, ssl=context, ssl_handshake_timeout=self._config.limits.header_seconds
                )
                undo.pop_all()
