"""Processes of muster on a live cluster, as a test stops, kills and starts them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from muster_dev.local import processes, stack
from muster_dev.local.cluster import Component, LocalCluster

OPERATOR = "muster-operator"
SCHEDULER = "muster-scheduler"


class Scheduler:
    """The process of muster's kube-scheduler, to be stopped: what is ungated then stays Pending until it is started again."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._stopped: Component | None = None

    def stop(self) -> None:
        """Stop it, and remember how it was started."""
        _, found = processes.recorded(self._cluster.directory)
        process = next(each for each in found if each.name == SCHEDULER and each.state == "running")
        argv = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")[:-1]
        self._stopped = Component(SCHEDULER, argv, ready_url=f"https://127.0.0.1:{process.port}/healthz", port=process.port)
        self._cluster.processes.stop(SCHEDULER)

    def start(self) -> None:
        """Start it as it was, unless it runs, and wait until it is healthy."""
        if self._stopped is not None:
            self._cluster.run(self._stopped)
            self._stopped = None


class Operator:
    """An operator's process, to be killed and started again; by default that of the cluster's muster."""

    program: tuple[str, str] = ("-m", "muster_operator")

    def __init__(self, cluster: LocalCluster, name: str = OPERATOR, *args: str) -> None:
        self._cluster, self._name, self._args = cluster, name, args

    @property
    def running(self) -> bool:
        return self._process() is not None

    @property
    def pid(self) -> int:
        process = self._process()
        assert process is not None, f"{self._name} does not run"
        return process.pid

    def kill(self) -> None:
        """Kill it as the kernel would, without a chance to finish anything, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Stop it as a kubelet would (SIGTERM), and wait until it is gone."""
        self._cluster.processes.stop(self._name)

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it has read the cluster, or stands by."""
        (port,) = processes.free_ports(1)
        kubeconfig = f"--kubeconfig={stack.kubeconfig(self._cluster, stack.ACCOUNTS.operator)}"
        argv = [sys.executable, "-P", *self.program, kubeconfig, f"--port={port}", stack.NODE_LOSS, *self._args]
        ready = f"http://127.0.0.1:{port}/readyz" if wait else None
        self._cluster.run(Component(self._name, argv, {"PYTHONUNBUFFERED": "1"}, ready, port))

    def page(self, path: str) -> str:
        """Return what it serves at a path, whatever the status; empty while it does not listen."""
        process = self._process()
        if process is None:
            return ""
        try:
            with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{process.port}{path}", timeout=10) as response:
                return str(response.read().decode())
        except HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def metric(self, name: str) -> float:
        """Return one of its metrics, named with its labels as /metrics shows it; -1 where there is none."""
        lines = (line.rpartition(" ") for line in self.page("/metrics").splitlines())
        return next((float(value) for found, _, value in lines if found == name), -1.0)

    def log(self) -> str:
        return (self._cluster.directory / "logs" / f"{self._name}.log").read_text()

    def _process(self) -> processes.Process | None:
        _, found = processes.recorded(self._cluster.directory)
        return next((each for each in found if each.name == self._name and each.state == "running"), None)
