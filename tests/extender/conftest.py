"""A small cluster for the extender: objects as the API server writes them, put into the stores of a view."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from builders.streams import STRANGER, Connect, Stream
from muster.allocation.view import ClusterView
from muster.api import names, topology
from muster.kube.errors import Invalid, NotFound
from muster.kube.objects import DLJob, Meta, Node, Pod
from muster.machines import machine
from muster_extender import rules
from muster_extender.app import asking_app, status_app
from muster_extender.certificates import Certificates
from muster_extender.connections import Config, Limits
from muster_extender.guard import POD_SECONDS, Guard
from muster_extender.metrics import Metrics
from muster_extender.rules import Verdict, filter_nodes
from muster_extender.servers import Servers
from muster_extender.waking import Waking

Places = dict[str, tuple[str, list[int]]]
Json = dict[str, Any]
DEFAULT_LIMITS = Limits()


class World:
    """A view of what the API server would hold, changed object by object."""

    def __init__(self, *, vouched: bool = True) -> None:
        self.view = ClusterView()
        self.view.vouch(vouched)
        self.cluster = rules.cluster(self.view)
        self._revision = itertools.count(1)

    def node(
        self,
        name: str,
        gpus: int = 8,
        *,
        kind: str | None = None,
        broken: Iterable[int] = (),
        ready: bool = True,
        cordoned: bool = False,
    ) -> None:
        """Put a node; `kind` names a machine type of the catalogue, whose links it then has."""
        annotations = {}
        links = machine(kind).links if kind else [["X" if i == j else "SYS" for j in range(gpus)] for i in range(gpus)]
        if kind or broken:
            cards = [topology.Gpu(f"GPU-{i}", healthy=i not in set(broken)) for i in range(len(links))]
            annotations[names.TOPOLOGY] = topology.encode(topology.NodeTopology(cards, [list(row) for row in links]))
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        obj = {
            "metadata": self._meta(name, annotations=annotations),
            "spec": {"unschedulable": cordoned},
            "status": {"allocatable": {names.GPU: str(len(links))}, "conditions": conditions},
        }
        self.view.nodes.put(msgspec.convert(obj, Node))

    def job(self, name: str, places: Places, *, attempt: int = 1, uid: str | None = None, namespace: str = "vision") -> None:
        """Put a DLJob whose status reserves GPUs for pods."""
        placement = [{"pod": pod, "node": node, "gpus": gpus} for pod, (node, gpus) in places.items()]
        status = {"attempt": attempt, "placement": placement}
        obj = {"metadata": self._meta(name, namespace, uid=uid or f"uid-{name}"), "status": status}
        self.view.jobs.put(msgspec.json.decode(json.dumps(obj), type=DLJob))

    def job_gone(self, name: str, namespace: str = "vision") -> None:
        self.view.jobs.remove(f"{namespace}/{name}", next(self._revision))

    def pod(
        self,
        name: str,
        gpus: int = 1,
        *,
        namespace: str = "vision",
        node: str | None = None,
        pin: str | None = None,
        claim: str | None = None,
        job: str | None = None,
        job_uid: str | None = None,
        labelled: bool = True,
        attempt: int | str | None = 1,
        phase: str = "Pending",
        **meta: Any,
    ) -> Json:
        """Give a pod as JSON: bound to `node`, pinned to `pin`, claiming GPUs ("0,1"), owned by the DLJob `job`."""
        annotations = {names.GPUS: claim} if claim else {}
        found = self._meta(name, namespace, uid=f"uid-{name}", annotations=annotations, **meta)
        if job is not None:
            owner = {"kind": "DLJob", "name": job, "uid": job_uid or f"uid-{job}", "controller": True}
            found |= {"ownerReferences": [owner], "labels": {names.JOB: job} if labelled else {}}
            if attempt is not None:
                annotations[names.ATTEMPT] = str(attempt)
        spec: Json = {"containers": [{"name": "train", "resources": {"limits": {names.GPU: str(gpus)} if gpus else {}}}]}
        if node:
            spec["nodeName"] = node
        if pin:
            term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [pin]}]}
            required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
            spec["affinity"] = {"nodeAffinity": required}
        return {"metadata": found, "spec": spec, "status": {"phase": phase}}

    def own(self, name: str, job: str, gpus: int = 1, **more: Any) -> Json:
        """Give a pod as the operator creates it for a DLJob."""
        return self.pod(name, gpus, job=job, **more)

    def store(self, pod: Json) -> Json:
        """Put a pod into the view, as its reflector would."""
        pod["metadata"]["resourceVersion"] = str(next(self._revision))
        self.view.pods.put(msgspec.convert(pod, Pod))
        return pod

    def pending(self, name: str, gpus: int = 1, **more: Any) -> Json:
        """Put a pod that waits for a node into the view, and give it as JSON."""
        return self.store(self.pod(name, gpus, **more))

    def bind(self, name: str, gpus: int, node: str, **more: Any) -> None:
        self.store(self.pod(name, gpus, node=node, phase="Running", **more))

    def remove(self, pod: Json) -> None:
        self.view.pods.remove(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", next(self._revision))

    def ask(self, pod: Json, *nodes: str) -> Verdict:
        """Filter: all nodes of the view where none is named."""
        return filter_nodes(self.cluster, msgspec.convert(pod, Pod), list(nodes) or sorted(self.view.nodes))

    def sync(self) -> None:
        for store in (self.view.nodes, self.view.pods, self.view.jobs):
            store.synced.set()

    def _meta(self, name: str, namespace: str | None = None, **more: Any) -> Json:
        found = {"name": name, "uid": name, "resourceVersion": str(next(self._revision)), **more}
        return found | ({"namespace": namespace} if namespace else {})


class Patches:
    """What would be written to the API server: `made` by pod, in order; pods in `gone` are not found.

    `uids` has those of pods that were created again: a patch with another uid is Invalid.
    """

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.gone: set[str] = set()
        self.uids: dict[str, str] = {}
        self.failures: list[Exception] = []
        self.meanwhile: Callable[[], object] = lambda: None
        """What happens while a patch is on its way."""

    async def __call__(self, pod: Meta, value: str) -> object:
        await asyncio.sleep(0)
        self.meanwhile()
        if self.failures:
            raise self.failures.pop()
        if pod.name in self.gone:
            raise NotFound(404, "NotFound", f'pods "{pod.name}" not found')
        if self.uids.get(pod.name, pod.uid) != pod.uid:
            raise Invalid(422, "Invalid", "metadata.uid: field is immutable")
        self.made.append((pod.key, value))
        return b"{}"

    @property
    def pods(self) -> list[str]:
        return [task for task, _ in self.made]


class Extender:
    """The extender over a world, and a client of it."""

    def __init__(self, http: aiohttp.ClientSession, ports: dict[str, int], guard: Guard, waking: Waking) -> None:
        self.http, self.ports, self.guard, self.waking = http, ports, guard, waking
        self.closed: list[str] = []
        """Why the asking listener closed connections."""

    async def post(self, verb: str, body: bytes | Json) -> tuple[int, Any]:
        """Send a body; give the status, and the answer decoded where it is JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(f"http://127.0.0.1:{self.ports['asking']}/{verb}", data=data) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(f"http://127.0.0.1:{self.ports['status']}/{path}") as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def serving(
    world: World,
    patches: Patches,
    *,
    pod_seconds: float = POD_SECONDS,
    limits: Limits = DEFAULT_LIMITS,
    certificates: Certificates | None = None,
    **options: Any,
) -> AsyncIterator[Extender]:
    """Serve a world on loopback by the extender's own servers in this event loop."""
    waking = Waking(world.cluster, patches, apart=0.2, pause=0.001)
    guard = Guard(world.cluster, waking, pod_seconds=pod_seconds)
    metrics = Metrics(world.cluster, waking, {})
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("asking", "status")}
    servers = Servers()
    ports = {name: listening.getsockname()[1] for name, listening in sockets.items()}
    async with aiohttp.ClientSession() as http:
        extender = Extender(http, ports, guard, waking)
        asking = Config(asking_app(guard, metrics, **options), limits, extender.closed.append, certificates)
        servers.add(sockets["asking"], asking)
        servers.add(sockets["status"], Config(status_app(world.view, metrics), DEFAULT_LIMITS, lambda _: None))
        tasks = [asyncio.create_task(waking.run()), asyncio.create_task(servers.run())]
        try:
            yield extender
        finally:
            await http.close()
            servers.end()
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for listening in sockets.values():
                listening.close()


Until = Callable[[Callable[[], object]], Awaitable[None]]
Serving = Callable[..., Any]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def patches() -> Patches:
    return Patches()


@pytest.fixture
def serve() -> Serving:
    return serving


@pytest.fixture
async def extender(world: World, patches: Patches) -> AsyncIterator[Extender]:
    """The extender over `world`, synced."""
    world.sync()
    async with serving(world, patches) as running:
        yield running


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Open a connection to the asking listener from an address of loopback."""
    opened: list[asyncio.StreamWriter] = []

    async def open_one(extender: Extender, address: str = STRANGER, **more: Any) -> Stream:
        port = extender.ports["asking"]
        stream = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0), **more)
        opened.append(stream[1])
        return stream

    yield open_one
    for writer in opened:
        writer.close()


@pytest.fixture
def until() -> Until:
    """Poll until a condition holds; fail after a generous while."""

    async def poll(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 (the condition may be about anything)
                await asyncio.sleep(0.005)

    return poll
