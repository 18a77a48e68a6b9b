"""Keep a Store equal to one collection of the API server: list it in pages, then watch it line by line, forever.

A page is decoded and dropped before the next is asked for, so a list of any length takes the memory of one page besides what
is kept of each object. Whatever server or network do, `run` goes on:
- a dropped, ended or silent watch is resumed after the last resource version seen (the API server silently ends the watches
  of slow readers);
- 410, as a status or as an ERROR frame in the stream, and errors that repeat without progress lead to a new list;
- an object that cannot be decoded is logged once and left at its last readable version.
Every retry waits for a jittered back-off, or longer where the server says Retry-After.

Invariant: the store's watermark only rises to versions whose every change has been put into the store.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final, Generic

import msgspec

from muster.kube.backoff import Backoff
from muster.kube.client import FIRST_PAGE, Client, Raws
from muster.kube.errors import ApiError, Gone, KubeError, api_error
from muster.kube.store import Store, T, key_of

log: Final = logging.getLogger(__name__)

PATIENCE: Final = 3
"""Errors in a row without any progress after which a watch is given up for a new list."""
HEALTHY_SECONDS: Final = 1.0
"""A watch that lived this long, or brought an object, may be taken up again at once."""


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct):
    metadata: _Meta


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_head: Final = msgspec.json.Decoder(_Head).decode


class GarbledError(KubeError):
    """A line of the watch is not an event: its content is unknown, so it must be sent again."""


class Reflector(Generic[T]):
    """Feed `store` with the objects of `path`, each read by `decode`; run `run()` as a task, wait for `store.synced`.

    `decode` raises MsgspecError for what it cannot read, and keeps nothing of the JSON that it is given. `keep` filters what it
    gives (a pod that stops passing is removed); selectors filter on the server. The counters `lists`, `watches`, `events`,
    `errors` and `skipped` only grow.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        decode: Callable[[msgspec.Raw], T],
        store: Store[T],
        *,
        keep: Callable[[T], bool] | None = None,
        label_selector: str = "",
        field_selector: str = "",
        first_page: int = FIRST_PAGE,
        silence_seconds: float = 90,
        backoff: Backoff | None = None,
    ) -> None:
        self.lists = self.watches = self.events = self.errors = self.skipped = 0
        self.trouble = ""
        """Why the collection cannot be listed; empty while it can, or is watched."""
        self._client = client
        self._path = path
        self._store = store
        self._decode = decode
        self._keep = keep
        self._labels = label_selector
        self._fields = field_selector
        self._first_page = first_page
        self._silence = silence_seconds
        self._backoff = backoff or Backoff()
        self._version = ""  # watch from here; "" asks for a new list
        self._stuck = 0
        self._unreadable: set[str] = set()

    async def run(self) -> None:
        """List and watch until cancelled; no failure ends it."""
        while True:
            wait: float | None
            try:
                if not self._version:
                    await self._list()
                wait = await self._watch()
            except Exception as error:
                wait = self._failed(error)
            if wait is not None:
                await asyncio.sleep(wait)

    async def _list(self) -> None:
        self.lists += 1
        items: list[T] = []
        unreadable: set[str] = set()
        version = ""
        selected = {"labelSelector": self._labels, "fieldSelector": self._fields}
        pages = self._client.pages(self._path, self._first_page, **selected)
        async with aclosing(pages):
            async for page in pages:
                version = page.resource_version
                self._read(page.items, items, unreadable)
                del page
        self._unreadable.intersection_update(unreadable)
        self._store.replace_all(items, version, unreadable)
        self._version, self.trouble = version, ""

    def _read(self, raws: Raws, items: list[T], unreadable: set[str]) -> None:
        """Decode the objects of a page into `items`, and into `unreadable` the keys of those that cannot be."""
        for raw in raws:
            try:
                obj = self._decode(raw)
            except msgspec.MsgspecError as error:
                unreadable.add(self._skip(_decode_head(raw).metadata, error))
                continue
            if self._keep is None or self._keep(obj):
                items.append(obj)

    async def _watch(self) -> float | None:
        """Follow one watch to its end; give the seconds to wait before the next, None for none."""
        self.watches += 1
        began, seen = time.monotonic(), self.events
        lines = self._client.watch(
            self._path,
            self._version,
            timeout_seconds=random.randint(240, 480),
            silence_seconds=self._silence,
            labelSelector=self._labels,
            fieldSelector=self._fields,
        )
        async with aclosing(lines):
            async for line in lines:
                self._take(line)
                self._stuck = 0
        if self.events == seen and time.monotonic() - began < HEALTHY_SECONDS:
            return self._backoff.next()
        self._backoff.reset()
        return None

    def _take(self, line: bytes) -> None:
        """Put one line of the watch into the store."""
        try:
            event = _decode_event(line)
            if event.type == "ERROR":
                raise api_error(bytes(event.object))
            self._version = self._apply(event)
        except msgspec.MsgspecError as error:
            raise GarbledError(f"watch of {self._path}: {error}: {line[:100]!r}") from error
        self._store.advance(self._version)

    def _apply(self, event: _Event) -> str:
        """Apply an event; give its resource version."""
        meta = _decode_head(event.object).metadata
        if event.type in ("ADDED", "MODIFIED"):
            self.events += 1
            if self._keep is not None or not self._store.knows(key_of(meta), meta.resource_version):
                self._changed(meta, event.object)
        elif event.type == "DELETED":
            self.events += 1
            self._unreadable.discard(key_of(meta))
            self._store.remove(key_of(meta), meta.resource_version)
        return meta.resource_version

    def _changed(self, meta: _Meta, raw: msgspec.Raw) -> None:
        try:
            obj = self._decode(raw)
        except msgspec.MsgspecError as error:
            self._skip(meta, error)
            return
        if self._keep is None or self._keep(obj):
            self._store.put(obj)
        else:
            self._store.remove(key_of(meta), meta.resource_version)

    def _skip(self, meta: _Meta, error: msgspec.MsgspecError) -> str:
        key = key_of(meta)
        self.skipped += 1
        if key not in self._unreadable:
            self._unreadable.add(key)
            log.warning("cannot read %s of %s, going on without this version of it: %s", key, self._path, error)
        return key

    def _failed(self, error: Exception) -> float:
        """Account for a failure; decide whether to list again, and how long to wait first."""
        self.errors += 1
        if not isinstance(error, KubeError):
            log.error("reflecting %s failed unexpectedly, listing it again", self._path, exc_info=error)
            self._version = ""
            return self._backoff.next()
        log.info("reflecting %s: %s", self._path, error)
        if isinstance(error, (ApiError, GarbledError)):
            self._stuck += 1
        if isinstance(error, Gone) or self._stuck >= PATIENCE:
            self._version, self._stuck = "", 0
        if not self._version:
            self.trouble = str(error)
        return self._backoff.next(error.retry_after if isinstance(error, ApiError) else None)
