"""One local cluster: started, waited for, used, stopped.

    with LocalCluster(nodes="dgx-a100:4") as cluster:
        cluster.kubectl("get", "nodes")

The cluster ends with the `with` block, or with this process if that comes first, however it ends; only `detach` lets it
live on. Everything it writes is in one directory.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import yaml

from muster.local import binaries, certificates, commands, nodes, processes, supervisor, waiting
from muster.local.client import ApiError, Client
from muster.local.commands import Files, Options
from muster.local.errors import LocalError
from muster.local.processes import ProcessDied, Processes
from muster.local.progress import Progress, Quiet

_ATTEMPTS = 3
_CREATORS = 8
_STAGES = Path(__file__).with_name("stages.yaml")
_KEPT_BY_CLUSTER = ("certificates", "etcd", "config", "kubeconfig", "cluster.json")
# Stopped in this order. The API server waits long for clients that still watch it, and longer still without its etcd.
_STAGES_OF = {"kube-apiserver": 2, "etcd": 3}
_APISERVER_GRACE_SECONDS = 2.0
CORE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")


@dataclass(frozen=True)
class Component:
    """A process to run beside the control plane."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_url: str | None = None
    """Answers 200 once it is ready; None: ready as soon as it runs."""
    port: int | None = None
    """Where it listens: for `muster local status`."""


class LocalCluster:
    """A control plane with nodes, in a directory of its own (a temporary one by default)."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        nodes: str = "",
        options: Options | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Take note of what to start; `nodes` as in "dgx-a100:4,p100:2" (BadNodes is raised at once)."""
        self._temporary = directory is None
        self._given = directory
        self.directory = directory or Path()
        self._nodes = nodes_of(nodes)
        self.options = options or Options()
        self.progress: Progress = progress or Quiet()
        self.binaries: dict[str, Path] = {}
        self.url = ""
        self._authority = certificates.Authority()
        self._processes: Processes | None = None
        self._api: Client | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def files(self) -> Files:
        """The files in the cluster's directory."""
        return Files(self.directory)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.files.kubeconfig

    @property
    def api(self) -> Client:
        """A client with all rights."""
        if self._api is None:
            raise LocalError("the local cluster is not running; start it first")
        return self._api

    @property
    def processes(self) -> Processes:
        """The processes."""
        if self._processes is None:
            raise LocalError("the local cluster is not running; start it first")
        return self._processes

    # Starting and stopping

    def start(self) -> Self:
        """Start everything and wait until the nodes are Ready; raise LocalError, leaving nothing behind, where that fails."""
        self.binaries = binaries.find(binaries.CONTROL_PLANE, self.progress)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start_control_plane()
                self.add_nodes(self._nodes)
                return self
            except ProcessDied as died:
                self.stop()
                if attempt == _ATTEMPTS or not died.port_was_taken:
                    raise
            except BaseException:
                self.stop()
                raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Stop everything and wait until it has ended; nothing happens where nothing runs."""
        if self._api:
            self._api.close()
        if self._processes:
            with self.progress.step("stopping the local cluster"):
                self._processes.close()
        self._api = self._processes = None
        if self._temporary and self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)

    def detach(self) -> None:
        """Let the cluster live on after this process; `processes.stop_detached` ends it."""
        self.processes.detach()
        self.api.close()
        self._api = self._processes = None

    def _start_control_plane(self) -> None:
        # Short: the path of a socket in it would have to stay under 108 characters.
        self.directory = self._given or Path(tempfile.mkdtemp(prefix="muster-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self._processes = Processes(self.directory)  # from here on the directory is ours
        _remove(self.directory, _KEPT_BY_CLUSTER)
        etcd, peer, api, controllers, scheduler = processes.free_ports(5)
        self._write_certificates(f"https://127.0.0.1:{api}")
        with self.progress.step("starting etcd and kube-apiserver"):
            self._run("etcd", commands.etcd(self.files, etcd, peer), etcd)
            self._run("kube-apiserver", commands.apiserver(self.files, api, etcd, self.options), api)
            self.wait(lambda: self._answers(f"{self.url}/readyz"), "kube-apiserver is ready", ("etcd", "kube-apiserver"))
        with self.progress.step("starting kube-controller-manager, kube-scheduler and kwok"):
            config = self.write_config("kube-scheduler", commands.scheduler_config(self.kubeconfig, "default-scheduler"))
            args = commands.controller_manager(self.files, controllers, self.options)
            self._run("kube-controller-manager", args, controllers)
            self._run("kube-scheduler", commands.scheduler(self.files, scheduler, config, self.options), scheduler)
            self._run("kwok", commands.kwok(self.files, _STAGES, self.options))
            urls = [f"https://127.0.0.1:{port}/healthz" for port in (controllers, scheduler)]
            self.wait(lambda: all(map(self._answers, urls)), "controller-manager and scheduler are healthy")
            self.wait(lambda: self.exists("/api/v1/namespaces/default/serviceaccounts/default"), "pods can be created")
        record = {"url": self.url, "kubectl": str(self.binaries["kubectl"])}
        self.files.record.write_text(json.dumps(record, indent=1))

    def _run(self, name: str, args: Sequence[str], port: int | None = None) -> None:
        grace = _APISERVER_GRACE_SECONDS if name == "kube-apiserver" else processes.GRACE_SECONDS
        stage = _STAGES_OF.get(name, 1)
        self.processes.start(name, [self.binaries[name], *args], stage=stage, grace=grace, port=port)

    def _write_certificates(self, url: str) -> None:
        self.url = url
        directory = self.files.certificates
        directory.mkdir(mode=0o700, exist_ok=True)
        self.files.certificate("ca.crt").write_bytes(self._authority.certificate)
        self._authority.serving("muster-local", ["localhost", "127.0.0.1", "10.0.0.1"]).write(directory, "serving")
        private, public = certificates.token_keys()
        certificates.write_private(self.files.certificate("token.key"), private)
        self.files.certificate("token.pub").write_bytes(public)
        admin = self._authority.client("admin", ["system:masters"])
        certificates.write_kubeconfig(self.kubeconfig, url, self._authority.certificate, admin)
        admin.write(directory, "admin")
        self._api = _client(self.files, url)

    # Using

    def kubectl(self, *args: str | Path, stdin: str | None = None) -> str:
        """Run kubectl as administrator and return its output; raise LocalError with its words where it fails."""
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

    def kubeconfig_for(self, user: str, *groups: str) -> Path:
        """Write a kubeconfig for `user`, a service account's full name too, and return its path; RBAC says what it may."""
        path = self.directory / "config" / f"{user.replace(':', '-')}.kubeconfig"
        path.parent.mkdir(exist_ok=True)
        return certificates.write_kubeconfig(path, self.url, self._authority.certificate, self._authority.client(user, groups))

    def write_config(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a configuration file for a component and return its path."""
        path = self.directory / "config" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
        return path

    def run(self, component: Component) -> int:
        """Start a component, wait until it is ready and return its pid; raise ProcessDied where it ends instead."""
        words, env = component.argv, component.env
        pid = self.processes.start(component.name, words, stage=0, env=env, port=component.port)
        url = component.ready_url
        if url:
            self.wait(lambda: self._answers(url), f"{component.name} is ready", (component.name,))
        return pid

    def add_nodes(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        """Create Node objects and wait until all of them are Ready and free of taints."""
        if not manifests:
            return
        with self.progress.step(f"bringing up {len(manifests)} nodes"):
            with ThreadPoolExecutor(_CREATORS) as pool:
                list(pool.map(partial(self.api.create, "/api/v1/nodes"), manifests))
            waited_for = {manifest["metadata"]["name"] for manifest in manifests}
            self.wait(lambda: waited_for <= self.ready_nodes(), f"{len(waited_for)} nodes are Ready")

    def ready_nodes(self) -> set[str]:
        """Return the names of the nodes that take pods."""
        items = self.api.get("/api/v1/nodes?resourceVersion=0")["items"]
        return {node["metadata"]["name"] for node in items if nodes.is_ready(node)}

    def silence_node(self, name: str) -> None:
        """Let a kwok node fail: nothing keeps it or its pods going any more, and after the grace period it is Unknown."""
        self.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {nodes.KWOK: None}}})

    def revive_node(self, name: str) -> None:
        """Let a silenced node come back."""
        self.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {nodes.KWOK: "fake"}}})

    def create_namespace(self, name: str) -> None:
        """Create a namespace and wait until pods can be created in it (its default service account is there)."""
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        self.wait(lambda: self.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"), f"namespace {name} takes pods")

    def exists(self, path: str) -> bool:
        """Return whether the API server has an object at `path`."""
        try:
            self.api.get(path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def wait(self, true: Callable[[], object], what: str, alive: Sequence[str] = CORE) -> None:
        """Wait until `true()`; raise ProcessDied where one of the processes `alive` ends first, WaitedInVain in the end."""
        started = {process.name for process in processes.recorded(self.directory)[1]}
        watched = [name for name in alive if name in started]
        waiting.until(true, what, check=lambda: self.processes.check(watched))

    def _answers(self, url: str) -> bool:
        try:
            # No proxy: this is loopback, whatever the environment says.
            with build_opener(ProxyHandler({}), HTTPSHandler(context=self.api.tls)).open(url, timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False


def connect(directory: Path) -> Client:
    """Return a client, with all rights, of the cluster that runs in `directory`; raise LocalError where none is."""
    files = Files(directory)
    try:
        return _client(files, json.loads(files.record.read_text())["url"])
    except (OSError, ValueError, KeyError):
        raise LocalError(f"no local cluster is up in {directory}; `muster local up` starts one") from None


def _client(files: Files, url: str) -> Client:
    return Client(url, *(files.certificate(name) for name in ("ca.crt", "admin.crt", "admin.key")))


def nodes_of(text: str) -> list[dict[str, Any]]:
    """Return the Node objects of a text such as "dgx-a100:4,p100:2"."""
    return nodes.manifests(text)


def clean(directory: Path) -> None:
    """Remove what a cluster that no longer runs has left in `directory`, and nothing else; one that runs keeps all."""
    held = supervisor.lock(directory) if directory.is_dir() else None
    if held:
        with held:  # the lock's own file stays: another process may just be waiting for it
            _remove(directory, (*_KEPT_BY_CLUSTER, "logs", "processes.json"))


def _remove(directory: Path, entries: Iterable[str]) -> None:
    for entry in entries:
        path = directory / entry
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
