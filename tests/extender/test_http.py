"""The extender over HTTP: what kube-scheduler sends and gets, and what anybody else may send."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muster_extender import fit_cache

if TYPE_CHECKING:
    from extender.conftest import Extender, Json, Patches, Serving, Until, World

NOTHING: dict[str, Any] = {
    "Nodes": None,
    "NodeNames": None,
    "FailedNodes": {},
    "FailedAndUnresolvableNodes": {},
    "Error": "",
}


NO_GPUS = {"metadata": {"name": "x"}, "spec": {}}
MANY = b'{"Pod": {"metadata": {"name": "x"}, "spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": %s}}}]}}}'


def question(pod: Json, *nodes: str) -> Json:
    return {"Pod": pod, "Nodes": None, "NodeNames": list(nodes)}


async def test_filter_by_names(world: World, extender: Extender) -> None:
    world.node("n1")
    world.node("n2")
    world.job("vgg16", {"vgg16-worker-0": ("n1", [0, 1])})
    status, answer = await extender.post("filter", question(world.pending("job", 8), "n2", "n1"))
    why = "needs 8 GPUs: 6 of 8 free, 2 reserved for vision/vgg16"
    assert (status, answer) == (200, NOTHING | {"NodeNames": ["n2"], "FailedAndUnresolvableNodes": {"n1": why}})


@pytest.mark.parametrize("nodes", [{}, {"Nodes": None, "NodeNames": None}, {"NodeNames": []}])
async def test_filter_of_no_nodes_passes_none(world: World, extender: Extender, nodes: Json) -> None:
    status, answer = await extender.post("filter", {"Pod": world.pending("job", 8), **nodes})
    assert (status, answer["Error"]) == (200, "")
    assert await extender.post("prioritize", {"Pod": world.pending("job", 8), **nodes}) == (200, [])


async def test_prioritize_scores_every_node(world: World, extender: Extender) -> None:
    world.node("n1", kind="dgx-a100")
    world.node("n2", kind="pcie-8")
    answer = await extender.post("prioritize", question(world.pending("job", 1), "n1", "n2"))
    assert answer == (200, [{"Host": "n1", "Score": 0}, {"Host": "n2", "Score": 10}])


# A reservation that is on its way


async def test_owner_waits_for_its_reservation(world: World, extender: Extender, until: Until) -> None:
    world.node("n1")
    pod = world.store(world.own("late-worker-0", "late", 2))
    asked = asyncio.create_task(extender.post("filter", question(pod, "n1")))
    await until(lambda: extender.guard.waiting)
    world.job("unrelated", {})
    await asyncio.sleep(0)
    world.job("late", {"late-worker-0": ("n1", [0, 1])})
    assert (await asked)[1]["NodeNames"] == ["n1"]


async def test_owner_waits_once_and_not_forever(world: World, extender: Extender) -> None:
    world.node("n1")
    pod = world.store(world.own("never-worker-0", "never", 2))
    for _ in range(3):
        status, answer = await extender.post("filter", question(pod, "n1"))
        assert (status, answer["NodeNames"]) == (200, [])
        assert "DLJob vision/never" in answer["FailedAndUnresolvableNodes"]["n1"]
    assert (extender.guard.waits, extender.guard.waiting) == (1, 0)


# What is remembered between requests


async def test_refused_pod_is_woken(world: World, extender: Extender, patches: Patches, until: Until) -> None:
    world.node("n1")
    world.job("gang", {"gang-worker-0": ("n1", [0])})
    pod = world.pending("job", 8)
    assert (await extender.post("filter", question(pod, "n1")))[1]["NodeNames"] == []
    assert patches.made == []
    world.job("gang", {})
    await until(lambda: patches.pods == ["vision/job"])


async def test_two_pods_in_a_row_cannot_take_reserved_gpus(world: World, extender: Extender) -> None:
    world.node("n1")
    world.job("gang", {"gang-worker-0": ("n1", [0, 1, 2, 3])})
    for pod, passed in (("first", ["n1"]), ("second", []), ("first", ["n1"])):
        assert (await extender.post("filter", question(world.pending(pod, 4), "n1")))[1]["NodeNames"] == passed


# Bad bodies


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"{", b'{"Pod": 5, "x": ', b"\xff\xfe", b'"\xff"', b"[" * 100_000, b'{"Pod": {"a":', b"nul"],
)
async def test_body_that_is_not_json_gets_400(extender: Extender, body: bytes) -> None:
    for verb in ("filter", "prioritize"):
        status, answer = await extender.post(verb, body)
        assert status == 400
        assert str(answer).startswith("the body is no JSON: ")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"null", "Expected `object`"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `Pod`"),
        (b'{"Pod": {}}', "missing required field `metadata`"),
        (b'{"Pod": {"metadata": {"name": "x"}, "spec": {}}, "NodeNames": [1]}', "$.NodeNames[0]"),
        (b'{"Pod": {"metadata": {"name": "x"}, "spec": {}}, "Nodes": {"items": []}}', "nodeCacheCapable: true"),
        (json.dumps({"Pod": NO_GPUS, "NodeNames": ["n" * 254]}).encode(), "length <= 253"),
        (json.dumps({"Pod": NO_GPUS, "NodeNames": ["n"] * 20_001}).encode(), "length <= 20000"),
        (MANY % b'"x"', "'x' is no quantity"),
        (MANY % b'"Infinity"', "ExtenderArgs"),
    ],
)
async def test_json_of_the_wrong_shape_fails_the_cycle(
    extender: Extender, body: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, answer = await extender.post("filter", body)
    assert (status, answer["NodeNames"]) == (200, None)
    assert words in answer["Error"]
    assert "Traceback" not in answer["Error"]
    assert await extender.post("prioritize", body) == (200, [])
    assert all(record.levelno < logging.ERROR for record in caplog.records)


async def test_failure_inside_is_logged_and_told(
    world: World, extender: Extender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.node("n1")
    monkeypatch.setattr(fit_cache.FitCache, "of", lambda *_: 1 / 0)
    status, answer = await extender.post("filter", question(world.pending("job", 1), "n1"))
    assert (status, answer["NodeNames"]) == (200, None)
    assert answer["Error"] == "the extender failed: ZeroDivisionError: division by zero"
    assert "a request of kube-scheduler failed" in caplog.text


async def test_too_long_body_gets_413(world: World, patches: Patches, serve: Serving) -> None:
    world.sync()
    async with serve(world, patches, body_limit=1000) as extender:
        status, text = await extender.post("filter", b" " * 1001)
        assert status == 413
        assert "nodeCacheCapable" in text
        assert (await extender.post("filter", b" " * 1000))[0] == 400


async def test_body_of_unknown_length_gets_411(extender: Extender) -> None:
    async def chunks() -> Any:
        yield b"{}"

    async with extender.http.post(f"http://127.0.0.1:{extender.ports['asking']}/filter", data=chunks()) as answer:
        assert (answer.status, answer.headers["Connection"]) == (411, "close")


async def test_listeners_serve_their_own_paths_alone(extender: Extender) -> None:
    for path in ("metrics", "healthz", "readyz"):
        async with extender.http.get(f"http://127.0.0.1:{extender.ports['asking']}/{path}") as answer:
            assert answer.status == 404
    for path in ("filter", "prioritize"):
        async with extender.http.post(f"http://127.0.0.1:{extender.ports['status']}/{path}", data=b"{}") as answer:
            assert answer.status == 404


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in places(each, (*path, key)))]


def mutated(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with what is at `path` replaced, or taken out where `new` is ...."""
    if not path:
        return new
    if isinstance(value, dict):
        found = {key: mutated(each, path[1:], new) if key == path[0] else each for key, each in value.items()}
        return {key: each for key, each in found.items() if each is not ...}
    items = [mutated(each, path[1:], new) if at == path[0] else each for at, each in enumerate(value)]
    return [each for each in items if each is not ...]


Post = Callable[[str, bytes], tuple[int, Any]]


@pytest.fixture
def post(world: World, patches: Patches, serve: Serving) -> Iterator[Post]:
    """Send a body to an extender that outlives the examples of a property test."""
    world.node("n1")
    world.sync()
    with asyncio.Runner() as runner:
        context = serve(world, patches, pod_seconds=0.001)
        extender: Extender = runner.run(context.__aenter__())
        yield lambda verb, body: runner.run(extender.post(verb, body))
        runner.run(context.__aexit__(None, None, None))


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_is_answered(data: st.DataObject, world: World, post: Post) -> None:
    whole = question(world.pending("job", 2, pin="n1", claim="0,1", job="x", labelled=False), "n1", "n2")
    path = data.draw(st.sampled_from(places(whole)[1:]))
    new = data.draw(
        st.just(...) | json_values | st.sampled_from(["1e99", "-1", "1e999999", "NaN", "Infinity", "\ud800", 10**30])
    )
    body = json.dumps(changed := mutated(whole, path, new)).encode()
    status, answer = post("filter", body)
    assert status in (200, 400)
    if status == 200:
        assert set(answer) == set(NOTHING)
        assert answer["Error"] or set(answer["NodeNames"] or ()) <= set(changed.get("NodeNames") or ())
    assert post("prioritize", body)[0] == status


# Health and metrics


async def test_server_is_ready_once_the_view_is_complete(world: World, patches: Patches, serve: Serving) -> None:
    world.node("n1")
    async with serve(world, patches) as extender:
        assert (await extender.get("healthz"))[0] == 200
        for store in (world.view.nodes, world.view.jobs, world.view.pods):
            assert (await extender.get("readyz"))[0] == 503
            status, answer = await extender.post("filter", question(world.pending("job", 1), "n1"))
            assert status == 200
            assert "has not read" in answer["Error"]
            store.synced.set()
        assert await extender.get("readyz") == (200, "ok\n")
        assert (await extender.post("filter", question(world.pending("job", 1), "n1")))[1]["NodeNames"] == ["n1"]


async def test_metrics_show_view_and_requests(world: World, extender: Extender) -> None:
    world.node("n1")
    world.job("vgg16", {"vgg16-worker-0": ("n1", [0, 1])})
    await extender.post("filter", question(world.pending("job", 8), "n1"))
    await extender.post("filter", question(world.pending("job", 1), "n1"))
    await extender.post("filter", b"no")
    _, text = await extender.get("metrics")
    for line in (
        'muster_extender_requests_total{outcome="open-refused",verb="filter"} 1.0',
        'muster_extender_requests_total{outcome="open-passed",verb="filter"} 1.0',
        'muster_extender_requests_total{outcome="unreadable",verb="filter"} 1.0',
        'muster_extender_request_seconds_count{verb="filter"} 2.0',
        "muster_extender_gpus_free 6.0",
        "muster_extender_gpus_reserved 2.0",
        "muster_extender_reservations 1.0",
        "muster_extender_pods_refused 0.0",
        "muster_extender_wakes_total 0.0",
    ):
        assert line in text.splitlines()
