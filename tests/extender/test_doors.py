"""Whatever is sent to the extender, the answer is valid, and a pod beside it is let through."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders.anything import anything, damaged
from muster_extender.guard import Asker
from muster_extender.wire import FilterResult, HostPriority

if TYPE_CHECKING:
    from extender.conftest import Extender, Patches, Serving, World

MANY = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
NODES = ["n1", "n2"]
POD = {
    "metadata": {
        "name": "odd",
        "namespace": "vision",
        "uid": "uid-odd",
        "annotations": {"muster.dev/gpus": "0,1", "muster.dev/attempt": "1"},
        "labels": {"muster.dev/job": "x"},
        "ownerReferences": [{"kind": "DLJob", "name": "x", "uid": "uid-x", "controller": True}],
    },
    "spec": {
        "schedulerName": "muster",
        "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"nvidia.com/gpu": "1"}}}],
        "containers": [{"name": "train", "resources": {"limits": {"nvidia.com/gpu": "2", "cpu": 4}}}],
    },
    "status": {"phase": "Pending"},
}
ARGS = {"Pod": POD, "Nodes": None, "NodeNames": NODES}
Post = Callable[[str, bytes], tuple[int, Any]]


@pytest.fixture(params=list(Asker))
def post(request: pytest.FixtureRequest, world: World, patches: Patches, serve: Serving) -> Iterator[Post]:
    """Send a body to one listener of an extender that outlives the examples."""
    for name in NODES:
        world.node(name)
    world.sync()
    with asyncio.Runner() as runner:
        context = serve(world, patches, pod_seconds=0.001, asker=request.param)
        extender: Extender = runner.run(context.__aenter__())
        yield lambda verb, body: runner.run(extender.post(verb, body))
        runner.run(context.__aexit__(None, None, None))


def sent(post: Post, world: World, body: bytes) -> None:
    """Send a body to both verbs; each answer must be one that kube-scheduler can read, and a pod beside it must pass."""
    names = names_in(body)
    status, answer = post("filter", body)
    assert status in (200, 400)
    if status == 200:
        result = msgspec.convert(answer, FilterResult, strict=True)
        assert bool(result.error) == (result.node_names is None)
        assert names is None or set(result.node_names or ()) <= names
    status, scores = post("prioritize", body)
    assert status in (200, 400)
    if status == 200:
        hosts = {score.host for score in msgspec.convert(scores, list[HostPriority])}
        assert names is None or hosts <= names
    honest = world.pending("honest", 8)
    _, answer = post("filter", json.dumps({"Pod": honest, "NodeNames": ["n1"]}).encode())
    assert (answer["NodeNames"], answer["Error"]) == (["n1"], "")


def names_in(body: bytes) -> set[str] | None:
    """The names of nodes in a body; None where Python cannot tell."""
    try:
        args = json.loads(body)
    except ValueError:
        return None
    found = args.get("NodeNames") if isinstance(args, dict) else None
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


@pytest.fixture(autouse=True)
def nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No traceback is logged."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


@MANY
@given(known=st.booleans(), args=damaged(ARGS, ()))
def test_pod_beside_damaged_arguments_passes(post: Post, world: World, known: bool, args: Any) -> None:
    if known:
        world.store(json.loads(json.dumps(POD)))
    sent(post, world, json.dumps(args).encode())


@MANY
@given(anything)
def test_pod_beside_any_json_passes(post: Post, world: World, value: Any) -> None:
    sent(post, world, json.dumps(value).encode())


@MANY
@given(st.binary(max_size=200), st.integers(0, 400))
def test_pod_beside_any_bytes_passes(post: Post, world: World, noise: bytes, at: int) -> None:
    """Bytes alone, and bytes in the middle of what is well formed."""
    whole = json.dumps(ARGS).encode()
    sent(post, world, noise)
    sent(post, world, whole[:at] + noise + whole[at:])
