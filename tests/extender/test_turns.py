"""Whoever asks over the Service, and how often: muster's own scheduler and each other address are answered in their turn."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from builders.streams import KUBE_SCHEDULER, STRANGER, Connect, Stream
from muster_extender import wire
from muster_extender.connections import LimitedProtocol
from muster_extender.guard import Asker
from muster_extender.turns import Turns

if TYPE_CHECKING:
    from extender.conftest import Json, Patches, Serving, World

STRANGERS = 30
OTHER = "127.0.0.3"


def request(pod: Json, *nodes: str) -> bytes:
    body = json.dumps({"Pod": pod, "NodeNames": list(nodes)}).encode()
    return b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def answer(stream: Stream) -> Any:
    head = await stream[0].readuntil(b"\r\n\r\n")
    (length,) = (line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return json.loads(await stream[0].readexactly(int(length)))


class Log:
    """What the extender does, in order: bytes that come in, and requests that are decoded, by a word in the request."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        receive, decode = LimitedProtocol.data_received, wire.decode

        def data_received(protocol: LimitedProtocol, data: bytes) -> None:
            self._note("received", data)
            receive(protocol, data)

        def decoded(body: bytes) -> wire.ExtenderArgs:
            self._note("decoded", body)
            return decode(body)

        patch.setattr(LimitedProtocol, "data_received", data_received)
        patch.setattr(wire, "decode", decoded)

    def _note(self, what: str, data: bytes) -> None:
        who = next(word for word in ("honest", "stranger") if word.encode() in data)
        self.done.append(f"{what} {who}")

    def before(self, last: str, since: str, what: str) -> int:
        """Count what was done between two things."""
        return self.done[self.done.index(since) : self.done.index(last)].count(what)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


async def test_own_scheduler_waits_for_few_of_the_requests_that_came_before(
    world: World, patches: Patches, serve: Serving, connect: Connect, log: Log
) -> None:
    world.node("n1")
    world.sync()
    pod = world.pending("honest", 8)
    async with (
        serve(world, patches) as own,
        serve(world, patches, pod_seconds=0.01, asker=Asker.SERVICE) as service,
    ):
        strangers = [await connect(service) for _ in range(STRANGERS)]
        scheduler = await connect(own, KUBE_SCHEDULER)
        for stream in strangers:
            stream[1].write(request(world.pod("stranger", 8), "n1"))
        scheduler[1].write(request(pod, "n1"))
        assert (await answer(scheduler))["NodeNames"] == ["n1"]
        for stream in strangers:
            assert "no pod vision/stranger" in (await answer(stream))["Error"]
    assert log.done.count("decoded stranger") == STRANGERS
    assert log.before("decoded honest", "received honest", "decoded stranger") <= 3


async def test_another_address_waits_for_few_of_the_requests_of_one(
    world: World, patches: Patches, serve: Serving, connect: Connect, log: Log
) -> None:
    world.node("n1")
    world.sync()
    pod = world.pending("honest", 8)
    async with serve(world, patches, pod_seconds=0.01, asker=Asker.SERVICE) as service:
        strangers = [await connect(service, STRANGER) for _ in range(STRANGERS)]
        scheduler = await connect(service, OTHER)
        for stream in strangers:
            stream[1].write(request(world.pod("stranger", 8), "n1"))
        scheduler[1].write(request(pod, "n1"))
        assert (await answer(scheduler))["NodeNames"] == ["n1"]
    assert log.before("decoded honest", "received honest", "decoded stranger") <= 5


async def test_turns_go_round_the_addresses() -> None:
    turns, taken = Turns(), []

    async def take(address: str) -> None:
        await turns.take(address)
        taken.append(address)

    await asyncio.gather(*(take(address) for address in "aaaabbc"))
    assert "".join(taken) == "abcabaa"
    await take("d")
    assert taken[-1] == "d"


async def test_turn_of_a_request_that_was_given_up_is_passed_on() -> None:
    turns = Turns()
    given_up, other = asyncio.create_task(turns.take("a")), asyncio.create_task(turns.take("a"))
    await asyncio.sleep(0)
    given_up.cancel()
    async with asyncio.timeout(30):
        await other


async def test_there_is_one_turn_in_a_round_of_the_loop() -> None:
    turns, taken = Turns(), []

    async def take(number: int) -> None:
        await turns.take(str(number))
        taken.append(number)

    waiting = [asyncio.create_task(take(number)) for number in range(10)]
    before = 0
    while len(taken) < len(waiting):
        await asyncio.sleep(0)
        assert len(taken) <= before + 1
        before = len(taken)
