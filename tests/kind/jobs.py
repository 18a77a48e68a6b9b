"""Jobs of one namespace of the kind cluster, used by kubectl as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import yaml

from muster.api import names
from muster_dev.kind.cluster import Cluster
from muster_dev.kind.images import PROJECT
from muster_dev.local.waiting import until

PATIENCE: Final = 240.0
"""Seconds; a killed node counts as lost after 50."""
Object = dict[str, Any]


class Jobs:
    """The namespace's jobs and pods."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *words: str | Path) -> str:
        """Run kubectl in the namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *words)

    def apply(self, *manifests: Mapping[str, Any], folder: Path) -> None:
        """Apply objects by way of a file in `folder`."""
        file = folder / f"{manifests[0]['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump_all([dict(manifest) for manifest in manifests]))
        self.kubectl("apply", "--filename", file)

    def get(self, kind: str, name: str) -> Object:
        """Return an object."""
        item: Object = json.loads(self.kubectl("get", kind, name, "--output", "json"))
        return item

    def pods(self, selector: str) -> list[Object]:
        """Return the pods of a selector, ordered by name."""
        items: list[Object] = json.loads(self.kubectl("get", "pods", "--selector", selector, "--output", "json"))["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def gang(self, job: str) -> list[Object]:
        """Return the pods of a DLJob, ordered by name."""
        return self.pods(f"{names.JOB}={job}")

    def phase(self, job: str) -> str | None:
        """Return the phase of a DLJob."""
        phase: str | None = self.get("dljob", job).get("status", {}).get("phase")
        return phase

    def until_phase(self, job: str, phase: str) -> None:
        """Wait until a DLJob is in a phase; on a timeout show its state."""
        self.until(lambda: self.phase(job) == phase, f"{job} is {phase}")

    def until(self, true: Callable[[], object], what: str) -> None:
        """Wait; on a timeout show the state of the namespace."""
        try:
            until(true, what, seconds=PATIENCE)
        except Exception as error:
            shown = self.kubectl("get", "dljobs,jobs,pods", "--output", "wide")
            raise AssertionError(f"{error}\n{shown}\n{self.kubectl('get', 'dljobs', '--output', 'yaml')}") from None

    @contextmanager
    def follow(self, pod: str) -> Iterator[IO[str]]:
        """Follow a pod's log, which can be read to its end even after the pod is removed."""
        program = self.cluster.programs["kubectl"]
        words = self.cluster.engine.command(program, "--namespace", self.namespace, "logs", "--follow", pod)
        environment = os.environ | self.cluster.environment
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout
        try:
            yield process.stdout
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # kubectl and the command that entered the engine's network
            process.wait()
            process.stdout.close()

    def free_gpus(self) -> int:
        """Return the number of the cluster's GPUs that no pod holds."""
        nodes = json.loads(self.cluster.kubectl("get", "nodes", "--output", "json"))["items"]
        pods = json.loads(self.cluster.kubectl("get", "pods", "--all-namespaces", "--output", "json"))["items"]
        total = sum(int(node["status"]["allocatable"].get(names.GPU, 0)) for node in nodes)
        return total - sum(_gpus(pod) for pod in pods if pod["status"]["phase"] in ("Pending", "Running"))


@contextmanager
def namespace(cluster: Cluster, name: str) -> Iterator[Jobs]:
    """Create a namespace that accepts pods, and delete it with its jobs afterwards."""
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("wait", "--namespace", name, "--for=create", "serviceaccount/default")  # without it no pod is accepted
        yield Jobs(cluster, name)
    finally:
        cluster.kubectl("delete", "namespace", name, "--timeout=120s")


def _gpus(pod: Object) -> int:
    return sum(int(c["resources"].get("limits", {}).get(names.GPU, 0)) for c in pod["spec"]["containers"])


def allreduce(name: str, *, workers: int = 4, gpus: int = 2, arguments: Sequence[str] = (), **spec: Any) -> Object:
    """Return the DLJob of examples/allreduce.yaml with another name, size and arguments."""
    manifest: Object = yaml.safe_load((PROJECT / "examples" / "allreduce.yaml").read_text())
    manifest["metadata"]["name"] = name
    manifest["spec"] |= spec
    worker = manifest["spec"]["roles"]["worker"]
    worker["replicas"] = workers
    (container,) = worker["template"]["spec"]["containers"]
    container["command"] = [*container["command"][:2], *arguments]
    container["resources"]["limits"][names.GPU] = gpus
    return manifest


def pod_spec(gpus: int, *command: str) -> Object:
    """Return the spec of a pod outside of any DLJob that asks muster's scheduler for GPUs."""
    container = {"name": "main", "image": "muster-runtime:0.1.0", "command": list(command)}
    return {
        "schedulerName": names.SCHEDULER,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container | {"resources": {"limits": {names.GPU: gpus}}}],
    }


def nodes_of(pods: Sequence[Object]) -> list[str]:
    """Return the nodes of pods, in the pods' order."""
    return [pod["spec"]["nodeName"] for pod in pods]
