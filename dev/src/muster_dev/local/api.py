"""The API server for callers without an event loop: muster.kube's client, on an event loop in its own thread.

Tests, demo and command line are plain functions, called from any thread; one loop for all of them keeps the connections.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec

from muster.kube.access import Access
from muster.kube.client import Client, Propagation

Object = Mapping[str, Any]
T = TypeVar("T")


class Api:
    """Requests to one API server as one user: objects in, decoded JSON out. A refusal raises muster.kube's ApiError."""

    def __init__(self, access: Access) -> None:
        """Open a pool of connections; no request is made yet."""
        self._closing = asyncio.Event()
        opened: Future[tuple[asyncio.AbstractEventLoop, Client]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hold(access, opened)), daemon=True)
        self._thread.start()
        self._loop, self._client = opened.result()

    def close(self) -> None:
        """Close all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def get(self, path: str) -> Any:
        """Return the object or list at `path`; raise NotFound if there is none."""
        return self._decoded(self._client.get(path))

    def create(self, path: str, body: Object, *, dry_run: bool = False) -> Any:
        """Create an object in the collection at `path` and return it; with `dry_run` the server only checks it."""
        return self._decoded(self._client.create(path, dict(body), dry_run=dry_run))

    def create_all(self, path: str, bodies: Iterable[Object]) -> None:
        """Create objects in the collection at `path`, as many at once as there are connections."""
        self._wait(self._create_all(path, bodies))

    def patch(self, path: str, body: Object) -> Any:
        """Merge `body` into the object at `path` and return it."""
        return self._decoded(self._client.patch(path, dict(body)))

    def delete(self, path: str, *, propagation: Propagation | None = None, grace_seconds: int | None = None) -> Any:
        """Delete the object at `path` and return the server's answer; with a grace of 0 no kubelet is waited for."""
        return self._decoded(self._client.delete(path, propagation=propagation, grace_seconds=grace_seconds))

    async def _hold(self, access: Access, opened: Future[tuple[asyncio.AbstractEventLoop, Client]]) -> None:
        """Keep the client open until `close` is called."""
        async with Client(access) as client:
            opened.set_result((asyncio.get_running_loop(), client))
            await self._closing.wait()

    async def _create_all(self, path: str, bodies: Iterable[Object]) -> None:
        await asyncio.gather(*(self._client.create(path, dict(body)) for body in bodies))

    def _decoded(self, request: Coroutine[Any, Any, bytes]) -> Any:
        return msgspec.json.decode(self._wait(request))

    def _wait(self, request: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(request, self._loop).result()
