"""The process that owns a cluster's processes: `python -m muster_dev.local.supervisor DIRECTORY [temporary]`.

It leaves no process behind. Its standard input is the lifeline to its starter: when that closes, for whatever reason, the
supervisor stops everything in order. If the supervisor itself is killed, the kernel kills its children (PR_SET_PDEATHSIG is
tied to the thread that forked, and this process has one thread). After {"do": "detach"} it runs without a lifeline, until
SIGTERM.

While it runs it holds a lock on DIRECTORY/lock, by which other processes see that a cluster runs: a stale file holds no lock.
DIRECTORY/processes.json lists the processes. Requests are lines of JSON on standard input, each answered by one line on
standard output. Standard library only, so that it is small and starts at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Child:
    """A process of the cluster; lower stages are stopped first."""

    name: str
    stage: int
    grace: float
    """Seconds between SIGTERM and SIGKILL."""
    port: int | None
    log: str
    process: subprocess.Popen[bytes]

    def record(self) -> dict[str, Any]:
        """Return its entry in processes.json."""
        code = self.process.returncode
        return {"name": self.name, "pid": self.process.pid, "port": self.port, "log": self.log, "exit_code": code}


class Supervisor:
    """The children by name; an ended child stays listed with its exit code until its name is used again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children: dict[str, Child] = {}
        self.detached = False

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request and return the answer, which may be an error."""
        try:
            match request["do"]:
                case "start":
                    return {"pid": self.start(request)}
                case "stop":
                    self.stop([child for child in self.children.values() if child.name == request["name"]])
                case "detach":
                    self.detached = True
            return {child.name: code for child in self.children.values() if (code := child.process.poll()) is not None}
        except (OSError, KeyError, ValueError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def start(self, request: dict[str, Any]) -> int:
        """Start a child and return its pid; raise ValueError if one of that name still runs."""
        name = request["name"]
        if (old := self.children.get(name)) and old.process.poll() is None:
            raise ValueError(f"{name} runs already, pid {old.process.pid}")
        self.children.pop(name, None)
        with Path(request["log"]).open("ab") as log:
            process = subprocess.Popen(
                request["argv"],
                cwd=self.directory,
                env=os.environ | request["env"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal must not end them out of order
                preexec_fn=_die_with(os.getpid()),
            )
        self.children[name] = Child(name, request["stage"], request["grace"], request["port"], request["log"], process)
        self.publish()
        return process.pid

    def stop(self, children: Iterable[Child]) -> None:
        """End the children stage by stage and wait for their ends, after which their ports may be used again."""
        children = list(children)
        for stage in sorted({child.stage for child in children}):
            _end([child for child in children if child.stage == stage])
        self.publish()

    def publish(self) -> None:
        """Replace processes.json atomically."""
        state = {"supervisor": os.getpid(), "processes": [child.record() for child in self.children.values()]}
        draft = self.directory / "processes.json.new"
        draft.write_text(json.dumps(state, indent=1))
        draft.replace(self.directory / "processes.json")

    def reap(self) -> None:
        """Record children that ended by themselves."""
        before = [child.process.returncode for child in self.children.values()]
        if [child.process.poll() for child in self.children.values()] != before:
            self.publish()


def _end(children: list[Child]) -> None:
    for child in children:
        child.process.terminate()
    begun = time.monotonic()
    for child in children:
        try:
            child.process.wait(max(0.0, begun + child.grace - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _die_with(parent: int) -> Any:
    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the line above
            os._exit(1)

    return prepare


def serve(supervisor: Supervisor, wakeup: int, stopped: list[int]) -> None:
    """Answer requests until the lifeline closes (unless detached) or a signal says stop."""
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(wakeup, select.POLLIN)
    # In addition to the pipe: a fork of the starter that never execs would hold the pipe open after its end.
    starter = os.pidfd_open(os.getppid())
    poller.register(starter, select.POLLIN)
    pending = b""
    while not stopped:
        ready = {fd for fd, _ in poller.poll()}
        if wakeup in ready:
            os.read(wakeup, 4096)
            supervisor.reap()
        if starter in ready:
            if not supervisor.detached:
                return
            poller.unregister(starter)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                if not supervisor.detached:
                    return
                poller.unregister(0)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                _write(supervisor.answer(json.loads(line)))


def _write(answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the starter has ended, as standard input will show
        os.write(1, json.dumps(answer).encode() + b"\n")


def lock(directory: Path) -> IO[str] | None:
    """Return the locked file of a cluster's directory, held until it is closed; None if a cluster runs there."""
    file = (directory / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def main() -> int:
    """Run until told to stop; return the exit code."""
    directory, temporary = Path(sys.argv[1]), sys.argv[2:] == ["temporary"]
    stopped: list[int] = []
    read, write = os.pipe()
    for end in (read, write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    for harmless in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
        signal.signal(harmless, lambda *_: None)  # not SIG_IGN, which the children would inherit
    locked = lock(directory)
    if locked is None:
        _write({"error": "locked"})
        return 1
    with locked:
        supervisor = Supervisor(directory)
        supervisor.publish()
        _write({"pid": os.getpid()})
        try:
            serve(supervisor, read, stopped)
        finally:
            supervisor.stop(supervisor.children.values())
            if temporary:
                shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
