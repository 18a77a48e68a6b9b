"""Connections to the extender byte by byte, from the addresses of a kube-scheduler and of a stranger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[..., Awaitable[Stream]]
KUBE_SCHEDULER, STRANGER = "127.0.0.1", "127.0.0.2"


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return all that comes until the connection ends, by a reset too."""
    received = b""
    async with asyncio.timeout(60):
        try:
            while chunk := await reader.read(1 << 16):
                received += chunk
        except ConnectionResetError:
            pass
    return received


async def answered(stream: Stream, pod: Any, *nodes: str) -> Any:
    """Ask filter on a connection that stays open."""
    reader, writer = stream
    body = json.dumps({"Pod": pod, "NodeNames": list(nodes)}).encode()
    writer.write(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    (length,) = (line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return json.loads(await reader.readexactly(int(length)))
