"""What the client sends, what it makes of failures, and what it tries again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from muster.kube import access, errors, paths
from muster.kube.access import Access
from muster.kube.backoff import Backoff
from muster.kube.client import LONGEST_PAGE, PAGE_BYTES, Client

if TYPE_CHECKING:
    from aiohttp import web

    from kube.conftest import ApiServer

PATH = "/apis/test/v1/things"


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (410, "Expired", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (400, "BadRequest", errors.ApiError),
    ],
)
async def test_errors_carry_the_servers_words(
    server: ApiServer, client: Client, code: int, reason: str, kind: type[errors.ApiError]
) -> None:
    server.write_faults.append(server.answers(code, reason))
    with pytest.raises(kind) as caught:
        await client.create(PATH, {})
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.reason, caught.value.message) == (code, reason, "as the test wants")
    assert len(server.asked) == 1


CALLS: dict[str, Any] = {
    "GET": lambda c: c.get(PATH),
    "PUT": lambda c: c.update(PATH, {}),
    "DELETE": lambda c: c.delete(PATH),
    "merge": lambda c: c.patch(PATH, {}),
    "strategic": lambda c: c.patch(PATH, {}, "strategic"),
    "apply": lambda c: c.patch(PATH, {}, "apply"),
    "POST": lambda c: c.create(PATH, {}),
    "json": lambda c: c.patch(PATH, [], "json"),
}


async def cut(request: web.Request) -> Any:
    assert request.transport is not None
    request.transport.abort()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", ["429", "500", "503", "cut"])
async def test_only_safe_requests_are_repeated(server: ApiServer, client: Client, call: str, fault: str) -> None:
    bad = cut if fault == "cut" else server.answers(int(fault))
    (server.list_faults if call == "GET" else server.write_faults).append(bad)
    if call in ("POST", "json") and fault != "429":
        with pytest.raises((errors.ApiError, errors.Unreachable)):
            await CALLS[call](client)
        assert len(server.asked) == 1
    else:
        await CALLS[call](client)
        assert len(server.asked) == 2


async def test_retries_end(server: ApiServer, client: Client) -> None:
    server.list_faults.extend([server.answers(503)] * 100)
    with pytest.raises(errors.ApiError) as caught:
        await client.get(PATH)
    assert caught.value.status == 503
    assert len(server.asked) == 6


async def test_missing_server_is_unreachable(unused_port: int) -> None:
    async with Client(Access(f"http://127.0.0.1:{unused_port}"), backoff=Backoff(base=0.001)) as client:
        with pytest.raises(errors.Unreachable, match="GET /readyz"):
            await client.get("/readyz")


@pytest.fixture
async def unused_port() -> int:
    listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port: int = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    return port


async def test_proxys_page_is_quoted(server: ApiServer, client: Client) -> None:
    async def page(_: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(status=404, text="<html>no such host</html>")

    server.list_faults.append(page)
    with pytest.raises(errors.NotFound, match="no such host"):
        await client.get(PATH)


async def test_requests_are_sent_as_the_api_expects(server: ApiServer, client: Client) -> None:
    await client.create(PATH, {"a": 1}, dry_run=True)
    await client.patch(PATH, b'{"b": 2}', "apply", force=True)
    await client.patch(PATH, [{"op": "test"}], "json")
    await client.delete(PATH, grace_seconds=0, uid="u1", propagation="Background")
    create, apply, patch, delete = server.asked
    assert (create.query["dryRun"], create.content_type, server.bodies[0]) == ("All", "application/json", b'{"a":1}')
    assert create.headers["User-Agent"].startswith("muster/")
    assert dict(apply.query) == {"fieldManager": "muster", "force": "true"}
    assert (apply.content_type, server.bodies[1]) == ("application/apply-patch+yaml", b'{"b": 2}')
    assert (patch.content_type, server.bodies[2]) == ("application/json-patch+json", b'[{"op":"test"}]')
    options = json.loads(server.bodies[3])
    assert (delete.method, options["gracePeriodSeconds"], options["preconditions"]) == ("DELETE", 0, {"uid": "u1"})
    assert options["propagationPolicy"] == "Background"


class Leading:
    """A lease, as the client asks it: how often it was asked, and from which time on it is lost."""

    def __init__(self, until: float = float("inf")) -> None:
        self.asked, self.until = 0, until

    def check(self) -> None:
        self.asked += 1
        if self.asked > self.until:
            raise errors.LeaseLost("somebody has taken the lease")


@pytest.fixture
async def led(server: ApiServer) -> AsyncIterator[tuple[Client, Leading]]:
    """A client of one connection that writes under a lease."""
    leading = Leading()
    access, backoff = Access(server.url), Backoff(base=0.001, cap=0.01)
    async with Client(access, connections=1, backoff=backoff, may_write=leading.check) as client:
        yield client, leading


@pytest.mark.parametrize("call", CALLS)
async def test_no_write_leaves_after_the_lease_is_lost(server: ApiServer, led: tuple[Client, Leading], call: str) -> None:
    client, leading = led
    await CALLS[call](client)
    sent, leading.until = len(server.asked), 0
    if call == "GET":
        await client.get(PATH)
        assert (len(server.asked), leading.asked) == (sent + 1, 0)
        return
    with pytest.raises(errors.LeaseLost, match="somebody has taken the lease"):
        await CALLS[call](client)
    assert len(server.asked) == sent


async def test_write_under_a_lease_is_sent_as_any_other(server: ApiServer, led: tuple[Client, Leading]) -> None:
    client, _ = led
    await client.patch(PATH, {"a": 1})
    await client.create(PATH, {"a": 1}, dry_run=True)
    assert [request.content_type for request in server.asked] == ["application/merge-patch+json", "application/json"]
    assert server.bodies == [b'{"a":1}'] * 2


async def test_lease_is_asked_when_a_connection_is_at_hand(server: ApiServer, led: tuple[Client, Leading]) -> None:
    """The only connection is taken until the lease is lost: what queued for it before is not sent."""
    client, leading = led
    release, reached = asyncio.Event(), asyncio.Event()

    async def hold(_: web.Request) -> Any:
        reached.set()
        await release.wait()
        return await server.answers(200)(_)

    server.list_faults.append(hold)
    reading = asyncio.create_task(client.get(PATH))
    await reached.wait()
    writing = asyncio.create_task(client.patch(PATH, {}))
    await asyncio.wait({writing}, timeout=0.05)
    assert leading.asked == 0
    leading.until = 0
    release.set()
    await reading
    with pytest.raises(errors.LeaseLost):
        await writing
    assert [request.method for request in server.asked] == ["GET"]


async def test_lease_is_asked_again_before_a_write_is_repeated(server: ApiServer, led: tuple[Client, Leading]) -> None:
    client, leading = led
    leading.until = 1
    server.write_faults.append(server.answers(503))
    with pytest.raises(errors.LeaseLost):
        await client.patch(PATH, {})
    assert len(server.asked) == 1


async def test_client_goes_on_once_it_leads_again(server: ApiServer, led: tuple[Client, Leading]) -> None:
    client, leading = led
    leading.until = 0
    for _ in range(3):
        with pytest.raises(errors.LeaseLost):
            await client.patch(PATH, {})
    leading.until = float("inf")
    await client.patch(PATH, {})
    assert len(server.asked) == 1


async def test_list_is_read_in_pages(server: ApiServer, client: Client) -> None:
    for number in range(23):
        server.put(f"t{number}", number)
    pages = [page async for page in client.pages(PATH, 10, labelSelector="a in (b,c)")]
    listing = await client.list(PATH, labelSelector="a in (b,c)")
    for raws in ([raw for page in pages for raw in page.items], listing.items):
        assert [msgspec.json.decode(raw)["value"] for raw in raws] == list(range(23))
    assert {page.resource_version for page in pages} == {listing.resource_version} == {str(server.revision)}
    assert {request.query["labelSelector"] for request in server.asked} == {"a in (b,c)"}
    assert len(pages) == 2


async def test_pages_of_long_objects_have_few(server: ApiServer, client: Client) -> None:
    for number in range(120):
        server.put(f"t{number}", number, text="x" * 65536)
    counts = [len(page.items) async for page in client.pages(PATH)]
    assert (counts[0], sum(counts)) == (20, 120)
    assert max(counts[1:]) * 65536 <= PAGE_BYTES


async def test_page_that_turns_out_too_long_is_asked_for_with_fewer_objects(server: ApiServer, client: Client) -> None:
    for number in range(300):
        server.put(f"t{number}", number)
    for number in range(300, 320):
        server.put(f"t{number}", number, text="x" * 2**20)
    pages = [[len(raw) for raw in map(bytes, page.items)] async for page in client.pages(PATH)]
    assert [size > 2**20 for page in pages for size in page] == [False] * 300 + [True] * 20
    assert max(sum(page) for page in pages) <= LONGEST_PAGE


async def test_one_object_is_read_however_long_it_is(server: ApiServer, client: Client) -> None:
    server.put("a", 1, text="x" * (LONGEST_PAGE + 1))
    assert [len(page.items) async for page in client.pages(PATH)] == [1]


async def test_list_whose_paging_expires_is_read_once_more(server: ApiServer, client: Client) -> None:
    for number in range(35):
        server.put(f"t{number}", number)
    server.list_faults.extend([server._list, server.answers(410, "Expired")])
    assert len((await client.list(PATH)).items) == 35


async def test_watch_cut_in_a_line_is_no_clean_end(server: ApiServer, client: Client) -> None:
    server.watch_faults.append(server.streams(b'{"whole": 1}\n{"ha'))
    lines = client.watch(PATH, "1")
    assert await anext(lines) == b'{"whole": 1}'
    with pytest.raises(errors.Unreachable, match="middle of a line"):
        await anext(lines)


async def test_401_renews_the_token_once(server: ApiServer, kubeconfig: Path) -> None:
    async with await Client.connect(str(kubeconfig)) as client:
        await client.get(PATH)
        (kubeconfig.parent / "token").write_text("second")
        await client.get(PATH)  # a minute has not passed
        server.list_faults.append(server.answers(401, "Unauthorized"))
        await client.get(PATH)
        server.list_faults.extend([server.answers(401, "Unauthorized")] * 2)
        with pytest.raises(errors.ApiError, match="401"):
            await client.get(PATH)
    sent = [request.headers["Authorization"] for request in server.asked]
    assert sent == ["Bearer first", "Bearer first", "Bearer first"] + ["Bearer second"] * 3


@pytest.mark.parametrize("text", ["", "{", "apiVersion: v1", "- a", "contexts: 3", "current-context: x\ncontexts: []"])
async def test_bad_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(access.NoAccess, match=str(path)):
        await Client.connect(str(path))


async def test_missing_kubeconfig_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(access.NoAccess, match="--kubeconfig or KUBECONFIG"):
        await Client.connect()


def test_paths_name_their_resources() -> None:
    assert paths.pods() == "/api/v1/pods"
    assert paths.pods("ns", "p", "binding") == "/api/v1/namespaces/ns/pods/p/binding"
    assert paths.nodes("n1") == "/api/v1/nodes/n1"
    assert paths.dljobs("ns", "j", "status") == "/apis/muster.dev/v1alpha1/namespaces/ns/dljobs/j/status"
    assert paths.pods("ns", "a/../b?c") == "/api/v1/namespaces/ns/pods/a%2F..%2Fb%3Fc"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_name_cannot_lead_to_another_path(name: str) -> None:
    with pytest.raises(ValueError, match=r"metadata\.name"):
        paths.pods("ns", name)


async def test_requests_that_wait_for_a_connection_are_sent_in_the_order_they_came(server: ApiServer) -> None:
    async with Client(Access(server.url), connections=1) as client:
        order: list[int] = []

        async def ask(number: int) -> None:
            await client.create(PATH, {"number": number})
            order.append(number)
            if number < 5:
                order.append(await late(number))

        async def late(number: int) -> int:
            """A newcomer at the moment in which a connection comes free."""
            await client.create(PATH, {"number": 100 + number})
            return 100 + number

        await asyncio.gather(*(ask(number) for number in range(20)))
    sent = [json.loads(body)["number"] for body in server.bodies]
    assert sent == [*range(20), *range(100, 105)]


async def test_open_watch_keeps_no_request_waiting(server: ApiServer) -> None:
    async with Client(Access(server.url), connections=1) as client:
        watch = client.watch(PATH, str(server.revision))
        server.put("a", 1)
        assert json.loads(await anext(watch))["object"]["value"] == 1
        await client.get(PATH)
        await watch.aclose()
