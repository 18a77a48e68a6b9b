"""The local cluster of tests, demo and benchmarks: a control plane with nodes, kubectl, and frequent actions.

with LocalCluster(nodes="dgx-a100:4") as cluster:
    cluster.kubectl("get", "nodes")
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from muster_dev.local import nodes as node_objects
from muster_dev.local.commands import Options
from muster_dev.local.control_plane import Component, ControlPlane
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress

__all__ = ["Component", "LocalCluster", "Options"]


class LocalCluster(ControlPlane):
    """A control plane with nodes."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        nodes: str = "",
        options: Options | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Describe the cluster without starting it; raise BadNodes unless `nodes` is as in "dgx-a100:4,p100:2"."""
        super().__init__(directory, options=options, progress=progress)
        self._nodes = node_objects.manifests(nodes)

    def start(self) -> Self:
        """Start everything and wait until the nodes are Ready; on an error stop everything again and raise it."""
        super().start()
        try:
            self.add_nodes(self._nodes)
        except BaseException:
            self.stop()
            raise
        return self

    def kubectl(self, *args: str | Path, stdin: str | None = None) -> str:
        """Run kubectl as administrator and return its output; raise LocalError with its errors if it fails."""
        command = [self.binaries["kubectl"], f"--kubeconfig={self.kubeconfig}", *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            words = " ".join(str(arg) for arg in args)
            raise LocalError(f"kubectl {words} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        """Create or update objects (kubectl apply --server-side)."""
        text = yaml.safe_dump_all([dict(manifest) for manifest in manifests])
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def create_namespace(self, name: str) -> None:
        """Create a namespace and wait until pods can be created in it, which takes its default service account."""
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        self.wait(lambda: self.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"), f"namespace {name} takes pods")

    def add_nodes(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        """Create Node objects (`nodes.manifests`) and wait until all of them are Ready and free of taints."""
        if not manifests:
            return
        names = {manifest["metadata"]["name"] for manifest in manifests}
        with self.progress.step(f"bringing up {len(names)} nodes"):
            self.api.create_all("/api/v1/nodes", manifests)
            self.wait(lambda: names <= self.ready_nodes(), f"{len(names)} nodes are Ready")

    def ready_nodes(self) -> set[str]:
        """Return the names of the nodes that take pods."""
        items = self.api.get("/api/v1/nodes?resourceVersion=0")["items"]
        return {node["metadata"]["name"] for node in items if node_objects.is_ready(node)}

    def silence_node(self, name: str) -> None:
        """Let a kwok node fail: kwok stops renewing its lease, and after the grace period the node is Unknown."""
        self.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {node_objects.KWOK: None}}})

    def revive_node(self, name: str) -> None:
        """Let kwok renew the lease of a silenced node again."""
        self.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {node_objects.KWOK: "fake"}}})
