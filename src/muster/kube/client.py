"""A small client of the API server: raw JSON bytes in and out over aiohttp, nothing modelled.

Every call returns the answer's bytes, and the caller decodes the fields that it reads with a msgspec decoder
(`POD.decode(await client.create(...))`). At most `connections` requests are in flight at once; the others wait,
first come, first served, and their time counts from when they are sent. Watches do not count: they stay open for minutes.

Retries. GET, PUT, DELETE and the declarative patches are retried on 429, 500, 502, 503, 504 and broken connections (so a
DELETE may say NotFound of what it deleted itself). POST and JSON patches are retried on 429 alone, which says that nothing
was processed; after Unreachable their caller must read the object. A 401 renews the token once.

Who writes under a lease gives `may_write`, which raises LeaseLost. It is asked as a write leaves, each time it is sent, when
nothing more is waited for: neither a connection nor a token.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from muster.kube import configuration, depth
from muster.kube.access import Access
from muster.kube.backoff import Backoff
from muster.kube.errors import ApiError, Gone, LeaseLost, TooMany, Unreachable, api_error

PatchKind = Literal["merge", "json", "strategic", "apply"]
Propagation = Literal["Background", "Foreground", "Orphan"]
Body = bytes | dict[str, Any]
JsonPatch = list[dict[str, Any]]
Raws = list[msgspec.Raw]
Query = str | int | bool | None

_PATCH_TYPES: Final[dict[PatchKind, str]] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}
_JSON: Final = "application/json"
_TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})
_HEADERS: Final = {
    "Accept": _JSON,
    "Accept-Encoding": "identity",  # the API server would compress what is over 128 KiB: CPU on both sides
    "User-Agent": f"muster/{version('muster')}",
}
_TRIES: Final = 6
_KEEP_ALIVE: Final = 60.0  # seconds; the API server closes idle connections after 90
_WHOLE_ANSWER: Final = aiohttp.ClientTimeout(total=60, sock_connect=10)
FIELD_MANAGER: Final = "muster"
FIRST_PAGE: Final = 20
"""Objects of the first page of a list: each may have as much as 1.5 MB, and nothing is known of them yet."""
MOST_PER_PAGE: Final = 500
PAGE_BYTES: Final = 2 * 2**20
"""The length of a page that is asked for, as the objects of the page before tell."""
LONGEST_PAGE: Final = 8 * PAGE_BYTES
"""A page that turns out longer than this is given up, and asked for again with fewer objects."""


class _ListMeta(msgspec.Struct, rename={"resource_version": "resourceVersion", "token": "continue"}):
    resource_version: str = ""
    token: str = ""


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: Raws | None = None


_decode_page: Final = msgspec.json.Decoder(_Page).decode


@dataclass(frozen=True, slots=True)
class Listing:
    """A collection, or a page of it, as of one resource version: each item is still JSON, a slice of the page it came in."""

    items: Raws
    resource_version: str


class _Write(aiohttp.BytesPayload):
    """The body of a write. aiohttp holds the headers back until it asks for the body, with the connection at hand."""

    def __init__(self, body: bytes, may_write: Callable[[], None]) -> None:
        super().__init__(body)
        self._may_write = may_write

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._may_write()
        await super().write_with_length(writer, content_length)


class _TooLong(Exception):
    """An answer is longer than what was asked for may be."""


class Client:
    """A connection pool to one API server; close it, or use it as an async context manager."""

    def __init__(
        self,
        where: Access,
        *,
        connections: int = 32,
        backoff: Backoff | None = None,
        may_write: Callable[[], None] | None = None,
    ) -> None:
        depth.allow()  # whoever has a client reads what is in the API server
        self._access, self._may_write = where, may_write
        self._backoff = backoff or Backoff()
        self._turns = asyncio.Semaphore(connections)
        connector = aiohttp.TCPConnector(
            limit=0,  # aiohttp lets a newcomer have a connection ahead of those that wait for one, so `_turns` counts them
            keepalive_timeout=_KEEP_ALIVE,
            ssl=where.tls if where.tls is not None else True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            timeout=_WHOLE_ANSWER,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    @classmethod
    async def connect(
        cls, kubeconfig: str | None = None, *, connections: int = 32, may_write: Callable[[], None] | None = None
    ) -> Self:
        """Load the configuration (see configuration.load) and open a pool; no request is made yet. Raises NoAccess."""
        return cls(await configuration.load(kubeconfig), connections=connections, may_write=may_write)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(self, path: str, **query: Query) -> bytes:
        """Read one object (or any GET path)."""
        return await self._send("GET", path, query)

    async def list(self, path: str, **query: Query) -> Listing:
        """Read a small collection as a whole; once more when its continue token expires on the way."""
        try:
            return await self._all_pages(path, query)
        except Gone:
            return await self._all_pages(path, query)

    async def pages(self, path: str, first: int = FIRST_PAGE, **query: Query) -> AsyncGenerator[Listing, None]:
        """Read a collection page by page, all as of one resource version; raise Gone when the continue token expires.

        Whoever drops a page before the next holds no more than one in memory, however large collection and objects are.
        """
        limit, token = first, ""
        while True:
            asked = {**query, "limit": limit, "continue": token or None}
            try:
                body = await self._send("GET", path, asked, most=LONGEST_PAGE if limit > 1 else None)
            except _TooLong:
                limit = max(1, limit // 4)
                continue
            page = _read_page(path, body)
            limit = min(MOST_PER_PAGE, max(1, PAGE_BYTES * len(page.items or ()) // len(body)))
            del body
            yield Listing(page.items or [], page.metadata.resource_version)
            token = page.metadata.token
            del page
            if not token:
                return

    async def create(self, path: str, body: Body, *, dry_run: bool = False, strict: bool = False) -> bytes:
        """Create an object in the collection `path`, or POST to a subresource; with `dry_run` only let the server check it.

        With `strict` the server refuses fields that it does not know, and names them; else it drops them.
        """
        query: dict[str, Query] = {"dryRun": "All" if dry_run else None, "fieldValidation": "Strict" if strict else None}
        return await self._send("POST", path, query, body, _JSON, retry=False)

    async def update(self, path: str, body: Body) -> bytes:
        """Replace an object; a body with metadata.resourceVersion raises Conflict when the object has changed since."""
        return await self._send("PUT", path, {}, body, _JSON)

    async def patch(self, path: str, body: Body | JsonPatch, kind: PatchKind = "merge", *, force: bool = False) -> bytes:
        """Patch an object; "apply" is server-side apply as the field manager "muster", `force` takes fields from others."""
        query: dict[str, Query] = {}
        if kind == "apply":
            query = {"fieldManager": FIELD_MANAGER, "force": force}
        return await self._send("PATCH", path, query, body, _PATCH_TYPES[kind], retry=kind != "json")

    async def delete(
        self,
        path: str,
        *,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
    ) -> bytes:
        """Delete an object, only that of `uid` and of this version if given (else Conflict).

        Grace in seconds, None: the object's own.
        """
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if given := {key: value for key, value in preconditions.items() if value is not None}:
            options["preconditions"] = given
        if propagation is not None:
            options["propagationPolicy"] = propagation
        return await self._send("DELETE", path, {}, options, _JSON)

    async def watch(
        self, path: str, resource_version: str, *, timeout_seconds: int = 300, silence_seconds: float = 90, **query: Query
    ) -> AsyncGenerator[bytes, None]:
        """Stream the changes of a collection after `resource_version`, one JSON line each, bookmarks included; never retries.

        Ends when the server ends it. Raises ApiError when refused, Unreachable when the stream is cut in the middle of a
        line or nothing comes for `silence_seconds` (bookmarks come about once a minute).
        """
        query = {
            "watch": True,
            "allowWatchBookmarks": True,
            "resourceVersion": resource_version,
            "timeoutSeconds": timeout_seconds,
            **query,
        }
        patience = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence_seconds)
        try:
            async with await self._open("GET", self._url(path, query), None, {}, patience) as response:
                if response.status != 200:
                    raise await _failure(response)
                async for line in _lines(response.content):
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable("GET", path, error) from error

    async def _all_pages(self, path: str, query: dict[str, Query]) -> Listing:
        items: Raws = []
        version = ""
        async for page in self.pages(path, FIRST_PAGE, **query):
            items += page.items
            version = page.resource_version
        return Listing(items, version)

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, Query],
        body: Body | JsonPatch | None = None,
        content_type: str | None = None,
        retry: bool = True,
        most: int | None = None,
    ) -> bytes:
        """Send a request until it is answered, refused for good, or tried often enough."""
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"Content-Type": content_type} if content_type else {}
        url = self._url(path, query)
        backoff = self._backoff.fresh()
        while True:
            try:
                return await self._once(method, url, data, headers, most)
            except ApiError as error:
                again = isinstance(error, TooMany) or (retry and error.status in _TRANSIENT)
                if not again or backoff.tries + 1 >= _TRIES:
                    raise
                wait = backoff.next(error.retry_after)
            except Unreachable:
                if not retry or backoff.tries + 1 >= _TRIES:
                    raise
                wait = backoff.next()
            await asyncio.sleep(wait)

    async def _once(self, method: str, url: URL, data: bytes | None, headers: dict[str, str], most: int | None = None) -> bytes:
        body = _Write(data, self._may_write) if data is not None and self._may_write else data
        try:
            async with self._turns, await self._open(method, url, body, headers, _WHOLE_ANSWER) as response:
                if response.status >= 300:
                    raise await _failure(response)
                return await (response.read() if most is None else _read_up_to(response.content, most))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error.__cause__, LeaseLost):
                raise error.__cause__ from None
            raise _unreachable(method, url.path, error) from error

    async def _open(
        self, method: str, url: URL, data: bytes | _Write | None, headers: dict[str, str], patience: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send the request, and once more with a renewed token when the server does not know us."""
        where = self._access
        for stale in (False, True):
            response = await self._session.request(
                method,
                url,
                data=data,
                headers={**headers, **await where.headers(stale)},
                timeout=patience,
                proxy=where.proxy,
                server_hostname=where.server_hostname,
                allow_redirects=False,
            )
            if response.status != 401 or stale or where.renew is None:
                break
            response.release()
        return response

    def _url(self, path: str, query: dict[str, Query]) -> URL:
        given = {key: str(value).lower() if isinstance(value, bool) else value for key, value in query.items()}
        given = {key: value for key, value in given.items() if value is not None and value != ""}
        return URL(f"{self._access.host}{path}{'?' if given else ''}{urlencode(given)}", encoded=True)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a stream into lines of any length (StreamReader.readline gives up at 128 KiB)."""
    parts: list[bytes] = []
    async for chunk in content.iter_any():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            if parts:
                line = b"".join((*parts, line))
                parts.clear()
            if line:
                yield line
        if rest:
            parts.append(rest)
    if parts:
        raise aiohttp.ClientPayloadError("the stream ended in the middle of a line")


async def _read_up_to(content: aiohttp.StreamReader, most: int) -> bytes:
    """Read an answer of at most so many bytes; raise _TooLong."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > most:
            raise _TooLong
    return bytes(body)


def _read_page(path: str, body: bytes) -> _Page:
    try:
        return _decode_page(body)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"GET {path}: the answer is no list ({error}): {body[:100]!r}") from error


async def _failure(response: aiohttp.ClientResponse) -> ApiError:
    return api_error(await response.read(), response.status, response.headers.get("Retry-After"))


def _unreachable(method: str, path: str, error: Exception) -> Unreachable:
    return Unreachable(f"{method} {path}: {type(error).__name__} {error}".rstrip())
