"""Every change of pods and DLJobs of a real cluster, in the order in which etcd had them, to be judged afterwards.

Resource versions are one sequence over all kinds, so two watches merged by it give each state that the cluster was ever in:
what is checked over a history is checked at every moment of it, not where a test happened to look.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, Self
from urllib.parse import urlsplit

from muster.api import names
from muster_dev.local.cluster import LocalCluster

Json = dict[str, Any]
PATHS = {"pods": "/api/v1/pods", "dljobs": f"/apis/{names.API_VERSION}/dljobs"}
Gpu = tuple[str, int]


class History:
    """Watches from `with` on; ends with it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._events: list[tuple[int, str, Json | None, float]] = []
        self._lock = threading.Lock()
        self._connections: list[http.client.HTTPSConnection] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self._since = 0
        """The lists are of two moments; from the later one on the states are whole."""

    def __enter__(self) -> Self:
        for kind, path in PATHS.items():
            listing = self._cluster.api.get(path)
            for item in listing["items"]:
                self._note(kind, "ADDED", item)
            self._since = int(listing["metadata"]["resourceVersion"])
            thread = threading.Thread(target=self._follow, args=(kind, path, self._since), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for connection in self._connections:
            with suppress(OSError):
                if connection.sock:
                    connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _follow(self, kind: str, path: str, version: int) -> None:
        """Watch from `version` on, and again where a watch ends: the API server ends those of slow readers."""
        while not self._ended.is_set():
            url = urlsplit(self._cluster.url)
            connection = http.client.HTTPSConnection(url.hostname or "", url.port, context=self._cluster.access.tls)
            self._connections.append(connection)
            with suppress(OSError, ValueError, http.client.HTTPException), closing(connection):
                connection.request("GET", f"{path}?watch=1&resourceVersion={version}")
                for line in connection.getresponse():
                    event = json.loads(line)
                    assert event["type"] != "ERROR", event
                    self._note(kind, event["type"], event["object"])
                    version = int(event["object"]["metadata"]["resourceVersion"])

    def _note(self, kind: str, change: str, obj: Json) -> None:
        meta = obj["metadata"]
        key = f"{kind}/{meta['namespace']}/{meta['name']}"
        with self._lock:
            self._events.append((int(meta["resourceVersion"]), key, None if change == "DELETED" else obj, time.time()))

    def states(self) -> Iterator[State]:
        """Each state of the cluster since the beginning of the watch, oldest first; the same object, changed."""
        return (state for version, state in self._replay() if version > self._since)

    def now(self) -> State:
        """The last state known."""
        last = State()
        for _, last in self._replay():  # noqa: B007
            pass
        return last

    def _replay(self) -> Iterator[tuple[int, State]]:
        with self._lock:
            events = sorted(self._events, key=lambda event: event[0])
        state = State()
        for version, key, obj, seen in events:
            state.change(key, obj, seen)
            yield version, state

    def wait(self, true: Callable[[State], object], what: str) -> None:
        self._cluster.wait(lambda: true(self.now()), what)


class State:
    """The objects at one moment, and who holds each GPU."""

    def __init__(self) -> None:
        self.pods: dict[str, Json] = {}
        self.jobs: dict[str, Json] = {}
        self.changed: str = ""
        self.seen = 0.0
        self._held: dict[str, set[Gpu]] = {}
        self._holders: dict[Gpu, set[str]] = {}

    def change(self, key: str, obj: Json | None, seen: float) -> None:
        kind, name = key.split("/", 1)
        objects = self.pods if kind == "pods" else self.jobs
        objects.pop(name, None)
        if obj is not None:
            objects[name] = obj
        self.changed, self.seen = key, seen
        holds = {} if obj is None else (pod_holds(name, obj) if kind == "pods" else job_holds(obj))
        self._replace(key, holds)

    def _replace(self, key: str, holds: dict[Gpu, str]) -> None:
        for gpu in self._held.pop(key, set()):
            self._holders[gpu] = {h for h in self._holders[gpu] if not h.startswith(f"{key} ")}
        self._held[key] = set(holds)
        for gpu, task in holds.items():
            self._holders.setdefault(gpu, set()).add(f"{key} {task}")

    def given_twice(self) -> dict[Gpu, set[str]]:
        """GPUs of the object changed last that two tasks hold, by reservation or by pod."""
        found = {gpu: {h.split(" ")[1] for h in self._holders[gpu]} for gpu in self._held.get(self.changed, ())}
        return {gpu: tasks for gpu, tasks in found.items() if len(tasks) > 1}

    def status(self, job: str) -> Json:
        status: Json = self.jobs.get(job, {}).get("status", {})
        return status

    def phases(self) -> list[str]:
        return [job.get("status", {}).get("phase", "") for job in self.jobs.values()]

    def not_whole(self) -> str | None:
        """A job that was just now called Running although a pod of its placement does not run."""
        kind, name = self.changed.split("/", 1)
        job = self.jobs.get(name) if kind == "dljobs" else None
        if job is None or job.get("status", {}).get("phase") != "Running":
            return None
        namespace = job["metadata"]["namespace"]
        for place in job["status"]["placement"]:
            pod = self.pods.get(f"{namespace}/{place['pod']}")
            if (
                pod is None
                or pod["status"]["phase"] not in ("Running", "Succeeded")
                or pod["spec"]["nodeName"] != place["node"]
            ):
                return f"{name}: pod {place['pod']} is {pod and pod['status']}"
        return None


def pod_holds(name: str, pod: Json) -> dict[Gpu, str]:
    """The GPUs that a pod holds from the moment it was let go until it ends."""
    gated = any(gate["name"] == names.GATE for gate in pod["spec"].get("schedulingGates", []))
    gpus = pod["metadata"].get("annotations", {}).get(names.GPUS)
    if pod["status"]["phase"] in ("Succeeded", "Failed") or gated or not gpus:
        return {}
    node = pod["spec"].get("nodeName") or pinned(pod)
    return {(node, int(gpu)): name for gpu in gpus.split(",")}


def pinned(pod: Json) -> str:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return str(affinity["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])


def job_holds(job: Json) -> dict[Gpu, str]:
    places = job.get("status", {}).get("placement", [])
    namespace = job["metadata"]["namespace"]
    return {(place["node"], gpu): f"{namespace}/{place['pod']}" for place in places for gpu in place.get("gpus", [])}
