"""Traces that a program could leave on a machine, as sets of texts to compare before and after."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

# Counters, states and random numbers, which change by themselves.
_CHANGING = (
    "fs/aio-nr",
    "fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/quota", "kernel/ns_last_pid", "kernel/pty/nr",
    "kernel/random", "net/netfilter/nf_conntrack_count",
)  # fmt: skip
_PROGRAMS = ("dockerd", "docker-proxy", "containerd", "runc", "tini", "kubelet", "kube-proxy", "coredns")


def collect() -> dict[str, set[str]]:
    """Return the current traces by kind."""
    return {
        "processes": processes(),
        "mounts": {line.split(" - ")[0].split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "network devices": {path.name for path in Path("/sys/class/net").iterdir()},
        "routes": set(Path("/proc/net/route").read_text().splitlines()),
        "packet filter": set(_output("iptables-save").splitlines()) | set(_output("nft", "list", "ruleset").splitlines()),
        "cgroups": {str(path) for path in Path("/sys/fs/cgroup").rglob("*") if path.is_dir()},
        "sysctls": sysctls(),
        "state": {str(path) for path in (Path.home() / ".local/state/muster").glob("kind/*")},
    }


def processes() -> set[str]:
    """Return the processes of programs that a cluster runs."""
    running = set()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes().split(b"\0")
            name = Path(words[0].decode(errors="replace")).name
            if name.startswith(_PROGRAMS):
                running.add(f"{directory.name} {name}")
    return running


def sysctls() -> set[str]:
    """Return all readable sysctls with their values."""
    values = set()
    for path in Path("/proc/sys").rglob("*"):
        name = str(path.relative_to("/proc/sys"))
        if path.is_file() and not name.startswith(_CHANGING):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                values.add(f"{name} = {path.read_text().strip()}")
    return values


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""  # the machine does not have this program
