"""The chart under test: helm, and muster's parts as processes that are what the installed chart says they are.

A part runs with the arguments of its container and a token of its pod's service account; only ports and paths, which a
container has to itself, are given anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from muster_dev.local import binaries, processes
from muster_dev.local.cluster import Component, LocalCluster

CHART = Path(__file__).parents[2] / "helm" / "muster"
NAMESPACE = "muster-system"
RELEASE = "muster"
_AGENT = """
import sys, tempfile
from pathlib import Path
from muster.machines import machine
from muster_agent.__main__ import main
from muster_agent.standin.hardware import lay_out
from muster_agent.standin.library import Library, installed
from muster_agent.standin.tree import write_tree

hardware = lay_out(machine(sys.argv[1]), "stand-in")
with tempfile.TemporaryDirectory() as sysfs, installed(Library(hardware)):
    write_tree(Path(sysfs, "sys"), hardware)
    sys.exit(main([*sys.argv[2:], f"--sysfs={sysfs}/sys"]))
"""
"""The agent's own main, on a machine that has the driver and the /sys of the machine type named first."""


class HelmFailed(AssertionError):
    """helm ended with an error; the message has its words."""


class Helm:
    """The real helm, with settings of its own in `home`, and the rights of `kubeconfig` where it is given one."""

    def __init__(self, home: Path, kubeconfig: Path | None = None) -> None:
        self._binary = binaries.find(["helm"])["helm"]
        variables = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        self._env = {**os.environ, **{name: str(home / name.lower()) for name in variables}}
        self._env["KUBECONFIG"] = str(kubeconfig or home / "none")

    def __call__(self, *args: str | Path) -> str:
        """Run helm and return its output; raise HelmFailed."""
        done = subprocess.run([self._binary, *args], env=self._env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HelmFailed(done.stderr + done.stdout)
        return done.stdout

    def template(self, *args: str, version: str = "v1.36.3") -> list[dict[str, Any]]:
        """Return the objects of the chart as for an API server of this version."""
        text = self("template", RELEASE, CHART, "--namespace", NAMESPACE, "--kube-version", version, *args)
        return [item for item in yaml.safe_load_all(text) if item]


def find(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one object of this kind and name."""
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def containers(workload: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the containers of a Deployment or DaemonSet by name."""
    return {each["name"]: each for each in workload["spec"]["template"]["spec"]["containers"]}


class Parts:
    """muster's parts as processes, made from the workloads of the release in the cluster."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._extender_ports: dict[str, int] = {}
        """The ports on which extenders take requests of muster's kube-scheduler, by name."""

    def log(self, name: str) -> str:
        """Return what a process has said."""
        return (self._cluster.directory / "logs" / f"{name}.log").read_text()

    def stop(self, name: str) -> None:
        """Stop a part, where it runs."""
        self._cluster.processes.stop(name)

    def start_operator(self, name: str = "operator", *, wait: bool = True) -> str:
        """Start the operator and return its URL, once it is ready unless told not to wait."""
        (port,) = processes.free_ports(1)
        own = ["--host=127.0.0.1", f"--port={port}"]
        return self._start_http(name, self._container("deployments", "operator", "operator"), "operator", own, port, wait)

    def start_extender(self, name: str = "extender", *, wait: bool = True) -> str:
        """Start the extender and return the URL of its probes, once it is ready unless told not to wait."""
        asked, port = processes.free_ports(2)
        self._extender_ports[name] = asked
        own = [f"--port={asked}", "--metrics-host=127.0.0.1", f"--metrics-port={port}"]
        return self._start_http(name, self._container("deployments", "scheduler", "extender"), "scheduler", own, port, wait)

    def start_scheduler(self, name: str = "scheduler") -> None:
        """Start the kube-scheduler that asks the extender, which has been started, and wait until it is healthy."""
        (port,) = processes.free_ports(1)
        kubeconfig = self.kubeconfig("scheduler")
        text = self._get("/api/v1", "configmaps", f"{RELEASE}-scheduler")["data"]["config.yaml"]
        config = yaml.safe_load(text)
        config["clientConnection"]["kubeconfig"] = str(kubeconfig)
        config["extenders"][0]["urlPrefix"] = f"http://127.0.0.1:{self._extender_ports['extender']}"
        container = self._container("deployments", "scheduler", "kube-scheduler")
        argv = [
            self._cluster.binaries[container["command"][0]],
            *container["args"],
            f"--config={self._cluster.files.write_config(f'{name}-of-the-chart', config)}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={self._cluster.files.certificate('serving.crt')}",
            f"--tls-private-key-file={self._cluster.files.certificate('serving.key')}",
            # In a pod these two are found without being named.
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
        ]
        self._cluster.run(Component(name, argv, ready_url=f"https://127.0.0.1:{port}/healthz", port=port))

    def start_agent(self, node: str, machine: str, name: str = "agent") -> None:
        """Start the agent of a node with the stand-in for a machine type in place of its driver."""
        (port,) = processes.free_ports(1)
        container = self._container("daemonsets", "agent", "agent")
        own = [f"--kubeconfig={self.kubeconfig('agent', node)}", f"--metrics-port={port}"]
        argv = [sys.executable, "-P", "-c", _AGENT, machine, *container["args"], *own]
        url = f"http://127.0.0.1:{port}/healthz"
        self._cluster.run(Component(name, argv, {"NODE_NAME": node}, url, port))

    def kubeconfig(self, component: str, node: str | None = None) -> Path:
        """Write the kubeconfig of a component's pod (that on `node`), with a token such as the kubelet would give it."""
        pod = self.pod(component, node)
        bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}", "--duration=2h"]
        token = self._cluster.kubectl("create", "token", f"{RELEASE}-{component}", f"--namespace={NAMESPACE}", *bound)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "pod",
            "contexts": [{"name": "pod", "context": {"cluster": "local", "user": "pod"}}],
            "clusters": [{"name": "local", "cluster": self._server()}],
            "users": [{"name": "pod", "user": {"token": token.strip()}}],
        }
        return self._cluster.files.write_config(f"token-{pod['metadata']['name']}", content)

    def pod(self, component: str, node: str | None = None) -> dict[str, Any]:
        """Return a pod of a component, that on `node` where one is named."""
        selector = f"labelSelector=app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"
        pods = self._cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}")["items"]
        found: dict[str, Any] = next(each for each in pods if node in (None, each["spec"]["nodeName"]))
        return found

    def _server(self) -> dict[str, str]:
        authority = self._cluster.files.certificate("ca.crt")
        return {"server": self._cluster.url, "certificate-authority": str(authority)}

    def _start_http(self, name: str, container: dict[str, Any], component: str, own: list[str], port: int, wait: bool) -> str:
        module = container["command"][0].replace("-", "_")
        arguments = [*container["args"], f"--kubeconfig={self.kubeconfig(component)}", *own]
        argv = [sys.executable, "-P", "-m", module, *arguments]
        url = f"http://127.0.0.1:{port}"
        env = {"PYTHONUNBUFFERED": "1", **_environment(container, self.pod(component))}
        self._cluster.run(Component(name, argv, env, f"{url}/readyz" if wait else None, port))
        return url

    def _container(self, plural: str, component: str, name: str) -> dict[str, Any]:
        return containers(self._get("/apis/apps/v1", plural, f"{RELEASE}-{component}"))[name]

    def _get(self, root: str, plural: str, name: str) -> Any:
        return self._cluster.api.get(f"{root}/namespaces/{NAMESPACE}/{plural}/{name}")


def _environment(container: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a container has of its pod by the downward API (metadata.NAME)."""
    fields = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container.get("env", ())}
    return {name: pod["metadata"][path.removeprefix("metadata.")] for name, path in fields.items()}
