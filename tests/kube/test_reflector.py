"""Whatever the API server does, the store ends equal to the truth."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from muster.kube.backoff import Backoff
from muster.kube.reflector import Reflector
from muster.kube.store import Store

if TYPE_CHECKING:
    from kube.conftest import ApiServer, Until
    from muster.kube.client import Client

PATH = "/apis/test/v1/things"


class Meta(msgspec.Struct, rename="camel"):
    name: str
    uid: str
    resource_version: str
    namespace: str | None = None


class Item(msgspec.Struct):
    metadata: Meta
    value: int


class Mirror:
    """A reflector at work, with quick retries, and what its listeners heard."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.store: Store[Item] = Store()
        self.heard: list[tuple[int | None, int | None]] = []
        self.store.subscribe(self._hear)
        options = {"backoff": Backoff(base=0.001, cap=2.0), "first_page": 10, **options}
        self.reflector = Reflector(client, PATH, msgspec.json.Decoder(Item).decode, self.store, **options)
        self.task = asyncio.create_task(self.reflector.run())

    def _hear(self, old: Item | None, new: Item | None) -> None:
        self.heard.append((old.value if old else None, new.value if new else None))

    def held(self) -> dict[str, int]:
        return {obj.metadata.name: obj.value for obj in self.store.values()}

    def equals(self, server: ApiServer) -> bool:
        return self.store.synced.is_set() and self.held() == server.truth()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def mirrors() -> AsyncIterator[list[Mirror]]:
    running: list[Mirror] = []
    yield running
    for mirror in running:
        await mirror.stop()


@pytest.fixture
def reflect(client: Client, mirrors: list[Mirror]) -> Any:
    def start(**options: Any) -> Mirror:
        mirrors.append(Mirror(client, **options))
        return mirrors[-1]

    return start


async def test_reflector_lists_then_watches(server: ApiServer, until: Until, reflect: Any) -> None:
    for number in range(25):
        server.put(f"t{number}", number)
    mirror = reflect()
    await until(lambda: mirror.equals(server))
    assert [("limit" in r.query, "continue" in r.query) for r in server.asked[:2]] == [(True, False), (True, True)]
    server.put("t3", 33)
    server.put("new", 1)
    server.delete("t4")
    await until(lambda: mirror.equals(server))
    assert mirror.heard[-3:] == [(3, 33), (None, 1), (4, None)]
    assert (mirror.reflector.lists, mirror.reflector.errors) == (1, 0)


FAULTS_OF_WATCH = {
    "410 status": lambda s: [s.answers(410, "Expired")],
    "410 frame": lambda s: [s.streams(s.error_line(410))],
    "500 status": lambda s: [s.answers(500)] * 2,
    "503 status": lambda s: [s.answers(503)] * 2,
    "429 frame": lambda s: [s.streams(s.error_line(429))],
    "clean end": lambda s: [s.streams()] * 3,
    "cut before a line": lambda s: [s.streams(then="cut")],
    "cut in a line": lambda s: [s.streams(s.next_line_half, then="cut")],
    "end in a line": lambda s: [s.streams(s.next_line_half)],
    "silence": lambda s: [s.streams(then="hang")],
    "bookmarks, then silence": lambda s: [s.streams(s.old_bookmark, then="hang")],
    "no JSON": lambda s: [s.streams(b"<html>\n")],
    "no JSON, again and again": lambda s: [s.streams(b'{"type": "ADDED", "obj\n')] * 7,
    "no event": lambda s: [s.streams(b'{"type": "ADDED"}\n')],
    "event without metadata": lambda s: [s.streams(b'{"type": "DELETED", "object": {}}\n')],
    "version that is no number": lambda s: [s.streams(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"x"}}}\n')],
    "400 for ever": lambda s: [s.answers(400)] * 7,
}


class Scripts:
    """The lines that watches of this file misbehave with."""

    def __init__(self, server: ApiServer) -> None:
        self.answers, self.streams, self._server = server.answers, server.streams, server
        self._first = server.bookmark()

    def error_line(self, code: int) -> bytes:
        status = {"kind": "Status", "status": "Failure", "code": code, "reason": "Expired", "message": "as the test wants"}
        return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"

    def next_line_half(self) -> bytes:
        return self._server.history[-1][1][:40]

    def old_bookmark(self) -> bytes:
        return self._first


@pytest.mark.parametrize("fault", FAULTS_OF_WATCH)
async def test_failing_watch_loses_nothing(server: ApiServer, until: Until, reflect: Any, fault: str) -> None:
    for number in range(25):
        server.put(f"t{number}", number)
    server.watch_faults.extend(FAULTS_OF_WATCH[fault](Scripts(server)))
    mirror = reflect(silence_seconds=0.2)
    await mirror.store.synced.wait()
    server.put("t1", 100)
    server.delete("t2")
    server.put("new", 7)
    await until(lambda: mirror.equals(server) and not server.watch_faults)
    await until(lambda: server.watching == 1)
    server.delete("new")  # and the watch that follows works
    await until(lambda: mirror.equals(server))
    assert not mirror.task.done()


@pytest.mark.parametrize("code", [410, 429, 500, 503])
async def test_failing_list_is_tried_again(server: ApiServer, until: Until, reflect: Any, code: int) -> None:
    server.put("a", 1)
    server.list_faults.extend([server.answers(code)] * 9)  # more than the client tries by itself
    mirror = reflect()
    await until(lambda: mirror.equals(server))
    assert mirror.reflector.errors >= 1


async def test_list_whose_paging_expires_begins_again_in_pages(server: ApiServer, until: Until, reflect: Any) -> None:
    for number in range(35):
        server.put(f"t{number}", number)
    behave = server._list
    server.list_faults.extend([behave, server.answers(410, "Expired")])
    mirror = reflect()
    await until(lambda: mirror.equals(server))
    assert [(request.query["limit"], "continue" in request.query) for request in server.asked[2:3]] == [("10", False)]
    assert mirror.reflector.lists == 2


async def test_clean_end_resumes_after_the_last_bookmark(server: ApiServer, until: Until, reflect: Any) -> None:
    server.put("a", 1)

    def later_bookmark() -> bytes:
        server.revision = 500
        return server.bookmark()

    server.watch_faults.append(server.streams(later_bookmark))
    mirror = reflect()
    await until(lambda: server.watching == 1)
    assert server.asked[-1].query["resourceVersion"] == "500"
    assert mirror.reflector.lists == 1


async def test_deletion_between_two_watches_is_noticed(server: ApiServer, until: Until, reflect: Any) -> None:
    server.put("stays", 1)
    server.put("goes", 2)
    server.put("reborn", 3)
    mirror = reflect()
    await until(lambda: server.watching == 1)
    server.watch_faults.append(server.streams(then="cut"))
    server.objects.pop("goes")  # behind the watch's back, and the history is gone too
    server.objects.pop("reborn")
    server.revision += 1
    server.objects["reborn"] = {
        "metadata": {"name": "reborn", "uid": "second", "resourceVersion": str(server.revision)},
        "value": 4,
    }
    server.compact()
    mirror.heard.clear()
    for request in server.asked:
        if "watch" in request.query and request.transport is not None:
            request.transport.abort()
    await until(lambda: mirror.equals(server))
    assert sorted(mirror.heard, key=str) == [(2, None), (3, 4)]


async def test_retry_after_is_waited_for(server: ApiServer, until: Until, reflect: Any) -> None:
    asked: list[float] = []

    async def late(request: Any) -> Any:
        asked.append(time.monotonic())
        return await server._watch(request)

    async def busy(request: Any) -> Any:
        asked.append(time.monotonic())
        return await server.answers(429, "TooManyRequests", **{"Retry-After": "1"})(request)

    server.watch_faults.extend([busy, late])
    reflect()
    await until(lambda: len(asked) == 2)
    assert asked[1] - asked[0] >= 1.0


async def test_unreadable_object_is_named_once_and_harms_no_other(
    server: ApiServer, until: Until, reflect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server.put("bad", "no number")
    server.put("good", 1)
    mirror = reflect()
    await until(lambda: mirror.held() == {"good": 1})
    server.put("bad", "still none")
    server.put("good", 2)
    await until(lambda: mirror.held() == {"good": 2})
    assert [record.getMessage() for record in caplog.records if "bad" in record.getMessage()] == [caplog.messages[0]]
    server.put("bad", 5)
    await until(lambda: mirror.equals(server))
    server.put("bad", "no number again")  # the last readable version stays, over a new list too
    server.put("good", 3)
    await until(lambda: mirror.held() == {"good": 3, "bad": 5})
    server.watch_faults.append(server.answers(410))
    for request in server.asked:
        if "watch" in request.query and request.transport is not None:
            request.transport.abort()
    await until(lambda: mirror.reflector.lists == 2 and server.watching == 1)
    assert mirror.held() == {"good": 3, "bad": 5}
    server.delete("bad")
    await until(lambda: mirror.held() == {"good": 3})


async def test_reflector_keeps_what_filter_and_selectors_allow(server: ApiServer, until: Until, reflect: Any) -> None:
    for number in range(4):
        server.put(f"t{number}", number)

    def is_even(thing: Item) -> bool:
        return thing.value % 2 == 0

    mirror = reflect(keep=is_even, label_selector="a=b,c in (d)", field_selector="spec.nodeName=n1")
    await until(lambda: mirror.held() == {"t0": 0, "t2": 2} and server.watching == 1)
    server.put("t0", 1)
    server.put("t3", 8)
    await until(lambda: mirror.held() == {"t2": 2, "t3": 8})
    for request in server.asked:
        assert request.query["labelSelector"] == "a=b,c in (d)"
        assert request.query["fieldSelector"] == "spec.nodeName=n1"


async def test_watch_lines_may_have_any_length(server: ApiServer, until: Until, reflect: Any) -> None:
    mirror = reflect()
    await until(lambda: server.watching == 1)
    big = server.put("big", 1)
    big["noise"] = "x" * 3_000_000
    server.put("big", 2)
    server._record("MODIFIED", {**server.objects["big"], "noise": "y" * 3_000_000})
    server.put("after", 3)
    await until(lambda: mirror.equals(server))


async def test_failing_listener_stops_nothing(server: ApiServer, until: Until, reflect: Any) -> None:
    mirror = reflect()

    def fails(_old: object, _new: object) -> None:
        raise RuntimeError("listener")

    mirror.store.subscribe(fails)
    server.put("a", 1)
    await until(lambda: mirror.equals(server))


@pytest.mark.parametrize(("fault", "lists"), [("410 frame", 2), ("429 frame", 1), ("400 for ever", 3), ("clean end", 1)])
async def test_reflector_lists_again_only_if_needed(
    server: ApiServer, until: Until, reflect: Any, fault: str, lists: int
) -> None:
    server.watch_faults.extend(FAULTS_OF_WATCH[fault](Scripts(server)))
    mirror = reflect()
    await until(lambda: server.watching == 1)
    assert mirror.reflector.lists == lists
