"""The control plane of one cluster: its processes start in order, each when the one before is ready, and stop together.

They end at `stop`, or when this process ends, however it ends; after `detach` they outlive it. All files are in one directory.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from trustme import CA

from muster.kube.access import Access
from muster.kube.errors import NotFound
from muster_dev.local import binaries, certificates, commands, processes, waiting
from muster_dev.local.api import Api
from muster_dev.local.commands import Options
from muster_dev.local.errors import LocalError
from muster_dev.local.files import Files
from muster_dev.local.processes import ProcessDied, Processes
from muster_dev.local.progress import Progress, Quiet
from muster_dev.local.waiting import WaitTimeout

ATTEMPTS = 3
"""Attempts to start, since another process may take a port between its choice and its use."""
_KWOK_STAGES = Path(__file__).with_name("stages.yaml")
# The order of stopping: the API server waits for clients that watch it, and longer without etcd.
_COMPONENT, _CONTROLLER, _APISERVER, _ETCD = range(4)
_APISERVER_GRACE_SECONDS = 2.0
_PROCESSES = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok")


@dataclass(frozen=True)
class Component:
    """A process to run in addition to the control plane."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_url: str | None = None
    """The URL that answers 200 once the process is ready; None: it is ready as soon as it runs."""
    port: int | None = None
    """The port on which it listens, shown by `muster local status`."""


class ControlPlane:
    """etcd, API server, controller-manager, scheduler and kwok, with their own directory (by default a temporary one)."""

    def __init__(
        self, directory: Path | None = None, *, options: Options | None = None, progress: Progress | None = None
    ) -> None:
        self._given = directory
        self.directory = directory or Path()
        self.options = options or Options()
        self.progress: Progress = progress or Quiet()
        self.binaries: dict[str, Path] = {}
        self.url = ""
        self._authority = CA(organization_name="muster-local")
        self._processes: Processes | None = None
        self._access: Access | None = None
        self._api: Api | None = None
        self._apis: list[Api] = []
        """Those of other users."""

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
    def access(self) -> Access:
        """The administrator's access to the API server."""
        if self._access is None:
            raise LocalError("the local cluster is not running; start it first")
        return self._access

    @property
    def api(self) -> Api:
        """The API server, with the administrator's rights."""
        if self._api is None:
            raise LocalError("the local cluster is not running; start it first")
        return self._api

    @property
    def processes(self) -> Processes:
        """The handle on the processes."""
        if self._processes is None:
            raise LocalError("the local cluster is not running; start it first")
        return self._processes

    def start(self) -> Self:
        """Start everything and wait until it is ready; on an error stop everything again and raise it."""
        self.binaries = binaries.find(binaries.CONTROL_PLANE, self.progress)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start()
                return self
            except ProcessDied as died:
                self.stop()
                if attempt == ATTEMPTS or not died.port_was_taken:
                    raise
            except BaseException:
                self.stop()
                raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Stop everything and wait for the end; do nothing if nothing runs."""
        for api in [*self._apis, *([self._api] if self._api else ())]:
            api.close()
        self._apis.clear()
        if self._processes:
            with self.progress.step("stopping the local cluster"):
                self._processes.close()
        self._access = self._api = self._processes = None

    def detach(self) -> None:
        """Let the cluster outlive this process; `processes.stop_detached` ends it."""
        self.processes.detach()
        self.api.close()
        self._access = self._api = self._processes = None

    def run(self, component: Component) -> int:
        """Start a component, wait until it is ready and return its pid; raise ProcessDied if it ends before."""
        words, env = component.argv, component.env
        pid = self.processes.start(component.name, words, stage=_COMPONENT, env=env, port=component.port)
        url = component.ready_url
        if url:
            self.wait(lambda: self._answers(url), f"{component.name} is ready", (component.name,))
        return pid

    def wait(self, true: Callable[[], object], what: str, alive: Sequence[str] = _PROCESSES) -> None:
        """Wait until `true()`; raise ProcessDied if one of the processes `alive` ends first, WaitTimeout after the deadline.

        An object that `true` reads and that is not there counts as not yet true: between two reads it may be deleted, and
        created again.
        """
        try:
            waiting.until(lambda: _holds(true), what, check=lambda: self.processes.check(alive))
        except WaitTimeout as timeout:
            log = self.processes.logs / f"{alive[0]}.log"
            raise WaitTimeout(f"{timeout}. The end of {alive[0]}'s log ({log}):\n{processes.tail(log)}") from None

    def exists(self, path: str) -> bool:
        """Return whether the API server has an object at `path`."""
        try:
            self.api.get(path)
        except NotFound:
            return False
        return True

    def kubeconfig_for(self, user: str, group: str = certificates.GROUP) -> Path:
        """Write a kubeconfig for `user`, which may be a service account's full name, and return its path; RBAC applies."""
        path = self.files.config(f"{user.replace(':', '-')}.kubeconfig")
        client = certificates.issue_client(self._authority, user, group)
        return certificates.write_kubeconfig(path, self.url, self._authority, client)

    def api_for(self, user: str, group: str = certificates.GROUP) -> Api:
        """Return the API server with the rights of `user`, a member of `group`; it is closed with the cluster."""
        tls = ssl.create_default_context(cafile=str(self.files.certificate("ca.crt")))
        certificates.issue_client(self._authority, user, group).configure_cert(tls)
        self._apis.append(Api(Access(self.url, tls)))
        return self._apis[-1]

    def _start(self) -> None:
        self.directory = self._given or Path(tempfile.mkdtemp(prefix="muster-"))
        self._processes = Processes(self.directory, temporary=self._given is None)
        self.files.clear()
        etcd, peer, api, controllers, scheduler = processes.free_ports(5)
        self.url = f"https://127.0.0.1:{api}"
        self.files.write_certificates(self._authority, self.url)
        self._access = self.files.access(self.url)
        self._api = Api(self._access)
        with self.progress.step("starting etcd and kube-apiserver"):
            self._run("etcd", commands.etcd(self.files, etcd, peer), _ETCD, etcd)
            self._run("kube-apiserver", commands.apiserver(self.files, api, etcd, self.options), _APISERVER, api)
            self.wait(lambda: self._answers(f"{self.url}/readyz"), "kube-apiserver is ready")
        with self.progress.step("starting kube-controller-manager, kube-scheduler and kwok"):
            self._start_controllers(controllers, scheduler)
        self.files.write_record(self.url, self.binaries["kubectl"])

    def _start_controllers(self, manager: int, scheduler: int) -> None:
        files, options = self.files, self.options
        content = commands.scheduler_config(self.kubeconfig, "default-scheduler", profiles=self.options.profiles)
        config = files.write_config("kube-scheduler", content)
        manager_args = commands.controller_manager(files, manager, options)
        self._run("kube-controller-manager", manager_args, _CONTROLLER, manager)
        self._run("kube-scheduler", commands.scheduler(files, scheduler, config, options), _CONTROLLER, scheduler)
        self._run("kwok", commands.kwok(files, _KWOK_STAGES, options), _CONTROLLER)
        urls = [f"https://127.0.0.1:{port}/healthz" for port in (manager, scheduler)]
        self.wait(lambda: all(map(self._answers, urls)), "controller-manager and scheduler are healthy")
        self.wait(lambda: self.exists("/api/v1/namespaces/default/serviceaccounts/default"), "pods can be created")

    def _run(self, name: str, args: Sequence[str], stage: int, port: int | None = None) -> None:
        grace = _APISERVER_GRACE_SECONDS if stage == _APISERVER else processes.GRACE_SECONDS
        self.processes.start(name, [self.binaries[name], *args], stage=stage, grace=grace, port=port)

    def _answers(self, url: str) -> bool:
        try:
            # No proxy of the environment: the address is on loopback.
            with build_opener(ProxyHandler({}), HTTPSHandler(context=self.access.tls)).open(url, timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False


def _holds(true: Callable[[], object]) -> object:
    try:
        return true()
    except NotFound:
        return False
