"""A private container engine: Docker from Debian packages, in its own namespaces. Needs root, and no network.

Invariant: everything that the engine makes (bridges, packet filter, network sysctls, mounts, containers) is inside its network,
mount and process namespaces, and disappears when their first process ends. `stop` restores what is machine-wide: the
sysctls that systemd and the kubelets in kind's nodes set, and the cgroups.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from muster_dev.kind import debian, engine, store, sysctls
from muster_dev.kind.engine import Engine
from muster_dev.local import directories, proc
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress
from muster_dev.local.waiting import until

_PACKAGES = ("docker.io", "iptables", "iproute2", "tini")
_CGROUP = "muster-kind"
_CAP_SYS_RESOURCE = 24
_STOP_SECONDS = 30.0
# runc refuses a container that asks for a capability which the machine withholds; privileged containers ask for all.
RUNC = """#!/bin/sh
# runc, without the capability that this machine withholds.
bundle=. file= previous=
for word in "$@"; do
    case $previous in --bundle | -b) bundle=$word ;; --process | -p) file=$word ;; esac
    case $word in --bundle=*) bundle=${word#*=} ;; --process=*) file=${word#*=} ;; create | run) file=BUNDLE ;; esac
    previous=$word
done
[ "$file" = BUNDLE ] && file=$bundle/config.json
[ -f "$file" ] && sed -i -e 's/"CAP_SYS_RESOURCE",//g' -e 's/,"CAP_SYS_RESOURCE"//g' "$file"
exec @RUNC@ "$@"
"""


def start(progress: Progress) -> Engine:
    """Start the engine and return it once it answers; raise LocalError if this machine cannot run one."""
    check()
    root = store.made("engine", [*_PACKAGES, debian.release()], _unpack, progress)
    engine.home().mkdir(parents=True, exist_ok=True)
    saved = engine.home() / "sysctls.json"
    if not saved.exists():  # otherwise an engine was killed, and the file has the values from before it
        saved.write_text(json.dumps(sysctls.read()))
    with progress.step("starting a private container engine"):
        try:
            return _start(root)
        except BaseException:
            stop()
            raise


def stop() -> bool:
    """End the engine with all that it made and restore machine-wide settings; return False if there was none."""
    home, record = engine.home(), engine.record()
    if not home.exists():
        return False
    processes = [record[name] for name in ("inside", "outside") if name in record]
    for number in (signal.SIGTERM, signal.SIGKILL) if processes else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(processes[0], number)
        with contextlib.suppress(LocalError):
            until(lambda: not any(map(proc.alive, processes)), "the engine ends", seconds=_STOP_SECONDS)
            break
    _remove_cgroups()
    with contextlib.suppress(OSError, ValueError):
        sysctls.restore(json.loads((home / "sysctls.json").read_text()))
    shutil.rmtree(home)
    return True


def check() -> None:
    """Raise LocalError if this machine cannot run a private engine."""
    if os.geteuid() != 0:
        raise LocalError(
            "No container engine answers (`docker version`), and starting one takes root: start Docker, or run this as root. "
            "`muster local up` needs neither; its pods are simulated."
        )
    if not debian.available():
        raise LocalError("No container engine answers, and muster can unpack one on Debian only: install Docker.")
    if missing := [name for name in ("unshare", "nsenter", "mount") if not shutil.which(name)]:
        raise LocalError(f"{', '.join(missing)} not found: apt-get install util-linux mount")


def _unpack(into: Path) -> None:
    debian.unpack(_PACKAGES, into)
    debian.link_filters(into)


def _start(root: Path) -> Engine:
    log = engine.home() / "engine.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            _command(root),
            env=_environment(root),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def alive() -> None:
        if process.poll() is not None:
            last_lines = log.read_text(errors="replace").strip().splitlines()[-8:]
            raise LocalError("The container engine did not start:\n" + "\n".join(last_lines))

    def answers() -> bool:
        started = engine.private()
        return bool(started and started.answers())

    try:
        until(lambda: _first_child(process.pid), "the engine's namespaces exist", check=alive)
        record = {"root": str(root), "outside": process.pid, "inside": _first_child(process.pid)}
        (engine.home() / "engine.json").write_text(json.dumps(record))
        until(answers, "the engine answers", check=alive)
    except BaseException:
        process.kill()  # the kernel then kills the processes inside
        process.wait()
        raise
    process.returncode = 0  # the engine outlives this process, which must not wait for it
    started = engine.private()
    assert started
    return started


def _command(root: Path) -> list[str]:
    """Return the engine's command line: dockerd under tini, which reaps zombies as the first process of new namespaces."""
    images = directories.cache() / "images"
    images.mkdir(parents=True, exist_ok=True)
    arguments = [
        f"--data-root={images}",
        f"--exec-root={engine.home() / 'exec'}",
        f"--host={engine.host()}",
        f"--pidfile={engine.home() / 'dockerd.pid'}",
        f"--userland-proxy-path={root}/usr/sbin/docker-proxy",
        f"--init-path={root}/usr/bin/docker-init",
        f"--cgroup-parent=/{_CGROUP}",
        "--exec-opt=native.cgroupdriver=cgroupfs",  # a systemd of the machine does not see these namespaces
        *_runtime(root),
    ]
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private", "--mount-proc"]
    return ["unshare", *namespaces, "sh", "-c", 'ip link set lo up && exec tini -- dockerd "$@"', "sh", *arguments]


def _runtime(root: Path) -> list[str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    bounding = next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd"))
    if bounding >> _CAP_SYS_RESOURCE & 1:
        return []
    wrapper = engine.home() / "runc"
    wrapper.write_text(RUNC.replace("@RUNC@", f"{root}/usr/sbin/runc"))
    wrapper.chmod(0o755)
    return [f"--add-runtime=withheld={wrapper}", "--default-runtime=withheld"]


def _environment(root: Path) -> dict[str, str]:
    libraries = [path for pattern in ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*") for path in root.glob(pattern)]
    filters = next((path / "xtables" for path in libraries if (path / "xtables").exists()), root)
    programs = [root / name for name in ("usr/sbin", "usr/bin", "sbin", "bin")]
    path = [*map(str, programs), os.environ.get("PATH", os.defpath), "/usr/sbin:/sbin"]
    added = {"PATH": ":".join(path), "LD_LIBRARY_PATH": ":".join(map(str, libraries)), "XTABLES_LIBDIR": str(filters)}
    return os.environ | added


def _first_child(pid: int) -> int:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0


def _remove_cgroups() -> None:
    for top in (*Path("/sys/fs/cgroup").glob(f"*/{_CGROUP}"), Path("/sys/fs/cgroup", _CGROUP)):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
