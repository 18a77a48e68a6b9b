"""The kind cluster of this machine: create it, load images, install muster by helm, remove it.

Invariants: after `down` the machine is as before `up`, except for the cache; `up` can be repeated without harm.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from muster.api import names
from muster_dev.kind import default_scheduler, images, node_image, private_engine
from muster_dev.kind import engine as engines
from muster_dev.kind.engine import Engine
from muster_dev.local import binaries
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress

NAME = "muster"
NAMESPACE = "muster-system"
CHART = images.PROJECT / "helm" / "muster"
_PROGRAMS = ("kind", "kubectl", "helm")
_HELM_TIMEOUT = "180s"


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up; its programs run in the engine's network."""

    engine: Engine
    programs: Mapping[str, Path]

    @classmethod
    def find(cls, progress: Progress) -> Self | None:
        """Return the cluster of this machine, None if there is none."""
        engine = engines.running()
        return cls(engine, binaries.find(_PROGRAMS, progress)) if engine and _exists(engine) else None

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return engines.home() / "kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of programs that use the cluster: KUBECONFIG, and PATH with kubectl, helm and kind."""
        path = dict(self.engine.environment).get("PATH") or os.environ.get("PATH", os.defpath)
        folders = dict.fromkeys(str(program.parent) for program in self.programs.values())
        return dict(self.engine.environment) | {"KUBECONFIG": str(self.kubeconfig), "PATH": ":".join([*folders, path])}

    def kind(self, *words: str | Path, directory: Path | None = None) -> str:
        """Run kind and return its output; by default in this process's directory."""
        return self.engine.run(self.programs["kind"], *words, environment=self.environment, directory=directory)

    def kubectl(self, *words: str | Path, stdin: Path | None = None) -> str:
        """Run kubectl as administrator and return its output."""
        return self.engine.run(self.programs["kubectl"], *words, stdin=stdin, environment=self.environment)

    def helm(self, *words: str | Path) -> str:
        """Run helm as administrator and return its output."""
        return self.engine.run(self.programs["helm"], *words, environment=self.environment)

    def call(self, *words: str) -> int:
        """Run a program in the engine's network with this process's output, and return its exit code."""
        try:
            return subprocess.call(self.engine.command(*words), env=os.environ | self.environment)
        except OSError as error:
            raise LocalError(f"{words[0]} cannot be run: {error.strerror}") from None


def up(progress: Progress) -> Cluster:
    """Create the cluster if there is none, load muster's images, and install or upgrade muster."""
    engine = engines.running() or private_engine.start(progress)
    cluster = Cluster(engine, binaries.find(_PROGRAMS, progress))
    archive = images.make(engine, progress)
    existed = _exists(engine)
    if not existed:
        _create(cluster, progress)
    with progress.step("loading muster's images into the nodes"):
        if archive:
            cluster.kind("load", "image-archive", archive, "--name", NAME)
        else:
            cluster.kind("load", "docker-image", *images.names(), "--name", NAME)
    with progress.step("helm upgrade --install muster"):
        _install(cluster)
        if existed:  # the images may have changed under the same names
            for verb in ("restart", "status"):
                cluster.kubectl("rollout", verb, "deployment,daemonset", "--namespace", NAMESPACE)
    return cluster


def down(progress: Progress) -> bool:
    """Remove the cluster and the private engine; return False if there was neither."""
    cluster = Cluster.find(progress)
    if cluster:
        with progress.step("deleting the cluster"):
            cluster.kind("delete", "cluster", "--name", NAME)
            _remove_network(cluster.engine)
    return private_engine.stop() or cluster is not None


def _exists(engine: Engine) -> bool:
    """Return whether the engine has nodes of the cluster; kind may not be built yet and is not asked."""
    return bool(engine.run("docker", "ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={NAME}").strip())


def _create(cluster: Cluster, progress: Progress) -> None:
    stock = not cluster.engine.private and _stock_image(cluster, progress)
    chosen = [] if stock else ["--image", node_image.ensure(cluster.engine, progress)]
    engines.home().mkdir(parents=True, exist_ok=True)
    with progress.step("kind create cluster"):
        options = ["--config", "kind-config.yaml", "--kubeconfig", str(cluster.kubeconfig), *chosen]
        try:
            cluster.kind("create", "cluster", *options, directory=images.PROJECT)  # relative paths in the file start there
        except BaseException:
            cluster.kind("delete", "cluster", "--name", NAME)
            raise
        cluster.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")


def _stock_image(cluster: Cluster, progress: Progress) -> bool:
    """Return whether the engine has kind's default node image or can pull it."""
    default = re.search(r'Image = "(\S+)"', (binaries.source("kind") / "pkg/apis/config/defaults/image.go").read_text())
    if not default:
        return False
    try:
        with progress.step(f"pulling {default[1].partition('@')[0]}"):
            cluster.engine.run("docker", "pull", "--quiet", default[1])
    except LocalError:
        progress.say("kind's node image cannot be pulled: making one from Debian packages and Go modules")
        return False
    return True


def _install(cluster: Cluster) -> None:
    values = engines.home() / "values.yaml"
    values.write_text(yaml.safe_dump(chart_values()))
    namespace = ["--namespace", NAMESPACE, "--create-namespace"]
    cluster.helm("upgrade", "--install", "muster", CHART, *namespace, "--values", values, "--wait", "--timeout", _HELM_TIMEOUT)
    has_gpus = "--for=jsonpath={.status.allocatable.nvidia\\.com/gpu}"  # kubelets report them after the device plugin is ready
    cluster.kubectl("wait", has_gpus, "node", "--selector", names.MACHINE, "--timeout=120s")


def chart_values() -> dict[str, Any]:
    """Return the chart's values on kind: fake GPUs, and the extender's address that the cluster's own kube-scheduler asks.

    muster's parts run on the control plane, where no job runs, so that tests can kill workers.
    """
    role = "node-role.kubernetes.io/control-plane"
    pinned = {"nodeSelector": {role: ""}, "tolerations": [{"key": role, "effect": "NoSchedule"}]}
    service = {"extenderService": {"clusterIP": default_scheduler.EXTENDER_ADDRESS}}
    return {"fakeGpus": {"enabled": True}, "operator": pinned, "scheduler": pinned | service}


def _remove_network(engine: Engine) -> None:
    """Remove kind's bridge, unless another cluster uses it."""
    try:
        engine.run("docker", "network", "rm", "kind")
    except LocalError:
        return
