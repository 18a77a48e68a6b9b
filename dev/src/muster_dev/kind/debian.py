"""Debian packages used without installing them: unpacked into a directory, or made into a root file system.

The packages come from the machine's own apt sources, so versions and signatures are those that its administrator trusts;
dpkg's database is not touched. Needs a Debian or a release derived from it.
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


def unpack(packages: Sequence[str], into: Path, *, whole: bool = False, without: Collection[str] = ()) -> None:
    """Unpack packages with all that they need and the machine lacks (`whole`: with all that they need) into a directory.

    Maintainer scripts do not run: alternatives, users and caches are for the caller to make.
    """
    with tempfile.TemporaryDirectory(prefix="muster-debs-") as scratch:
        names = [name for name in _closure(packages, Path(scratch), whole) if name.partition(":")[0] not in without]
        # _apt, as whom apt would rather download, may not write here; root may.
        run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names], cwd=Path(scratch))
        for package in sorted(Path(scratch).glob("*.deb")):
            run(["dpkg", "-x", str(package), str(into)])
    for name in _DOCUMENTATION:
        shutil.rmtree(into / "usr" / "share" / name, ignore_errors=True)


def link_filters(root: Path) -> None:
    """Make the links that Debian makes by update-alternatives: the packet filter's programs are those of nftables."""
    for name in ("iptables", "ip6tables"):
        for verb in ("", "-save", "-restore"):
            (root / "usr/sbin" / f"{name}{verb}").symlink_to("xtables-nft-multi")


def bootstrap(packages: Sequence[str], into: Path) -> None:
    """Make a root file system of this machine's release with the packages configured, by debootstrap; needs root."""
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
    """Return the code name of this machine's release, as in "bookworm"."""
    lines = Path("/etc/os-release").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"')


def run(command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed; raise LocalError with its last words where it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise LocalError(f"`{' '.join(command[:4])} ...` ended with {done.returncode}:\n{said}")
    return done.stdout


def _closure(packages: Sequence[str], scratch: Path, whole: bool) -> list[str]:
    """The packages as NAME:ARCHITECTURE=VERSION that apt would install, on this machine or (`whole`) on an empty one."""
    options = ["-o", "APT::Install-Recommends=false", "-o", "Debug::NoLocking=true"]
    if whole:
        (scratch / "status").touch()
        options += ["-o", f"Dir::State::status={scratch / 'status'}", "-o", "pkgCacheGen::Essential=none"]
    # --reinstall: what is asked for by name is wanted also where the machine has it.
    said = run(["apt-get", *options, "--simulate", "--reinstall", "install", *packages])
    # Inst NAME [OLD] (VERSION ORIGIN [ARCHITECTURE])
    found = [line.split() for line in said.splitlines() if line.startswith("Inst ")]
    return [f"{words[1]}={next(word for word in words[2:] if word.startswith('('))[1:]}" for words in found]


def _mirror() -> str:
    """The first apt source: that of the release itself."""
    said = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"])
    sources = [line.split(maxsplit=1) for line in said.splitlines()]
    found = next((words[1] for words in sources if words[0] == release()), None)
    if not found:
        raise LocalError(f"apt knows no source of {release()}; is there a `deb` line in /etc/apt?")
    return found
