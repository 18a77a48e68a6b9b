"""An extender as a process, with a real kube-scheduler that asks it on loopback, and the Service's listener beside that."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from muster.api import names
from muster_dev.local import commands, processes, stack
from muster_dev.local.cluster import Component, LocalCluster


@dataclass(frozen=True)
class Guarded:
    """The extender's ports on loopback, its process, and the name of the scheduler that asks it."""

    cluster: LocalCluster
    scheduler: str
    own: int
    status: int
    service: int
    pid: int


@contextmanager
def guarded(
    cluster: LocalCluster, scheduler: str, arguments: Sequence[str] = (), tls: dict[str, Any] | None = None
) -> Iterator[Guarded]:
    """Run both; with `tls`, settings of an entry in `extenders`, the scheduler asks over the Service's listener."""
    stack.define_resources(cluster)
    own, status, service, secure = processes.free_ports(4)
    url = f"https://127.0.0.1:{service}" if tls else f"http://127.0.0.1:{own}"
    settings = commands.scheduler_config(cluster.kubeconfig, scheduler, extender=url)
    settings["extenders"][0] |= tls or {}
    config = cluster.files.write_config(scheduler, settings)
    ports = (f"--port={own}", f"--metrics-port={status}", "--service-host=127.0.0.1", f"--service-port={service}")
    command = [sys.executable, "-P", "-m", "muster_extender", f"--kubeconfig={cluster.kubeconfig}", *ports, *arguments]
    parts = [
        Component(f"{scheduler}-extender", command, ready_url=f"http://127.0.0.1:{status}/readyz"),
        Component(
            f"{scheduler}-scheduler",
            [cluster.binaries["kube-scheduler"], *commands.scheduler(cluster.files, secure, config, cluster.options)],
            ready_url=f"https://127.0.0.1:{secure}/healthz",
        ),
    ]
    pids = [cluster.run(part) for part in parts]
    try:
        yield Guarded(cluster, scheduler, own, status, service, pids[0])
    finally:
        for part in reversed(parts):
            cluster.processes.stop(part.name)


def gpu_pod(name: str, gpus: int, scheduler: str, *, node: str | None = None, **meta: Any) -> dict[str, Any]:
    """A pod; with `node` for that node alone, by its label: the scheduler is to ask about it alone."""
    container = {"name": "train", "image": "train", "resources": {"limits": {names.GPU: gpus}}}
    spec: dict[str, Any] = {"schedulerName": scheduler, "containers": [container], "restartPolicy": "Never"}
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **meta}, "spec": spec}


def bound(cluster: LocalCluster, path: str) -> bool:
    """Whether the pod at this path has a node."""
    return bool(cluster.api.get(path)["spec"].get("nodeName"))
