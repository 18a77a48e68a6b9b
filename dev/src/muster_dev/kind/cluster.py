"""The kind cluster of this machine: created, filled with images, muster installed by helm; and gone again.

Invariant: `down` leaves the machine as `up` found it, but for the cache; whatever `up` does is done again without harm.
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
from muster_dev.kind import default_scheduler, images, node_image, rootless_docker
from muster_dev.kind import engine as engines
from muster_dev.kind.engine import Engine
from muster_dev.local import binaries
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress

NAME = "muster"
NAMESPACE = "muster-system"
CHART = images.PROJECT / "helm" / "muster"
_PROGRAMS = ("kind", "kubectl", "helm")
_HELM_PATIENCE = "180s"


@dataclass(frozen=True)
class Cluster:
    """The cluster as one works with it; its programs run where the engine's network is."""

    engine: Engine
    programs: Mapping[str, Path]

    @classmethod
    def find(cls, progress: Progress) -> Self | None:
        """Return the cluster that there is, None where there is none."""
        engine = engines.running()
        return cls(engine, binaries.find(_PROGRAMS, progress)) if engine and _exists(engine) else None

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return engines.home() / "kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of programs that work with the cluster: KUBECONFIG, and PATH with kubectl, helm and kind."""
        path = dict(self.engine.environment).get("PATH") or os.environ.get("PATH", os.defpath)
        places = dict.fromkeys(str(program.parent) for program in self.programs.values())
        return dict(self.engine.environment) | {"KUBECONFIG": str(self.kubeconfig), "PATH": ":".join([*places, path])}

    def kind(self, *words: str | Path, directory: Path | None = None) -> str:
        """Run kind, in a directory where one is given."""
        return self.engine.run(self.programs["kind"], *words, environment=self.environment, directory=directory)

    def kubectl(self, *words: str | Path, stdin: Path | None = None) -> str:
        """Run kubectl as administrator."""
        return self.engine.run(self.programs["kubectl"], *words, stdin=stdin, environment=self.environment)

    def helm(self, *words: str | Path) -> str:
        """Run helm as administrator."""
        return self.engine.run(self.programs["helm"], *words, environment=self.environment)

    def call(self, *words: str) -> int:
        """Run any program beside the engine, its output for the user, and return its exit code."""
        try:
            return subprocess.call(self.engine.command(*words), env=os.environ | self.environment)
        except OSError as error:
            raise LocalError(f"{words[0]} cannot be run: {error.strerror}") from None


def up(progress: Progress) -> Cluster:
    """Create the cluster where there is none, load muster's images, install muster or bring it up to date."""
    engine = engines.running() or rootless_docker.start(progress)
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
        if existed:  # the images have changed, perhaps, and their names have not
            for verb in ("restart", "status"):
                cluster.kubectl("rollout", verb, "deployment,daemonset", "--namespace", NAMESPACE)
    return cluster


def down(progress: Progress) -> bool:
    """Remove the cluster and, where it is ours, the engine; return False where there was neither."""
    found = Cluster.find(progress)
    if found:
        with progress.step("deleting the cluster"):
            found.kind("delete", "cluster", "--name", NAME)
            _remove_network(found.engine)
    return rootless_docker.stop() or found is not None


def _exists(engine: Engine) -> bool:
    """Whether the engine has the cluster's nodes; asked without kind, which may not be built yet."""
    return bool(engine.run("docker", "ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={NAME}").strip())


def _create(cluster: Cluster, progress: Progress) -> None:
    stock = not cluster.engine.own and _stock_image(cluster, progress)
    chosen = [] if stock else ["--image", node_image.have(cluster.engine, progress)]
    engines.home().mkdir(parents=True, exist_ok=True)
    with progress.step("kind create cluster"):
        options = ["--config", "kind-config.yaml", "--kubeconfig", str(cluster.kubeconfig), *chosen]
        try:
            cluster.kind("create", "cluster", *options, directory=images.PROJECT)  # relative paths in it are from there
        except BaseException:
            cluster.kind("delete", "cluster", "--name", NAME)
            raise
        cluster.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")


def _stock_image(cluster: Cluster, progress: Progress) -> bool:
    """Whether the node image that kind uses by itself is there or can be pulled."""
    named = re.search(r'Image = "(\S+)"', (binaries.source("kind") / "pkg/apis/config/defaults/image.go").read_text())
    if not named:
        return False
    try:
        with progress.step(f"pulling {named[1].partition('@')[0]}"):
            cluster.engine.run("docker", "pull", "--quiet", named[1])
    except LocalError:
        progress.say("kind's node image cannot be pulled: making one from Debian packages and Go modules")
        return False
    return True


def _install(cluster: Cluster) -> None:
    values = engines.home() / "values.yaml"
    values.write_text(yaml.safe_dump(chart_values()))
    where = ["--namespace", NAMESPACE, "--create-namespace"]
    cluster.helm("upgrade", "--install", "muster", CHART, *where, "--values", values, "--wait", "--timeout", _HELM_PATIENCE)
    there = "--for=jsonpath={.status.allocatable.nvidia\\.com/gpu}"  # a moment after the pods that pretend to have them
    cluster.kubectl("wait", there, "node", "--selector", names.MACHINE, "--timeout=120s")


def chart_values() -> dict[str, Any]:
    """The chart's values on kind: GPUs are fake, the extender is where the cluster's own kube-scheduler looks for it, and
    muster's parts are where no job runs, so that workers can be killed.
    """
    role = "node-role.kubernetes.io/control-plane"
    place = {"nodeSelector": {role: ""}, "tolerations": [{"key": role, "effect": "NoSchedule"}]}
    service = {"extenderService": {"clusterIP": default_scheduler.EXTENDER_ADDRESS}}
    return {"fakeGpus": {"enabled": True}, "operator": place, "scheduler": place | service}


def _remove_network(engine: Engine) -> None:
    """Remove kind's bridge, unless a cluster of somebody else is on it."""
    try:
        engine.run("docker", "network", "rm", "kind")
    except LocalError:
        return
