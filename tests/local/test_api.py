"""The API server for callers without an event loop: any thread may send requests, and refusals are errors of muster.kube."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from builders.api_server import ApiServer, serving
from muster.kube.access import Access
from muster.kube.errors import AlreadyExists, NotFound
from muster_dev.local.api import Api

NODES = "/api/v1/nodes"


def node(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with serving() as running:
        yield running


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[Api]:
    opened = Api(Access(server.url))
    yield opened
    await asyncio.to_thread(opened.close)


async def test_object_is_created_read_patched_and_deleted(api: Api) -> None:
    def session() -> tuple[Any, Any]:
        api.create(NODES, node("a"))
        api.patch(f"{NODES}/a", {"metadata": {"labels": {"rack": "r1"}}})
        labels = api.get(f"{NODES}/a")["metadata"]["labels"]
        return labels, api.delete(f"{NODES}/a")

    labels, _ = await asyncio.to_thread(session)
    assert labels == {"rack": "r1"}
    with pytest.raises(NotFound):
        await asyncio.to_thread(api.get, f"{NODES}/a")


async def test_dry_run_creates_nothing(api: Api, server: ApiServer) -> None:
    await asyncio.to_thread(lambda: api.create(NODES, node("a"), dry_run=True))
    assert server.of("nodes") == []


async def test_refusal_of_one_of_many_objects_is_raised(api: Api) -> None:
    with pytest.raises(AlreadyExists, match='"a" already exists'):
        await asyncio.to_thread(api.create_all, NODES, [node("a"), node("b"), node("a")])


async def test_requests_of_many_threads_are_sent(api: Api, server: ApiServer) -> None:
    def ask_from_threads() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: api.create(NODES, node(f"n{number}")), range(40)))

    await asyncio.to_thread(ask_from_threads)
    assert len(server.of("nodes")) == 40


def test_closing_ends_the_thread() -> None:
    before = set(threading.enumerate())
    api = Api(Access("http://127.0.0.1:9"))
    (thread,) = set(threading.enumerate()) - before
    api.close()
    assert not thread.is_alive()
