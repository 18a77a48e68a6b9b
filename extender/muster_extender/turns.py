"""Whose request is worked on next, where anybody may ask.

One event loop answers all listeners, and who asks decides how much work a request is. So a request over the Service waits for
its turn before each piece of work. There is one turn in each round of the loop, and in the same round the loop takes in what
has come on loopback: however many ask over the Service, a request of muster's own scheduler waits for one piece of work at
most in each of the few rounds that it takes itself.

The turns go round the addresses that ask: who sends many requests delays their own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

Turn = Callable[[], Awaitable[None]]


async def at_once() -> None:
    """Take a turn where nobody else has to wait for it."""


class Turns:
    """The turns of one listener's requests."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By address, that whose turn is next first."""

    async def take(self, address: str) -> None:
        """Wait for a turn of an address: it lasts until the caller waits for anything else."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._next)
        self._waiting.setdefault(address, deque()).append(mine)
        await mine

    def _next(self) -> None:
        address = next(iter(self._waiting))
        requests = self._waiting[address]
        mine = requests.popleft()
        if not mine.done():
            mine.set_result(None)
        asyncio.get_running_loop().call_soon(self._go_on, address)

    def _go_on(self, address: str) -> None:
        """Move an address that has had its turn behind the others, and give the next turn if somebody waits for one."""
        requests = self._waiting.pop(address)
        if requests:
            self._waiting[address] = requests
        if self._waiting:
            self._next()


class InTurn:
    """An ASGI application whose requests begin in turn."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app, self._turns = app, turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request once it is its address's turn."""
        await self._turns.take(address_of(scope))
        await self._app(scope, receive, send)


def address_of(scope: Scope) -> str:
    """Return the address that a request came from."""
    client = scope.get("client")
    return client[0] if client else ""
