"""The image of kind's nodes without a registry: Debian packages, Kubernetes' programs, and the files of kind's base image.

Those files are read from kind's Go module. The image differs from kind's in five ways, each necessary: containerd and CNI
plugins are at Debian's paths; processes may not lower their OOM score if the machine forbids it; the kubelet accepts
cgroup v1; no sysctl of Debian is set, since some are machine-wide; a service of the node gives pods their network (kindnet is
an image whose source is in no Go module).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from muster_dev.kind import archive, debian, store
from muster_dev.kind.archive import Image
from muster_dev.kind.engine import Engine
from muster_dev.local import binaries
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress

_NODE_FILES = Path(__file__).with_name("node")
_PACKAGES = (
    "ca-certificates", "conntrack", "containerd", "containernetworking-plugins", "curl", "dbus", "ebtables", "ethtool",
    "hostname", "iproute2", "iptables", "jq", "kmod", "libseccomp2", "mount", "netbase", "nftables", "procps", "runc",
    "socat", "systemd", "systemd-sysv", "util-linux",
)  # fmt: skip
_FILTERS = ("iptables", "nftables", "conntrack", "kmod")
_CLUSTER = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns")
_NODE = ("kubeadm", "kubelet", "kubectl")
_UNWANTED = (
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "lib/systemd/system/multi-user.target.wants/*",
    "etc/systemd/system/*.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "lib/systemd/system/basic.target.wants/*",
    "usr/lib/sysctl.d/*.conf",
)
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def ensure(engine: Engine, progress: Progress) -> str:
    """Return the name of the node image, making it first if the engine lacks it. Needs root."""
    programs = binaries.find([*_CLUSTER, *_NODE], progress)
    modules = [module.key() for module in binaries.modules()]
    ingredients = [debian.release(), *_PACKAGES, *_FILTERS, *modules, store.digest([Path(__file__), _NODE_FILES])]
    name = f"muster/node:{store.name(ingredients)}"
    if not engine.run("docker", "image", "ls", "--quiet", name).strip():
        root = store.made("node-root", [debian.release(), *_PACKAGES], lambda into: _bootstrap(into, progress), progress)
        with progress.step("making the node image"), TemporaryDirectory(prefix="muster-node-") as scratch:
            engine.run("docker", "load", stdin=_make(root, programs, name, Path(scratch)))
        _remove_others(engine, name)
    return name


def _remove_others(engine: Engine, name: str) -> None:
    """Remove node images that were made from other ingredients: each takes a gigabyte."""
    listed = engine.run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "muster/node").split()
    if others := [other for other in listed if other != name]:
        engine.run("docker", "image", "rm", *others)


def _bootstrap(into: Path, progress: Progress) -> None:
    if os.geteuid() != 0 or not debian.available():
        raise LocalError("kind's node image cannot be pulled, and making one needs root on Debian: run this as root there.")
    with progress.step("making the nodes' root file system from Debian packages (once, a minute or two)"):
        debian.bootstrap(_PACKAGES, into / "root")


def _make(base: Path, programs: dict[str, Path], name: str, scratch: Path) -> Path:
    """Make the image from a root file system and return it as an archive."""
    root = scratch / "root"
    debian.run(["cp", "--archive", "--reflink=auto", str(base / "root"), str(root)])
    kind = binaries.source("kind") / "images" / "base" / "files"
    for name_of_part in ("etc", "kind", "usr"):
        _copy(kind / name_of_part, root / name_of_part)
    cluster = _cluster_images(programs, scratch)
    _adapt(root, pause=cluster[-1].name)
    for program in _NODE:
        shutil.copy(programs[program], root / "usr" / "bin" / program)
    (root / "kind" / "version").write_text(_version(programs))
    archive.write(cluster, root / "kind" / "images.tar")
    _finish(root)
    config = {
        "Env": ["container=docker", PATH],
        "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
        "StopSignal": "SIGRTMIN+3",  # SIGTERM has systemd start anew
    }
    archive.write([Image(name, [root], config)], scratch / "node.tar")
    return scratch / "node.tar"


def _copy(source: Path, target: Path) -> None:
    """Copy a tree out of Go's cache, whose files can be neither executed nor written."""
    for file in (path for path in source.rglob("*") if path.is_file()):
        to = target / file.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)
        to.chmod(0o755 if to.parent.name == "bin" else 0o644)


def _adapt(root: Path, pause: str) -> None:
    """Turn the files of Debian and kind into those of a node."""
    for pattern in _UNWANTED:
        for path in root.glob(pattern):
            path.unlink()
    for directory in ("etc/kubernetes/manifests", "etc/cni/net.d", "kind/manifests", "opt/cni"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "opt/cni/bin").symlink_to("/usr/lib/cni")
    (root / "usr/local/bin/containerd").symlink_to("/usr/bin/containerd")
    with (root / "etc/systemd/journald.conf").open("a") as journal:
        journal.write("ReadKMsg=no\n")
    _edit(root / "etc/default/kubelet", r"ARGS=", "ARGS=--fail-cgroupv1=false ")
    _edit(root / "etc/containerd/config.toml", r"restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    _edit(root / "etc/containerd/config.toml", r'sandbox_image = ".*"', f'sandbox_image = "{pause}"')
    folders = {".sh": "kind/bin", ".service": "etc/systemd/system", ".yaml": "kind/manifests"}
    for file in _NODE_FILES.iterdir():
        to = root / folders[file.suffix] / file.name
        shutil.copyfile(file, to)
        to.chmod(0o755 if file.suffix == ".sh" else 0o644)


def _edit(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text())
    if not count:
        raise LocalError(f"kind's {file.name} has no {pattern!r}: muster does not support this version of kind.")
    file.write_text(text)


def _finish(root: Path) -> None:
    script = 'mount --bind /dev "$1/dev" && mount -t proc proc "$1/proc" && exec chroot "$1" /kind/bin/finish.sh'
    debian.run(["unshare", "--mount", "--pid", "--fork", "--propagation=private", "sh", "-c", script, "sh", str(root)])
    spec = json.loads((root / "kind/spec.json").read_text())
    del spec["process"]["rlimits"]
    spec["hooks"] = {"createContainer": [{"path": "/kind/bin/mount-product-files.sh"}]}
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(spec))
    for file in ("kind/spec.json", "kind/images.tar", "kind/bin/finish.sh"):
        (root / file).unlink()


def _cluster_images(programs: dict[str, Path], scratch: Path) -> list[Image]:
    """Make the images that kubeadm asks for, one program each, kube-proxy's with packet filters; the last one is pause."""
    version = _version(programs)
    listed = debian.run([str(programs["kubeadm"]), "config", "images", "list", "--kubernetes-version", version])
    names = {image.rpartition("/")[2].partition(":")[0]: image for image in listed.split()}
    filters, busybox = scratch / "filters", scratch / "busybox"
    debian.unpack(_FILTERS, filters, installed=False)
    debian.link_filters(filters)
    debian.unpack(["busybox-static"], busybox)
    images = []
    for program in _CLUSTER:
        layer = scratch / program
        (layer / "usr/local/bin").mkdir(parents=True)
        shutil.copy(programs[program], layer / "usr/local/bin" / program)
        below = [filters] if program == "kube-proxy" else []
        images.append(Image(names[program], [*below, layer], {"Env": [PATH], "Entrypoint": [f"/usr/local/bin/{program}"]}))
    return [*images, Image(names["pause"], [busybox], {"Entrypoint": ["/bin/busybox", "sleep", "infinity"]})]


def _version(programs: dict[str, Path]) -> str:
    return debian.run([str(programs["kubeadm"]), "version", "--output", "short"]).strip()
