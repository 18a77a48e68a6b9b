"""Debian packages without installation: unpacked into a directory, or made into a root file system.

The packages come from the machine's own apt sources, so its administrator decides on versions and signatures. dpkg's database
stays unchanged. Needs Debian or a distribution derived from it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from muster_dev.local.errors import LocalError

_DOCUMENTATION = ("doc", "man", "locale", "info", "lintian", "bug")


def available() -> bool:
    """Return whether this machine has apt and dpkg."""
    return all(map(shutil.which, ("apt-get", "dpkg")))


def unpack(packages: Sequence[str], into: Path, *, installed: bool = True, without: Collection[str] = ()) -> None:
    """Unpack packages and their dependencies into a directory, except `without`.

    With `installed` the packages of this machine count as there, and dependencies on them are left out. Maintainer scripts
    do not run: the caller makes alternatives, users and caches.
    """
    with tempfile.TemporaryDirectory(prefix="muster-debs-") as scratch:
        names = [name for name in _closure(packages, Path(scratch), installed) if name.partition(":")[0] not in without]
        # apt would download as the user _apt, who may not write here.
        run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names], cwd=Path(scratch))
        for package in sorted(Path(scratch).glob("*.deb")):
            run(["dpkg", "-x", str(package), str(into)])
    for name in _DOCUMENTATION:
        shutil.rmtree(into / "usr" / "share" / name, ignore_errors=True)


def link_filters(root: Path) -> None:
    """Make the links of update-alternatives by which the iptables commands are those of nftables."""
    for name in ("iptables", "ip6tables"):
        for verb in ("", "-save", "-restore"):
            (root / "usr/sbin" / f"{name}{verb}").symlink_to("xtables-nft-multi")


def bootstrap(packages: Sequence[str], into: Path) -> None:
    """Make a root file system of this machine's release by debootstrap, with the packages configured; needs root."""
    with tempfile.TemporaryDirectory(prefix="muster-debootstrap-") as scratch:
        unpack(["debootstrap"], Path(scratch))
        command = [
            f"{scratch}/usr/sbin/debootstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            release(),
            str(into),
            _mirror(),
        ]
        run(command, env=os.environ | {"DEBOOTSTRAP_DIR": f"{scratch}/usr/share/debootstrap"})
    for name in ("var/cache/apt", "var/lib/apt/lists", *(f"usr/share/{name}" for name in _DOCUMENTATION)):
        shutil.rmtree(into / name, ignore_errors=True)


def release() -> str:
    """Return the code name of this machine's release, such as "bookworm"."""
    lines = Path("/etc/os-release").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"')


def run(command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return its output; raise LocalError with its last lines if it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise LocalError(f"`{' '.join(command[:4])} ...` ended with {done.returncode}:\n{output}")
    return done.stdout


def _closure(packages: Sequence[str], scratch: Path, installed: bool) -> list[str]:
    """Return the packages that apt would install, as NAME:ARCHITECTURE=VERSION: on this machine, or else on an empty one."""
    options = ["-o", "APT::Install-Recommends=false", "-o", "Debug::NoLocking=true"]
    if not installed:
        (scratch / "status").touch()
        options += ["-o", f"Dir::State::status={scratch / 'status'}", "-o", "pkgCacheGen::Essential=none"]
    # --reinstall: packages asked for by name are unpacked even if this machine has them.
    output = run(["apt-get", *options, "--simulate", "--reinstall", "install", *packages])
    # Inst NAME [OLD] (VERSION ORIGIN [ARCHITECTURE])
    lines = [line.split() for line in output.splitlines() if line.startswith("Inst ")]
    return [f"{words[1]}={next(word for word in words[2:] if word.startswith('('))[1:]}" for words in lines]


def _mirror() -> str:
    """Return the URI of the first apt source of the release itself."""
    output = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"])
    sources = [line.split(maxsplit=1) for line in output.splitlines()]
    mirror = next((words[1] for words in sources if words[0] == release()), None)
    if not mirror:
        raise LocalError(f"apt has no source of {release()}: add a `deb` line for it in /etc/apt and run apt-get update.")
    return mirror
