"""muster on a local cluster: its API, its processes, and the kube-scheduler that asks its extender.

The parts run from this Python environment. Each has an account of its own, by which the admission policies know it, and the
administrator's rights.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muster.api import crd, gate_policy, names, write_policies
from muster_dev.local import commands, processes
from muster_dev.local.cluster import Component, LocalCluster
from muster_dev.local.control_plane import ATTEMPTS
from muster_dev.local.processes import ProcessDied

SCHEDULER = "muster-scheduler"
"""The name of the process; its schedulerName is muster.api.names.SCHEDULER."""
ACCOUNTS = write_policies.Accounts("muster-operator", SCHEDULER, "muster-agent", per_node=False)
"""The user names of the parts; one agent serves all nodes."""
NODE_LOSS = "--node-loss-grace-seconds=5"
"""The operator's argument: less than on a real cluster, since kwok's nodes fall silent only where somebody wants to see it."""
PARTS = ("muster-operator", "muster-agent", SCHEDULER, "muster-extender")
"""The processes of muster, in the order in which they stop."""


def install(cluster: LocalCluster, *, manifests: Iterable[Mapping[str, Any]] = ()) -> None:
    """Install muster's API and `manifests`, then start the parts and wait for them."""
    with cluster.progress.step("installing muster's API"):
        define_resources(cluster)
        cluster.apply([*gate_policy.manifests(), *write_policies.manifests(ACCOUNTS), *manifests])
    start(cluster)


def define_resources(cluster: LocalCluster) -> None:
    """Create or update the definitions of muster's custom resources, and wait until the API server serves them."""
    definitions = crd.manifests()
    cluster.apply(definitions)
    for definition in definitions:
        name = definition["metadata"]["name"]
        cluster.wait(partial(_established, cluster, name), f"{name} is established")


def start(cluster: LocalCluster) -> None:
    """Start the parts of an installed muster and wait for them."""
    with cluster.progress.step("starting muster: operator, extender, scheduler, agents"):
        _start(cluster)


def stop(cluster: LocalCluster) -> None:
    """Stop the parts; the objects that they wrote stay."""
    with cluster.progress.step("stopping muster"):
        for name in PARTS:
            cluster.processes.stop(name)


def _established(cluster: LocalCluster, name: str) -> bool:
    definition = cluster.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    conditions = definition.get("status", {}).get("conditions") or []  # null at first
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def kubeconfig(cluster: LocalCluster, account: str) -> Path:
    """Return the kubeconfig of one of the accounts, which has the administrator's rights."""
    return cluster.kubeconfig_for(account, "system:masters")


def components(cluster: LocalCluster, ports: Sequence[int]) -> list[Component]:
    """Return muster's parts in their order of starting; `ports` are those of extender (two), scheduler and operator."""
    extender, status, scheduler, operator = ports
    url = f"http://127.0.0.1:{extender}"
    operators, schedulers, agents = (
        kubeconfig(cluster, each) for each in (ACCOUNTS.operator, ACCOUNTS.scheduler, ACCOUNTS.agent)
    )
    config = cluster.files.write_config(SCHEDULER, commands.scheduler_config(schedulers, names.SCHEDULER, extender=url))
    arguments = commands.scheduler(cluster.files, scheduler, config, cluster.options)
    return [
        _part(
            schedulers,
            "extender",
            f"--port={extender}",
            f"--metrics-port={status}",
            port=status,
            ready_url=f"http://127.0.0.1:{status}/readyz",
        ),
        Component(
            SCHEDULER,
            [cluster.binaries["kube-scheduler"], *arguments],
            ready_url=f"https://127.0.0.1:{scheduler}/healthz",
            port=scheduler,
        ),
        _part(
            operators,
            "operator",
            f"--port={operator}",
            NODE_LOSS,
            port=operator,
            ready_url=f"http://127.0.0.1:{operator}/readyz",
        ),
        _part(agents, "agent", "--local-nodes"),
    ]


def _start(cluster: LocalCluster) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        parts = components(cluster, processes.free_ports(4))
        try:
            for part in parts:
                cluster.run(part)
            return
        except ProcessDied as died:
            if attempt == ATTEMPTS or not died.port_was_taken:
                raise
            for part in parts:
                cluster.processes.stop(part.name)


def _part(kubeconfig: Path, name: str, *args: str, port: int | None = None, ready_url: str | None = None) -> Component:
    argv = [sys.executable, "-P", "-m", f"muster_{name}", f"--kubeconfig={kubeconfig}", *args]
    return Component(f"muster-{name}", argv, {"PYTHONUNBUFFERED": "1"}, ready_url, port)
