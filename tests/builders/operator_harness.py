"""The operator's parts over the small API server: the test says when the stores are brought up to date, and what time it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from builders.api_server import ApiServer, serving
from builders.dljobs import NOW, Json, dljob
from builders.external_pods import external_json
from muster.api import names
from muster.kube import paths
from muster.kube.access import Access
from muster.kube.backoff import Backoff
from muster.kube.client import Client
from muster.kube.events import Recorder
from muster.kube.objects import DLJob, DLQueue, Node, Pod
from muster.scheduling.settings import Settings
from muster_operator import listeners
from muster_operator.api_writer import ApiWriter
from muster_operator.planning import VERBS, Planning
from muster_operator.steps import Steps
from muster_operator.stores import PodTemplate, PriorityClass, Service, Stores
from muster_operator.work_queue import NEVER, WorkQueue

SPACE = "vision"


class OperatorHarness:
    """A desk, its steps and its planning; `server` is the truth."""

    def __init__(self, server: ApiServer, client: Client) -> None:
        self.server, self.now = server, NOW
        self.stores = Stores()
        self.recorder = Recorder(client, "muster-operator", per_second=1e6)
        self.work_queue = WorkQueue(self.stores, ApiWriter(client, self.stores), self.recorder, clock=lambda: self.now)
        self.steps, self.planning = Steps(self.work_queue), Planning(self.work_queue, Settings(verbs=VERBS))

    # The cluster

    def node(self, name: str, gpus: int = 4, *, ready: bool = True, **meta: Any) -> None:
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"allocatable": {names.GPU: str(gpus)}, "conditions": conditions}
        self.server.put(paths.nodes(), {"metadata": {"name": name, **meta}, "status": status})

    def submit(self, name: str = "vgg16", **fields: Any) -> Json:
        return self.server.put(paths.dljobs(SPACE), dljob(name, **fields))

    def pod(self, name: str, gpus: int = 1, **fields: Any) -> Json:
        """Put a pod that muster did not create."""
        return self.server.put(paths.pods(SPACE), external_json(name, gpus, **fields))

    def change(self, path: str, **parts: Json) -> None:
        """Merge into an object what somebody else writes."""
        body = self.server.objects[path]
        merged = {key: {**(body.get(key) or {}), **value} for key, value in parts.items()}
        self.server.put(path.rpartition("/")[0], {**body, **merged})

    def run_pods(self, phase: str = "Running") -> None:
        """Bind every pod that is pinned, and let it come to this phase."""
        for pod in self.server.of("pods"):
            field = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            node = field["nodeSelectorTerms"][0]["matchFields"][-1]["values"][0]
            self.change(paths.pods(SPACE, pod["metadata"]["name"]), spec={"nodeName": node}, status={"phase": phase})

    def end_pods(self) -> None:
        """Let the kubelets confirm the end of the pods that are leaving."""
        for pod in self.server.of("pods"):
            if "deletionTimestamp" in pod["metadata"]:
                self.server.drop(paths.pods(SPACE, pod["metadata"]["name"]))

    # What there is

    def status(self, name: str = "vgg16") -> Json:
        found: Json = self.server.objects[paths.dljobs(SPACE, name)]["status"] or {}
        return found

    def admitted(self, name: str = "vgg16") -> tuple[str, str]:
        """Reason and message of the condition Admitted."""
        found = next(c for c in self.status(name)["conditions"] if c["type"] == "Admitted")
        return found["reason"], found["message"]

    def pods(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in self.server.of("pods"))

    def metadata(self, pod: str) -> Json:
        found: Json = self.server.objects[paths.pods(SPACE, pod)]["metadata"]
        return found

    async def events(self) -> list[tuple[str, str, str]]:
        """Type, object and reason of every event posted so far."""
        await self.recorder.drain(30)
        return [(e["type"], e["involvedObject"]["name"], e["reason"]) for e in self.server.of("events")]

    # The operator

    def sync(self, but: str = "") -> None:
        """Bring the stores, save one, to what a list of the server would say now."""
        view = self.stores.view
        kinds: list[tuple[Any, str, type[Any]]] = [
            (view.nodes, "nodes", Node),
            (view.pods, "pods", Pod),
            (self.stores.queues, "dlqueues", DLQueue),
            (self.stores.services, "services", Service),
            (self.stores.priorities, "priorityclasses", PriorityClass),
            (self.stores.templates, "podtemplates", PodTemplate),
            (view.jobs, "dljobs", DLJob),
        ]
        for store, plural, kind in (kind for kind in kinds if kind[1] != but):
            items = [msgspec.json.decode(json.dumps(obj), type=kind) for obj in self.server.of(plural)]
            watched = [item for item in items if plural != "services" or item.metadata.label(listeners.OURS)]
            store.replace_all(watched, self.server.revision)

    async def look(self) -> None:
        """Let every job that changed do its next piece of work, and wait for it."""
        for key in self.work_queue.due(self.now):
            self.steps.look_at(key, self.now)
        await self.idle()

    async def turn(self, times: int = 1, seconds: float = 0.0) -> None:
        """What the controller does: jobs, then the plan; the stores are up to date before each turn, the work done after it."""
        for _ in range(times):
            self.now += seconds
            self.sync()
            for key in self.work_queue.due(self.now):
                self.steps.look_at(key, self.now)
            self.work_queue.plan_at = NEVER
            await self.planning.run(self.now)
            await self.idle()

    async def until(self, condition: Callable[[], object]) -> None:
        """Poll until a condition holds; fail after a generous while."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 (the condition may be about anything)
                await asyncio.sleep(0.002)

    async def idle(self) -> None:
        await self.until(lambda: not self.work_queue.in_flight)


@asynccontextmanager
async def opened() -> AsyncIterator[OperatorHarness]:
    """A harness over an empty API server."""
    async with serving() as server, Client(Access(server.url), backoff=Backoff(base=0.001, cap=0.01)) as client:
        harness = OperatorHarness(server, client)
        posting = asyncio.create_task(harness.recorder.run())
        yield harness
        harness.work_queue.stop()
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
