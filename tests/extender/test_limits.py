"""What one client does with its connections leaves the others alone."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from builders.streams import KUBE_SCHEDULER, Connect, answered, ended
from muster_extender.connections import Limits

if TYPE_CHECKING:
    from extender.conftest import Patches, Serving, World

# How many


async def test_one_address_displaces_only_its_own_connections(
    world: World, patches: Patches, serve: Serving, connect: Connect
) -> None:
    world.node("n1")
    world.sync()
    async with serve(world, patches, limits=Limits(connections=4)) as extender:
        scheduler = await connect(extender, KUBE_SCHEDULER)
        pod = world.pending("job", 8)
        assert (await answered(scheduler, pod, "n1"))["NodeNames"] == ["n1"]
        strangers = [await connect(extender) for _ in range(20)]
        for reader, _ in strangers[:17]:
            assert await ended(reader) == b""
        assert (await answered(scheduler, pod, "n1"))["NodeNames"] == ["n1"]
        assert (await answered(await connect(extender, KUBE_SCHEDULER), pod, "n1"))["NodeNames"] == ["n1"]
        assert set(extender.closed) == {"room"}


# How long


@pytest.mark.parametrize("begun", [b"", b"POST /filter HT", b"POST /filter HTTP/1.1\r\nContent-Length: 5\r\nX-A: "])
async def test_request_that_does_not_come_ends_the_connection(
    world: World, patches: Patches, serve: Serving, connect: Connect, begun: bytes
) -> None:
    async with serve(world, patches, limits=Limits(header_seconds=0.05)) as extender:
        reader, writer = await connect(extender)
        writer.write(begun)
        assert await ended(reader) == b""
        assert extender.closed == ["slow-header"]


async def test_second_request_must_come_in_time_as_well(
    world: World, patches: Patches, serve: Serving, connect: Connect
) -> None:
    world.node("n1")
    world.sync()
    async with serve(world, patches, limits=Limits(header_seconds=0.3)) as extender:
        stream = await connect(extender)
        await answered(stream, world.pending("job", 8), "n1")
        stream[1].write(b"P")
        assert await ended(stream[0]) == b""
        assert extender.closed == ["slow-header"]


async def test_body_that_does_not_come_ends_the_connection(
    world: World, patches: Patches, serve: Serving, connect: Connect
) -> None:
    async with serve(world, patches, limits=Limits(answer_seconds=0.05)) as extender:
        reader, writer = await connect(extender)
        writer.write(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert await ended(reader) == b""
        assert extender.closed == ["slow-request"]


async def test_idle_connection_ends(world: World, patches: Patches, serve: Serving, connect: Connect) -> None:
    world.node("n1")
    world.sync()
    async with serve(world, patches, limits=Limits(idle_seconds=0)) as extender:
        stream = await connect(extender)
        await answered(stream, world.pending("job", 8), "n1")
        assert await ended(stream[0]) == b""
        assert extender.closed == ["idle"]


# How much


@pytest.mark.parametrize("pieces", [1, 40])
async def test_long_headers_end_the_connection(
    world: World, patches: Patches, serve: Serving, connect: Connect, pieces: int
) -> None:
    async with serve(world, patches) as extender:
        reader, writer = await connect(extender)
        writer.write(b"POST /filter HTTP/1.1\r\nX-A: ")
        with suppress(ConnectionError):
            for _ in range(pieces):
                writer.write(b"a" * (40_000 // pieces))
                await writer.drain()
            writer.write(b"\r\n\r\n")
        assert not (await ended(reader)).startswith(b"HTTP/1.1 2")
        assert extender.closed == ["long-header"]


async def test_rest_of_a_refused_body_is_not_read(world: World, patches: Patches, serve: Serving, connect: Connect) -> None:
    async with serve(world, patches) as extender:
        reader, writer = await connect(extender)
        writer.write(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n")
        answer = await ended(reader)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()


async def test_websocket_is_not_taken_up(world: World, patches: Patches, serve: Serving, connect: Connect) -> None:
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13"
    )
    async with serve(world, patches, limits=Limits(header_seconds=0.3, idle_seconds=0)) as extender:
        reader, writer = await connect(extender)
        writer.write(b"GET /filter HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n\r\n")
        assert b" 101 " not in await ended(reader)
