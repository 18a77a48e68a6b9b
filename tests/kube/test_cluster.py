"""The client, the reflector and the recorder against the real API server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import AlreadyExists, Conflict, Invalid, NotFound
from muster.kube.events import Recorder, Reference
from muster.kube.reflector import Reflector
from muster.kube.store import Store, key_of

if TYPE_CHECKING:
    from kube.conftest import Until

pytestmark = pytest.mark.cluster


class Meta(msgspec.Struct, rename="camel"):
    name: str
    uid: str
    resource_version: str
    namespace: str | None = None


class ConfigMap(msgspec.Struct):
    metadata: Meta
    data: dict[str, str] | None = None


read = msgspec.json.Decoder(ConfigMap).decode


@pytest.fixture
async def live(cluster: Any) -> AsyncIterator[Client]:
    async with await Client.connect(str(cluster.kubeconfig)) as client:
        yield client


@pytest.fixture
async def maps(live: Client) -> AsyncIterator[str]:
    """The path of the ConfigMaps of a new namespace."""
    name = f"kube-{uuid.uuid4().hex[:8]}"
    await live.create(paths.namespaces(), {"metadata": {"name": name}})
    yield paths.resource(paths.CORE, "configmaps", name)
    await live.delete(paths.namespaces(name))


def body(name: str, value: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"value": value}}


async def test_store_follows_the_real_server(live: Client, maps: str, until: Until) -> None:
    for number in range(7):
        await live.create(maps, body(f"m{number}", "old"))
    store: Store[ConfigMap] = Store()
    reflector = Reflector(live, maps, read, store, first_page=3, field_selector="metadata.name!=kube-root-ca.crt")
    task = asyncio.create_task(reflector.run())
    try:
        await store.synced.wait()
        assert {obj.metadata.name for obj in store.values()} == {f"m{number}" for number in range(7)}
        patched = read(await live.patch(f"{maps}/m1", {"data": {"value": "new"}}))
        store.put(patched)
        assert store.get(key_of(patched.metadata)) == patched  # reads its own write, whether it or the watch came first
        await live.delete(f"{maps}/m2")
        await live.create(maps, body("m9", "new"))
        expected = {"m0", "m1", "m3", "m4", "m5", "m6", "m9"}
        await until(lambda: {obj.metadata.name for obj in store.values()} == expected)
        listing = await live.list(maps, fieldSelector="metadata.name!=kube-root-ca.crt")
        truth = [read(raw) for raw in listing.items]
        assert sorted(store.values(), key=lambda obj: obj.metadata.name) == truth
        assert (reflector.lists, reflector.errors) == (1, 0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_real_servers_refusals(live: Client, maps: str) -> None:
    first = read(await live.create(maps, body("a", "1")))
    with pytest.raises(AlreadyExists):
        await live.create(maps, body("a", "1"))
    with pytest.raises(NotFound):
        await live.get(f"{maps}/none")
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await live.create(maps, body("Not A Name", "1"))
    with pytest.raises(Conflict):
        await live.delete(f"{maps}/a", uid="another")
    stale = body("a", "2") | {"metadata": {"name": "a", "resourceVersion": first.metadata.resource_version}}
    await live.update(f"{maps}/a", stale)
    with pytest.raises(Conflict):
        await live.update(f"{maps}/a", stale)
    await live.create(maps, body("dry", "1"), dry_run=True)  # its answer has no resource version
    with pytest.raises(NotFound):
        await live.get(f"{maps}/dry")
    apply = {"apiVersion": "v1", "kind": "ConfigMap", **body("a", "3")}
    assert read(await live.patch(f"{maps}/a", apply, "apply", force=True)).data == {"value": "3"}


async def test_event_is_accepted(live: Client, maps: str, until: Until) -> None:
    namespace = maps.split("/")[4]
    recorder = Recorder(live, "muster-test")
    task = asyncio.create_task(recorder.run())
    try:
        about = Reference("v1", "ConfigMap", "a", namespace, "u1")
        recorder.event(about, "Normal", "Placed", "8 GPUs on 2 nodes of rack r3")
        recorder.event(Reference("v1", "Node", "n1"), "Warning", "Labelled", "of no namespace")
        await until(lambda: recorder.posted + recorder.dropped == 2)
        assert recorder.posted == 2
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
