"""One leads: whatever the API server and the clocks do, never two at a time, and always one again after a while."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from builders.api_server import ApiServer, failure, serving
from builders.dljobs import Json
from muster.kube import paths
from muster.kube.access import Access
from muster.kube.backoff import Backoff
from muster.kube.client import Client
from muster.kube.errors import LeaseLost
from muster.kube.lease import Lease, Terms

if TYPE_CHECKING:
    from kube.conftest import Until

PATH = paths.leases("muster-system", "operator")
SHORT = Terms(duration=1, renew=0.6, retry=0.02)


@dataclass
class Court:
    """A server and those who want its one lease."""

    server: ApiServer
    clients: list[Client] = field(default_factory=list)

    def contender(self, name: str, terms: Terms = SHORT, clock: Any = time.monotonic) -> Lease:
        """Return a contender with a connection of its own."""
        client = Client(Access(self.server.url), backoff=Backoff(base=0.001, cap=0.01))
        self.clients.append(client)
        return Lease(client, "muster-system", "operator", name, terms, clock)

    @property
    def holder(self) -> str | None:
        found = self.server.objects.get(PATH)
        return found["spec"]["holderIdentity"] if found else None


@pytest.fixture
async def court() -> AsyncIterator[Court]:
    async with serving() as server:
        found = Court(server)
        yield found
        for client in found.clients:
            await client.close()


class Unanswering(Client):
    """A connection to nowhere: requests are never answered."""

    def __init__(self) -> None:
        pass

    async def get(self, path: str, **query: str | int | bool | None) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError(path, query)


@asynccontextmanager
async def kept(lease: Lease) -> AsyncIterator[asyncio.Task[None]]:
    """Hold a lease and go on renewing it."""
    await lease.acquire()
    task = asyncio.create_task(lease.keep())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_first_candidate_leads_and_the_second_waits(court: Court) -> None:
    async with kept(court.contender("a")):
        second = asyncio.create_task(court.contender("b").acquire())
        await asyncio.wait({second}, timeout=2.5 * SHORT.duration)
        assert not second.done()
        assert court.holder == "a"
        second.cancel()


async def test_lease_that_is_handed_back_is_taken_at_once(court: Court) -> None:
    """For the second no time passes: it would never come to the end of a lease that was not handed back."""
    first, second = court.contender("a", Terms()), court.contender("b", Terms(retry=0.02), clock=lambda: 0.0)
    async with kept(first):
        waiting = asyncio.create_task(second.acquire())
        await asyncio.wait({waiting}, timeout=0.2)
        assert not waiting.done()
    await first.release()
    await waiting
    assert court.holder == "b"
    assert court.server.objects[PATH]["spec"]["leaseTransitions"] == 2


async def test_lease_of_a_dead_holder_is_taken_after_its_time(court: Court) -> None:
    first = court.contender("a")
    await first.acquire()
    died = time.monotonic()
    await court.contender("b", Terms(duration=60, retry=0.02)).acquire()
    assert time.monotonic() - died >= 0.95 * SHORT.duration, "as long as its holder said that it counts"


async def test_holder_that_cannot_renew_stops_before_another_begins(court: Court) -> None:
    refused = [False]
    court.server.refusals.append(
        lambda method, _path, body: (
            failure(500, "no disk") if refused[0] and method == "PUT" and body["spec"]["holderIdentity"] == "a" else None
        )
    )
    async with kept(court.contender("a")) as keeping:
        second = asyncio.create_task(court.contender("b").acquire())
        refused[0] = True
        with pytest.raises(LeaseLost, match=r"could not be renewed for 0\.6 s: .*no disk"):
            await keeping
        assert not second.done()
        assert court.holder == "a"
        await second


async def test_holder_that_slept_too_long_does_not_go_on(court: Court) -> None:
    skew = [0.0]
    first = court.contender("a", clock=lambda: time.monotonic() + skew[0])
    async with kept(first) as keeping:
        skew[0] = 3600.0
        with pytest.raises(LeaseLost, match="held up"):
            await keeping


async def test_holder_learns_that_another_has_taken_it(court: Court) -> None:
    async with kept(court.contender("a")) as keeping:
        taken = {**court.server.objects[PATH]["spec"], "holderIdentity": "b"}
        court.server.put(paths.leases("muster-system"), {**court.server.objects[PATH], "spec": taken})
        with pytest.raises(LeaseLost, match="b has taken the lease muster-system/operator"):
            await keeping


async def test_lease_permits_writes_while_it_is_held_and_renewed(court: Court) -> None:
    skew = [0.0]
    first = court.contender("a", Terms(), clock=lambda: time.monotonic() + skew[0])
    with pytest.raises(LeaseLost, match="a does not hold the lease muster-system/operator"):
        first.check()
    await first.acquire()
    first.check()
    skew[0] = Terms().renew - 1
    first.check()
    skew[0] = Terms().renew
    with pytest.raises(LeaseLost, match="could not be renewed for 7 s: the process was held up"):
        first.check()
    async with kept(first):
        first.check()
    await first.release()
    with pytest.raises(LeaseLost):
        first.check()


async def test_holder_that_was_stopped_may_not_write_before_it_knows_its_successor(court: Court) -> None:
    """What it read last says that it leads; its successor leads already, and nobody's clock was compared."""
    stopped = [0.0]
    first = court.contender("a", clock=lambda: time.monotonic() + stopped[0])
    await first.acquire()
    await court.contender("b").acquire()
    stopped[0] = SHORT.renew  # no less than the other waited
    with pytest.raises(LeaseLost):
        first.check()


async def test_lease_that_is_deleted_stays_with_its_holder(court: Court, until: Until) -> None:
    async with kept(court.contender("a")):
        second = asyncio.create_task(court.contender("b").acquire())
        await until(lambda: any(method == "PUT" for method, _, _ in court.server.asked))
        court.server.drop(PATH)
        await until(lambda: PATH in court.server.objects)
        assert court.holder == "a"
        assert not second.done()
        second.cancel()


async def test_forbidden_lease_is_reported_and_tried_again(court: Court, until: Until) -> None:
    court.server.refuse("POST", "leases", 403, "leases is forbidden", times=3, reason="Forbidden")
    lease = court.contender("a")
    waiting = asyncio.create_task(lease.acquire())
    await until(lambda: "leases is forbidden" in lease.trouble)
    await waiting
    assert (court.holder, lease.trouble) == ("a", "")


async def test_release_of_a_lease_of_another_holder_does_nothing(court: Court) -> None:
    async with kept(court.contender("a")):
        other = court.contender("b")
        waiting = asyncio.create_task(other.acquire())
        await asyncio.wait({waiting}, timeout=0.1)
        waiting.cancel()
        await other.release()
        assert court.holder == "a"


async def test_there_are_never_two_holders(court: Court) -> None:
    """Four contend while requests fail, writes after they took effect too; holders die, resign, or are cut off."""
    dice = random.Random(20180626)
    court.server.refusals.append(lambda *_: failure(503, "busy") if dice.random() < 0.1 else None)
    held: list[tuple[float, float]] = []
    well = court.server._replace

    def forgetful(path: str, body: Json) -> web.Response:
        answer = well(path, body)
        return failure(504, "the write took effect, its answer is lost") if dice.random() < 0.1 else answer

    court.server._replace = forgetful  # type: ignore[method-assign]
    ends = time.monotonic() + 5

    async def contend(name: int) -> None:
        while time.monotonic() < ends:
            lease = court.contender(f"{name}-{len(court.clients)}")
            await lease.acquire()
            begun, keeping = time.monotonic(), asyncio.create_task(lease.keep())
            await asyncio.wait({keeping}, timeout=dice.uniform(0.0, 0.8))
            if dice.random() < 0.4:
                lease._client = Unanswering()
                await asyncio.wait({keeping}, timeout=30)
            held.append((begun, time.monotonic()))
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            if dice.random() < 0.5 and not isinstance(lease._client, Unanswering):
                await lease.release()

    contenders = [asyncio.create_task(contend(number)) for number in range(4)]
    await asyncio.wait(contenders, timeout=60)
    assert all(task.done() and task.exception() is None for task in contenders)
    spells = sorted(held)
    assert len(spells) > 4
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spells)), spells


@pytest.mark.cluster
async def test_real_server_takes_each_write(cluster: Any) -> None:
    async with await Client.connect(str(cluster.kubeconfig)) as client:
        namespace = f"lease-{uuid.uuid4().hex[:8]}"
        await client.create(paths.namespaces(), {"metadata": {"name": namespace}})
        first, second = (Lease(client, namespace, "operator", name, SHORT) for name in ("a", "b"))
        async with kept(first):
            waiting = asyncio.create_task(second.acquire())
            await asyncio.wait({waiting}, timeout=1.5 * SHORT.duration)
            assert (waiting.done(), first.trouble, second.trouble) == (False, "", "")
        await first.release()
        await waiting
        await client.delete(paths.namespaces(namespace))
