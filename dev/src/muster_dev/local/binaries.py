"""The programs of the control plane and of kind clusters, found or built.

Each program is looked up separately: first in $KUBEBUILDER_ASSETS (the convention of envtest), then in the cache, keyed by the
content of its Go module. Missing programs are built from that module into the cache. Invariants: a program appears in the
cache complete or not at all, and two processes never build at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from muster_dev.local import directories, toolchain
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Detail, Progress, Quiet

MODULES = Path(__file__).with_name("modules")
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl")
LOCAL = (*CONTROL_PLANE, "helm")
"""The programs of a local cluster and its tests; `muster kind` needs the others as well."""
_PACKAGES = {
    "kubernetes": {
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    },
    "helm": {"helm": "helm.sh/helm/v4/cmd/helm"},
    "nodes": {
        "kubeadm": "k8s.io/kubernetes/cmd/kubeadm",
        "kubelet": "k8s.io/kubernetes/cmd/kubelet",
        "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    },
    "kind": {"kind": "sigs.k8s.io/kind", "coredns": "muster.dev/local/kind/coredns"},
}
_GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}


@dataclass(frozen=True)
class Module:
    """A Go module of this package, and the Go packages of the programs that are built from it."""

    directory: Path
    packages: dict[str, str]

    def key(self) -> str:
        """Return the name of this module's folder in the cache: a hash of its files."""
        content = b"".join(self.file(name).encode() for name in self.files())
        return hashlib.sha256(content).hexdigest()[:16]

    def files(self) -> list[str]:
        """Return the names of the module's files: go.mod, go.sum and its own Go sources."""
        return ["go.mod", "go.sum", *sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*.go"))]

    def copy(self, directory: Path) -> None:
        """Copy the module's files to where go may write: the package may be installed read-only."""
        for name in self.files():
            (directory / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(self.directory / name, directory / name)

    def file(self, name: str) -> str:
        """Return the text of one of the module's files; raise LocalError if it cannot be read."""
        try:
            return (self.directory / name).read_text()
        except OSError as error:
            raise LocalError(
                f"{self.directory / name}, a file of muster-dev, cannot be read ({error}); install muster-dev again."
            ) from None

    def go_version(self) -> toolchain.Version:
        """Return the lowest Go version that go.mod allows."""
        match = re.search(r"^go (\S+)$", self.file("go.mod"), re.MULTILINE)
        return (match and toolchain.parse(match[1])) or (1, 21, 0)

    def ldflags(self) -> str:
        """Return the linker's flags; they set the version, since clients act on what the API server reports (else v0.0.0)."""
        match = re.search(r"^\s*k8s\.io/kubernetes v(\d+)\.(\d+)\.(\S+)", self.file("go.mod"), re.MULTILINE)
        if not match:
            return "-s -w"
        major, minor, _ = match.groups()
        version = {"gitVersion": f"v{'.'.join(match.groups())}", "gitMajor": major, "gitMinor": minor}
        return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in version.items())])


def modules() -> list[Module]:
    """Return the Go modules whose programs `find` knows."""
    return [Module(MODULES / name, packages) for name, packages in _PACKAGES.items()]


def find(names: Sequence[str], progress: Progress | None = None) -> dict[str, Path]:
    """Return the path of each program, building those that are missing; raise LocalError if a build fails."""
    module_of = {name: module for module in modules() for name in module.packages}
    if unknown := [name for name in names if name not in module_of]:
        raise LocalError(f"no program is called {', '.join(unknown)}; there are {', '.join(module_of)}")
    programs = {name: path for name in names if (path := existing(name, module_of[name]))}
    for module in modules():
        missing = [name for name in names if name not in programs and name in module.packages]
        if missing:
            programs |= _build(module, missing, progress or Quiet())
    return {name: programs[name] for name in names}


def source(name: str, progress: Progress | None = None) -> Path:
    """Return the directory in Go's cache with the sources of the program `name`, fetching them if they are missing."""
    module = next(module for module in modules() if name in module.packages)
    go = toolchain.go(module.go_version(), directories.cache(), progress or Quiet())
    with tempfile.TemporaryDirectory(prefix="muster-") as scratch:
        module.copy(Path(scratch))
        command = [str(go), "mod", "download", "-json", module.packages[name]]
        done = subprocess.run(
            command, cwd=scratch, env=os.environ | _GO_ENVIRONMENT, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise LocalError(f"The sources of {name} could not be fetched: {(done.stderr or done.stdout).strip()[-2000:]}")
    return Path(json.loads(done.stdout)["Dir"])


def existing(name: str, module: Module) -> Path | None:
    """Return the program in $KUBEBUILDER_ASSETS or the cache, None if neither has it."""
    folders = [directories.cache() / module.key()]
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        folders.insert(0, Path(assets))
    programs = (folder / name for folder in folders)
    return next((path for path in programs if os.access(path, os.X_OK) and path.is_file()), None)


def _build(module: Module, names: Sequence[str], progress: Progress) -> dict[str, Path]:
    cache = directories.cache() / module.key()
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock", progress):
        # Another process may have built some while this one waited for the lock.
        missing = [name for name in names if not existing(name, module)]
        if missing:
            go = toolchain.go(module.go_version(), directories.cache(), progress)
            progress.say(f"Building {', '.join(missing)} from Go modules into {cache}: once, 6 to 10 minutes on two cores.")
        for number, name in enumerate(missing, 1):
            with progress.step(f"building {name} ({number} of {len(missing)})") as detail:
                _build_one(go, module, name, cache, detail)
    return {name: path for name in names if (path := existing(name, module))}


def _build_one(go: Path, module: Module, name: str, cache: Path, detail: Detail) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=cache) as scratch:
        module.copy(Path(scratch))
        command = [str(go), "build", "-v", "-trimpath", "-ldflags", module.ldflags(), "-o", ".built", module.packages[name]]
        code, last_lines = _follow(command, Path(scratch), os.environ | _GO_ENVIRONMENT, detail)
        if code:
            said = "\n".join(last_lines)
            raise LocalError(f"{name} could not be built: `go build ... {command[-1]}` ended with {code}:\n{said}")
        Path(scratch, ".built").replace(cache / name)


def _follow(command: Sequence[str], directory: Path, env: dict[str, str], detail: Detail) -> tuple[int, list[str]]:
    """Run a command, pass each line of its output to `detail`, and return the exit code and the last lines."""
    last_lines: deque[str] = deque(maxlen=20)
    process = subprocess.Popen(
        command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        with process:
            for line in process.stdout or ():
                last_lines.append(line.rstrip())
                detail(last_lines[-1])
    except BaseException:
        process.kill()
        raise
    return process.returncode, list(last_lines)


@contextmanager
def locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock file `path` while the body runs; show that it waits while another process holds the lock."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step("waiting for another process that is building"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
