"""One of several processes leads: a coordination.k8s.io/v1 Lease, taken, renewed and handed back (client-go's leaderelection).

The holder renews the lease; the others wait until it has not changed for its duration. Nobody's clock is compared with
another's: a holder counts from before it asked for its last renewal, the others from when they saw the lease change last. So,
where clocks run equally fast, a holder has stopped at least `duration - renew` seconds before another begins.

Invariant: `keep` ends (`LeaseLost`) no later than `renew` seconds after the last renewal. A process that was stopped meanwhile
cannot end in time; so `check` is asked last before each write (`Client`), and refuses from that moment on.
Unit: seconds.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import Conflict, KubeError, LeaseLost, NotFound

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """A lease counts for `duration` after a renewal; its holder gives up after `renew`; everybody tries each `retry`."""

    duration: int = 10
    renew: float = 7.0
    retry: float = 1.0


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct):
    metadata: _Meta
    spec: _Spec


_decode: Final = msgspec.json.Decoder(_Lease).decode


class Lease:
    """The lease `namespace/name` as `identity` sees it; an identity must never be used by two processes."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        terms: Terms | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trouble = ""
        """Why the lease could not be read or written at the last try; empty when it could."""
        self._client, self._namespace, self._name, self._identity = client, namespace, name, identity
        self._terms, self._clock = terms or Terms(), clock
        self._seen = _Lease(_Meta(), _Spec())
        self._seen_at = self._renewed_at = clock()

    async def acquire(self) -> None:
        """Wait until this identity holds the lease."""
        while not await self._try(self._terms.renew):  # noqa: ASYNC110 (what is waited for happens on the server)
            await asyncio.sleep(min(self._terms.retry, max(0.05, self._free_at() - self._clock())))
        log.info("%s leads: it holds the lease %s/%s", self._identity, self._namespace, self._name)

    async def keep(self) -> None:
        """Renew the lease until that fails for too long, or another has it; then raise LeaseLost. Never returns."""
        while self._left() > 0:
            await asyncio.sleep(min(self._terms.retry, self._left()))
            if not await self._try(self._left()) and not self._mine:
                break
        self.check()

    def check(self) -> None:
        """Raise LeaseLost unless this identity holds the lease and has renewed it in time; safe to call from any thread."""
        if not self._mine:
            holder, lease = self._seen.spec.holder_identity, f"the lease {self._namespace}/{self._name}"
            raise LeaseLost(f"{holder} has taken {lease}" if holder else f"{self._identity} does not hold {lease}")
        if self._left() <= 0:
            cause = self.trouble or "the process was held up"
            raise LeaseLost(f"the lease could not be renewed for {self._terms.renew:g} s: {cause}")

    async def release(self) -> None:
        """Hand the lease back, so that the next holder need not wait; a failure only makes the others wait."""
        if self._seen.spec.holder_identity == self._identity:
            try:
                async with asyncio.timeout(self._terms.retry):
                    await self._write(_Spec(None, 1, None, _now(), self._seen.spec.lease_transitions))
            except (KubeError, TimeoutError) as error:
                log.warning("the lease %s/%s was not handed back: %s", self._namespace, self._name, error)

    async def _try(self, patience: float) -> bool:
        """Take or renew the lease, if that is possible now; return whether it is held."""
        begun, held, trouble = self._clock(), False, ""
        try:
            async with asyncio.timeout(patience):
                await self._look()
                if self._mine or self._free_at() <= self._clock():
                    await self._write(self._wanted())
                    held, self._renewed_at = True, begun
        except Conflict:
            pass  # another process was quicker, or an answer was lost: the next read tells
        except TimeoutError:
            trouble = self.trouble or "no answer"
        except (KubeError, msgspec.MsgspecError) as error:
            trouble = str(error)
        self._say(trouble)
        return held

    async def _look(self) -> None:
        """Read the lease. A deleted lease counts as it was read last: its holder may not know yet."""
        try:
            lease = _decode(await self._client.get(paths.leases(self._namespace, self._name)))
        except NotFound:
            lease = _Lease(_Meta(), self._seen.spec)
        if lease != self._seen:
            self._seen, self._seen_at = lease, self._clock()

    async def _write(self, spec: _Spec) -> None:
        """Replace the lease as it was read last, or create it; raise Conflict if it has changed since."""
        version = self._seen.metadata.resource_version
        meta = {"name": self._name, "namespace": self._namespace} | ({"resourceVersion": version} if version else {})
        head = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
        body: dict[str, Any] = head | {"spec": msgspec.to_builtins(spec)}
        if version:
            answer = await self._client.update(paths.leases(self._namespace, self._name), body)
        else:
            answer = await self._client.create(paths.leases(self._namespace), body)
        self._seen, self._seen_at = _decode(answer), self._clock()

    def _wanted(self) -> _Spec:
        """The lease as its holder would have it from now on."""
        old, now = self._seen.spec, _now()
        since = old.acquire_time if self._mine else now
        turns = (old.lease_transitions or 0) + (not self._mine)
        return _Spec(self._identity, self._terms.duration, since, now, turns)

    @property
    def _mine(self) -> bool:
        return self._seen.spec.holder_identity == self._identity

    def _free_at(self) -> float:
        """When the lease may be taken; its holder wrote how long it counts."""
        if not self._seen.spec.holder_identity:
            return self._seen_at
        return self._seen_at + (self._seen.spec.lease_duration_seconds or self._terms.duration)

    def _left(self) -> float:
        """How long its holder may go on without another renewal."""
        return self._renewed_at + self._terms.renew - self._clock()

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("lease %s/%s: %s; tries again every %g s", self._namespace, self._name, trouble, self._terms.retry)
        self.trouble = trouble


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
