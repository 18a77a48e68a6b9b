"""The whole product on a real control plane, as a test of it sees it: a namespace, what to apply there, what to wait for.

Everything is read from the API server anew each time: nothing here remembers, and waiting is polling with a long deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from muster import machines
from muster.api import names
from muster.kube.client import Propagation
from muster.kube.errors import NotFound
from muster_dev.local import nodes, stack
from muster_dev.local.api import Api
from muster_dev.local.cluster import LocalCluster

Json = dict[str, Any]
HOLD = "test/hold"
"""A scheduling gate of the test's own: a pod that has it stays Pending, and its gang Admitted, until `let_run`."""
POOL = "test/pool"
"""Label of the nodes that a test added for itself."""


def template(gpus: int, *, run: int | None = None, hold: bool = False, pool: str | None = None, **spec: Any) -> Json:
    """A pod template that asks for `gpus` in each pod; `run`: seconds until kwok lets it succeed."""
    container = {"name": "train", "image": "train", "resources": {"limits": {names.GPU: gpus}}}
    body: Json = {"containers": [container], **spec}
    if hold:
        body["schedulingGates"] = [{"name": HOLD}]
    if pool:
        body["nodeSelector"] = {POOL: pool}
    return {"metadata": {"annotations": {names.RUN_SECONDS: str(run)} if run is not None else {}}, "spec": body}


@dataclass
class Live:
    """One namespace of the cluster."""

    cluster: LocalCluster
    namespace: str
    added: list[str] = field(default_factory=list)
    """Nodes of this test's pool."""
    acting: Api | None = None
    """As whom objects of the namespace are created, changed and deleted; None: as the administrator."""

    @property
    def api(self) -> Api:
        """The API server as it is written to."""
        return self.acting or self.cluster.api

    def by(self, api: Api) -> Live:
        """Return the same namespace as another user writes to it."""
        return replace(self, acting=api)

    def by_muster(self) -> Live:
        """Return the same namespace as the operator writes to it, who alone may write muster's own names."""
        return self.by(self.cluster.api_for(stack.ACCOUNTS.operator, "system:masters"))

    # Paths

    def path(self, kind: str, name: str = "") -> str:
        groups = {
            "dljobs": f"apis/{names.API_VERSION}",
            "dlqueues": f"apis/{names.API_VERSION}",
            "jobs": "apis/batch/v1",
            "events": "api/v1",
            "podtemplates": "api/v1",
            "pods": "api/v1",
            "services": "api/v1",
            "resourcequotas": "api/v1",
            "limitranges": "api/v1",
            "persistentvolumeclaims": "api/v1",
        }
        return f"/{groups[kind]}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    # Creating

    def job(self, name: str, replicas: int, gpus: int, *, meta: Json | None = None, **more: Any) -> Json:
        """Create a DLJob of workers; keywords of `template` go there, all others are fields of its spec."""
        own = {key: more.pop(key) for key in ("run", "hold", "pool", "nodeSelector", "resources", "volumes") if key in more}
        roles = {"worker": {"replicas": replicas, "template": template(gpus, **own)}}
        return self.create("dljobs", {"metadata": {"name": name, **(meta or {})}, "spec": {"roles": roles, **more}})

    def pod(
        self,
        name: str,
        gpus: int,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        owners: list[Json] | None = None,
        scheduler: str = names.SCHEDULER,
        run: int | None = None,
        **more: Any,
    ) -> Json:
        """Create a bare pod that names muster's scheduler."""
        made = template(gpus, run=run, schedulerName=scheduler, restartPolicy="Never", **more)
        meta: Json = {
            "name": name,
            "labels": dict(labels or {}),
            "annotations": made["metadata"]["annotations"] | dict(annotations or {}),
        }
        if owners:
            meta["ownerReferences"] = owners
        return self.create("pods", {"metadata": meta, "spec": made["spec"]})

    def member(self, name: str, gpus: int, gang: str, size: int, **more: Any) -> Json:
        """Create a bare pod of a labelled gang."""
        annotations = {names.GANG_SIZE: str(size), **more.pop("annotations", {})}
        return self.pod(name, gpus, labels={names.GANG: gang}, annotations=annotations, **more)

    def create(self, kind: str, body: Json) -> Json:
        versions = {"dljobs": names.API_VERSION, "dlqueues": names.API_VERSION, "jobs": "batch/v1"}
        kinds = {
            "dljobs": "DLJob",
            "dlqueues": "DLQueue",
            "jobs": "Job",
            "pods": "Pod",
            "podtemplates": "PodTemplate",
            "resourcequotas": "ResourceQuota",
            "limitranges": "LimitRange",
            "persistentvolumeclaims": "PersistentVolumeClaim",
        }
        head = {"apiVersion": versions.get(kind, "v1"), "kind": kinds[kind]}
        made: Json = self.api.create(self.path(kind), head | body)
        return made

    def add_nodes(self, count: int, machine: str = "pcie-8", racks: int = 1) -> list[str]:
        """Add nodes that only this test's pods of its pool ask for; return their names."""
        kind = machines.machine(machine)
        made = []
        for index in range(count):
            name, rack = f"{self.namespace}-{len(self.added) + index}", f"{self.namespace}-rack-{index % racks}"
            manifest = nodes.node(kind, name, rack, f"{self.namespace}-block", kwok=True)
            manifest["metadata"]["labels"][POOL] = self.namespace
            made.append(manifest)
        self.added += [manifest["metadata"]["name"] for manifest in made]
        self.cluster.add_nodes(made)
        return [manifest["metadata"]["name"] for manifest in made]

    # Changing

    def patch(self, kind: str, name: str, body: Json) -> None:
        self.api.patch(self.path(kind, name), body)

    def patch_status(self, job: str, status: Json) -> None:
        """Change what muster wrote of a DLJob."""
        self.cluster.api.patch(self.path("dljobs", job) + "/status", {"status": status})

    def annotate(self, kind: str, name: str, **annotations: str | None) -> None:
        """Annotate by the constants of muster.api.names, in lower case: annotate("dljobs", "a", suspend="true")."""
        values = {getattr(names, key.upper()): value for key, value in annotations.items()}
        self.patch(kind, name, {"metadata": {"annotations": values}})

    def delete(self, kind: str, name: str, *, propagation: Propagation | None = None) -> None:
        self.api.delete(self.path(kind, name), propagation=propagation)

    def let_run(self, job: str | None = None) -> None:
        """Take the test's own gate off the pods of a DLJob, or of the namespace."""
        for pod in self.pods(job):
            gates = pod["spec"].get("schedulingGates", [])
            if {"name": HOLD} in gates:
                rest = [gate for gate in gates if gate["name"] != HOLD]
                self.patch("pods", pod["metadata"]["name"], {"spec": {"schedulingGates": rest}})

    def let_end(self, job: str) -> None:
        """Have kwok let every pod of a job succeed."""
        for pod in self.pods(job):
            self.annotate("pods", pod["metadata"]["name"], run_seconds="0")

    def fail(self, pod: str, **status: Any) -> None:
        """Let a pod fail, as a kubelet would report it."""
        ended = {"exitCode": 3, "reason": "Error"}
        state = {
            "name": "train",
            "image": "train",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        body = {"phase": "Failed", "containerStatuses": [state], **status}
        self.cluster.api.patch(self.path("pods", pod) + "/status", {"status": body})

    # Reading

    def get(self, kind: str, name: str) -> Json:
        found: Json = self.cluster.api.get(self.path(kind, name))
        return found

    def items(self, kind: str) -> list[Json]:
        found: list[Json] = self.cluster.api.get(self.path(kind))["items"]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    def pods(self, job: str | None = None) -> list[Json]:
        """The pods of the namespace, or of one of its jobs, by name."""
        found = self.items("pods")
        if job is None:
            return found
        return [pod for pod in found if pod["metadata"].get("labels", {}).get(names.JOB) == job == _owner(pod)]

    def status(self, job: str) -> Json:
        found: Json = self.get("dljobs", job).get("status", {})
        return found

    def condition(self, job: str, kind: str) -> Json:
        """A condition of a job; empty if it was never told."""
        return next((c for c in self.status(job).get("conditions", []) if c["type"] == kind), {})

    def timeline(self, job: str) -> list[str]:
        return [event["event"] for event in self.status(job).get("timeline", [])]

    def told(self, name: str, words: str) -> bool:
        """Whether an event about an object of that name says these words."""
        return any(words in e.get("message", "") for e in self.items("events") if e["involvedObject"]["name"] == name)

    def nodes_of(self, job: str) -> set[str]:
        return {place["node"] for place in self.status(job).get("placement", [])}

    # Waiting

    def wait(self, true: Callable[[], object], what: str) -> None:
        """Poll; where it is in vain, the error shows what the namespace looks like."""
        try:
            self.cluster.wait(true, what)
        except Exception as error:
            jobs = {job["metadata"]["name"]: job.get("status", {}) for job in self.items("dljobs")}
            pods = {pod["metadata"]["name"]: (pod["spec"].get("nodeName"), pod["status"]["phase"]) for pod in self.pods()}
            raise AssertionError(f"{error}; jobs: {jobs}; pods: {pods}") from error

    def wait_past(self, job: str) -> None:
        """Wait until a new object gets a later creation time than a job's; the API server's clock counts seconds."""
        came = datetime.fromisoformat(self.get("dljobs", job)["metadata"]["creationTimestamp"]).timestamp()
        self.wait(lambda: time.time() >= came + 1, "the next second has begun")

    def wait_phase(self, job: str, *phases: str) -> Json:
        """Wait until a job is in one of these phases; return its status as it was then."""
        seen: Json = {}

        def there() -> bool:
            seen.clear()
            seen.update(self.status(job))
            return seen.get("phase") in phases

        self.wait(there, f"{job} is {' or '.join(phases)}")
        return seen

    def wait_reason(self, job: str, reason: str) -> str:
        """Wait until a job is not admitted for this reason; return the sentence."""
        self.wait(lambda: self.condition(job, "Admitted").get("reason") == reason, f"{job} waits for {reason}")
        return str(self.condition(job, "Admitted")["message"])

    def wait_running(self, job: str, replicas: int) -> Json:
        """Wait until the whole gang runs; check that its pods are those of the placement, and return the status."""
        status = self.wait_phase(job, "Running")
        placed = {place["pod"]: place["node"] for place in status["placement"]}
        found = {pod["metadata"]["name"]: pod["spec"].get("nodeName") for pod in self.pods(job)}
        assert found == placed
        assert len(placed) == replicas
        return status

    def wait_pods(self, count: int, phase: str, job: str | None = None) -> list[Json]:
        """Wait until there are `count` pods, all of them in this phase."""

        def there() -> bool:
            found = self.pods(job)
            return len(found) == count and all(pod["status"]["phase"] == phase for pod in found)

        self.wait(there, f"{count} pods are {phase}")
        return self.pods(job)

    def wait_nothing_held(self, job: str) -> None:
        """Wait until a job has no pod that could hold a GPU, no reservation and no Service."""

        def free() -> bool:
            held = [pod for pod in self.pods(job) if pod["status"]["phase"] not in ("Succeeded", "Failed")]
            return not held and not self.status(job).get("placement") and not self.exists("services", job)

        self.wait(free, f"{job} holds nothing")

    def wait_no_pods(self, job: str) -> None:
        """Wait until no pod of the job is left, be it one that has ended."""
        self.wait(lambda: not self.pods(job), f"the pods of {job} are gone")

    def exists(self, kind: str, name: str) -> bool:
        return self.cluster.exists(self.path(kind, name))

    def clear(self) -> None:
        """Delete what the test made, and check that muster leaves nothing behind."""
        for kind in ("dljobs", "jobs", "dlqueues", "resourcequotas", "limitranges", "podtemplates", "persistentvolumeclaims"):
            for item in self.items(kind):
                self._delete(kind, item["metadata"]["name"])
        for pod in self.pods():
            if not pod["metadata"].get("ownerReferences"):
                self._delete("pods", pod["metadata"]["name"])
        made = ("dljobs", "jobs", "pods", "podtemplates", "services")
        self.wait(lambda: not any(self.items(kind) for kind in made), "nothing is left")
        for name in self.added:
            if self.cluster.exists(f"/api/v1/nodes/{name}"):
                self.cluster.api.delete(f"/api/v1/nodes/{name}")

    def _delete(self, kind: str, name: str) -> None:
        with suppress(NotFound):
            self.delete(kind, name, propagation="Background")


def _owner(pod: Json) -> str | None:
    """The DLJob that a pod belongs to."""
    return next((owner["name"] for owner in pod["metadata"].get("ownerReferences", ()) if owner["kind"] == "DLJob"), None)
