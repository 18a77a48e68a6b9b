"""What a program could leave on a machine, as sets of texts: take one before, one after, and compare."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

# Counters, states and random numbers: they change by themselves.
_RESTLESS = (
    "fs/aio-nr",
    "fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/quota", "kernel/ns_last_pid", "kernel/pty/nr",
    "kernel/random", "net/netfilter/nf_conntrack_count",
)  # fmt: skip
_OURS = ("dockerd", "docker-proxy", "containerd", "runc", "tini", "kubelet", "kube-proxy", "coredns")


def seen() -> dict[str, set[str]]:
    """Return what there is, by kind of thing."""
    return {
        "processes": processes(),
        "mounts": {line.split(" - ")[0].split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "network devices": {path.name for path in Path("/sys/class/net").iterdir()},
        "routes": set(Path("/proc/net/route").read_text().splitlines()),
        "packet filter": set(_said("iptables-save").splitlines()) | set(_said("nft", "list", "ruleset").splitlines()),
        "cgroups": {str(path) for path in Path("/sys/fs/cgroup").rglob("*") if path.is_dir()},
        "sysctls": sysctls(),
        "state": {str(path) for path in (Path.home() / ".local/state/muster").glob("kind/*")},
    }


def processes() -> set[str]:
    """The processes that a cluster could have left: those of programs that it runs."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes().split(b"\0")
            name = Path(words[0].decode(errors="replace")).name
            if name.startswith(_OURS):
                found.add(f"{directory.name} {name}")
    return found


def sysctls() -> set[str]:
    """All that can be read, with their values."""
    found = set()
    for path in Path("/proc/sys").rglob("*"):
        name = str(path.relative_to("/proc/sys"))
        if path.is_file() and not name.startswith(_RESTLESS):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                found.add(f"{name} = {path.read_text().strip()}")
    return found


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""  # the machine does not have this program
