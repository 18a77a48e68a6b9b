"""The operator over the small API server: the test says when the stores are brought up to date, and what time it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from builders.api_server import ApiServer, serving
from builders.dljobs import NOW, Json, dljob
from builders.external_pods import external_json
from muster.api import names
from muster.kube import paths
from muster.kube.access import Access
from muster.kube.backoff import Backoff
from muster.kube.client import Client
from muster.kube.events import Recorder
from muster.scheduling.settings import Settings
from muster_operator.api_writer import ApiWriter
from muster_operator.controller import Context
from muster_operator.dljob.controller import DLJobs
from muster_operator.dljob.gang import resources_of
from muster_operator.dljob.job import Job
from muster_operator.dljob.watch import key_of
from muster_operator.external_pods.controller import ExternalPods
from muster_operator.loop import Loop
from muster_operator.node_loss import NodeLoss
from muster_operator.planning.executors import VERBS
from muster_operator.planning.planning import Planning
from muster_operator.registration import controllers
from muster_operator.reporting import Reporter
from muster_operator.storage.storage import Storage
from muster_operator.stores import Stores
from muster_operator.work_queue import NEVER, WorkQueue

SPACE = "vision"
NODE_LOSS_GRACE = 20.0
"""Seconds that a node may be NotReady here."""


class OperatorHarness:
    """The operator's parts; `server` is the truth."""

    def __init__(self, server: ApiServer, client: Client) -> None:
        self.server, self.client, self.now = server, client, NOW
        self.recorder = Recorder(client, "muster-operator", per_second=1e6)
        self.clock: Callable[[], float] = lambda: self.now
        self.pace: Callable[[], float] = lambda: self.clock()
        self.endless: dict[str, asyncio.Event] = {}
        self.start()

    def start(self) -> None:
        """Begin with empty stores, as a process does."""
        reporter = Reporter(self.recorder)
        self.stores = Stores(resources_of)
        self.stores.view.vouch(True)
        self.work_queue = WorkQueue(reporter.failed, clock=lambda: self.clock(), pace=lambda: self.pace())
        node_loss = NodeLoss(self.stores.view.nodes, self.work_queue.pace, NODE_LOSS_GRACE)
        storage = Storage(self.stores, self.work_queue)
        self.context = Context(self.stores, self.work_queue, ApiWriter(self.client, self.stores), reporter, node_loss, storage)
        self.controllers = controllers(self.context)
        self.planning = Planning(self.context, self.controllers, Settings(verbs=VERBS))
        self.loop = Loop(self.context, self.controllers, self.planning)
        self.dljobs = next(each for each in self.controllers if isinstance(each, DLJobs))
        self.external_pods = next(each for each in self.controllers if isinstance(each, ExternalPods))

    def restart(self) -> None:
        """Stop the operator and begin anew; it knows nothing until the stores are brought up to date."""
        self.work_queue.stop()
        self.start()

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

    def job(self, name: str = "vgg16") -> Job:
        """A DLJob as last read."""
        job = self.dljobs.jobs.get(f"{SPACE}/{name}")
        assert job is not None, f"there is no job {name} that can be read"
        return job

    def jobs(self) -> set[str]:
        """The names of the jobs that can be read."""
        return {job.meta.name for job in self.dljobs.jobs.all()}

    def later(self, name: str = "vgg16") -> float:
        """When a job is reconciled next although nothing changes."""
        return self.work_queue.later.get(key_of(f"{SPACE}/{name}"), NEVER)

    def keep_busy(self, name: str) -> None:
        """Have work in flight for a job, until `release`."""
        done = self.endless[name] = asyncio.Event()

        async def work() -> None:
            await done.wait()

        self.work_queue.start(key_of(f"{SPACE}/{name}"), work())

    async def release(self, name: str) -> None:
        """End the work that keeps a job busy."""
        self.endless.pop(name).set()
        await self.idle()

    def sync(self, only: str = "", *, but: str = "") -> None:
        """Bring the stores, or one, or all save one, to what a list of the server would say now."""
        for resource, store in self.stores.watched.items():
            if resource.plural != but and only in ("", resource.plural):
                objects = [resource.decode(json.dumps(obj).encode()) for obj in self.server.of(resource.plural)]
                store.replace_all((obj for obj in objects if _selected(obj, resource.label_selector)), self.server.revision)

    def due(self) -> list[str]:
        """Take the jobs that are due, by name."""
        return [key.name.removeprefix(f"{SPACE}/") for key in self.work_queue.due()]

    async def look(self) -> None:
        """Let every job that changed do its next piece of work, and wait for it."""
        self.reconcile()
        await self.idle()

    def reconcile(self) -> None:
        """Start the next piece of work of every object that is due."""
        by_kind = {controller.kind: controller for controller in (*self.controllers, self.planning.telling)}
        for key in self.work_queue.due():
            by_kind[key.kind].reconcile(key.name, self.now)

    async def plan(self) -> None:
        """Plan, and carry the plan out."""
        self.work_queue.begin_plan()
        await self.planning.run(self.now)

    async def turn(self, times: int = 1, seconds: float = 0.0) -> None:
        """What the loop does: jobs, then the plan; the stores are up to date before each turn, the work done after it."""
        for _ in range(times):
            self.now += seconds
            self.sync()
            self.reconcile()
            await self.plan()
            await self.idle()

    async def until(self, condition: Callable[[], object]) -> None:
        """Poll until a condition holds; fail after a generous while."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 (the condition may be about anything)
                await asyncio.sleep(0.002)

    async def idle(self) -> None:
        """Wait until no work is in flight but what keeps jobs busy."""
        await self.until(lambda: self.work_queue.in_flight == {key_of(f"{SPACE}/{name}") for name in self.endless})


def _selected(obj: Any, label: str) -> bool:
    return not label or obj.metadata.label(label) is not None


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
