"""Leader election: of several operators only the holder of a Lease decides; the others stand by and read nothing but the Lease.

A standby has no stale state when it takes over: it lists the cluster once it leads. A thread with its own loop and connection
keeps the lease, so neither a plan that blocks the operator's loop for seconds nor a queue of writes delays a renewal. A leader
that loses the lease ends at once, wherever it is, before another may begin; what it had begun is in the API server. One that
was stopped, and finds out only afterwards, sends nothing more: its client asks `check` before each write.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from muster.kube.client import Client
from muster.kube.errors import LeaseLost
from muster.kube.lease import Lease, Terms
from muster_operator import metrics

log = logging.getLogger("muster.operator")


class Election:
    """The contest for the lease `where` ("NAMESPACE/NAME"); `lost` is called from its thread, and must not return to work."""

    def __init__(
        self, kubeconfig: str | None, where: str, terms: Terms | None = None, lost: Callable[[], None] | None = None
    ) -> None:
        self._kubeconfig, self._terms, self._lost = kubeconfig, terms, lost or _end
        self._namespace, _, self._name = where.partition("/")
        self._identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"  # a restarted process is another holder
        self._loop = asyncio.new_event_loop()
        self._lease: Lease | None = None
        self._keeping: Future[None] | None = None

    @property
    def trouble(self) -> str:
        """Why this operator cannot stand for election; empty when it can."""
        return self._lease.trouble if self._lease else "not connected yet"

    async def win(self) -> None:
        """Wait until this process leads. Raises NoAccess."""
        metrics.LEADER.set(0)
        threading.Thread(target=self._run, name="election", daemon=True).start()
        self._client = await self._there(Client.connect(self._kubeconfig, connections=1))
        self._lease = Lease(self._client, self._namespace, self._name, self._identity, self._terms)
        log.info("stands by for the lease %s/%s", self._namespace, self._name)
        await self._there(self._lease.acquire())
        self._keeping = asyncio.run_coroutine_threadsafe(self._keep(self._lease), self._loop)
        metrics.LEADER.set(1)

    def check(self) -> None:
        """Raise LeaseLost where this process does not lead: the last thing before a write."""
        if self._lease is None:
            raise LeaseLost("this process does not stand for election yet")
        self._lease.check()

    async def resign(self) -> None:
        """Hand the lease back if it is held; to be called when nothing more is decided."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._lease is not None:
            await self._there(self._leave(self._lease))
        metrics.LEADER.set(0)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _there(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _keep(self, lease: Lease) -> None:
        try:
            await lease.keep()
        except Exception as lost:
            log.critical("leads no longer, and ends: %s", lost, exc_info=None if isinstance(lost, LeaseLost) else lost)
            self._lost()

    async def _leave(self, lease: Lease) -> None:
        await lease.release()
        await self._client.close()


def _end() -> None:
    os._exit(1)  # not sys.exit: nothing in flight may go on
