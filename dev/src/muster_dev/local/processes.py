"""A cluster's processes: starts the supervisor and sends it requests.

The pipe to the supervisor is its lifeline: when this process ends, the pipe closes, and the supervisor stops everything.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster_dev.local import proc, supervisor
from muster_dev.local.errors import LocalError

LAST_LINES = 15
GRACE_SECONDS = 5.0
STOP_SECONDS = 60.0


class AlreadyRunning(LocalError):
    """A cluster runs in that directory."""


class ProcessDied(LocalError):
    """A process of the cluster ended when it should not have."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        self.last_lines = tail(log)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"{name} {how}. The end of its log ({log}):\n{self.last_lines}")

    @property
    def port_was_taken(self) -> bool:
        """Whether it ended because another process had taken its port."""
        return "address already in use" in self.last_lines


@dataclass(frozen=True)
class Process:
    """A process of a cluster, as listed in processes.json."""

    name: str
    pid: int
    port: int | None
    log: Path
    exit_code: int | None

    @property
    def state(self) -> str:
        """Whether it runs, or how it ended, in words for users."""
        if self.exit_code is None:
            return "running" if proc.alive(self.pid) else "killed"
        return f"killed by signal {-self.exit_code}" if self.exit_code < 0 else f"ended with {self.exit_code}"


class Processes:
    """The processes of one cluster; they end when this object is closed, or when this process ends, unless detached."""

    def __init__(self, directory: Path, *, temporary: bool = False) -> None:
        """Start the supervisor in `directory`, which it removes at its end if `temporary`; raise AlreadyRunning."""
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._request_lock = threading.Lock()
        command = [sys.executable, "-P", "-m", supervisor.__name__, str(directory), *(["temporary"] if temporary else [])]
        with (self.logs / "supervisor.log").open("ab") as log:
            self._supervisor = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        try:
            self._read()
        except LocalError:
            self.close()
            raise

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        stage: int,
        grace: float = GRACE_SECONDS,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Start a process and return its pid; its output goes to logs/NAME.log. Lower stages are stopped first."""
        request = {
            "do": "start",
            "name": name,
            "argv": [str(word) for word in argv],
            "env": dict(env or {}),
            "stage": stage,
            "grace": grace,
            "port": port,
            "log": str(self.logs / f"{name}.log"),
        }
        return int(self._ask(request)["pid"])

    def stop(self, name: str) -> None:
        """Stop one process and wait for its end."""
        self._ask({"do": "stop", "name": name})

    def check(self, names: Iterable[str]) -> None:
        """Raise ProcessDied if one of these processes has ended."""
        ended = self._ask({"do": "poll"})
        for name in names:
            if name in ended:
                raise ProcessDied(name, ended[name], self.logs / f"{name}.log")

    def detach(self) -> None:
        """Let the processes outlive this one; `stop_detached` ends them."""
        self._ask({"do": "detach"})
        self._hang_up()
        self._supervisor.returncode = 0  # this process must not wait for it

    def close(self) -> None:
        """Stop all processes, in order, and wait until they have ended."""
        self._hang_up()
        try:
            self._supervisor.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the kernel kills its children
            self._supervisor.wait()

    def _hang_up(self) -> None:
        for pipe in (self._supervisor.stdin, self._supervisor.stdout):
            if pipe:
                pipe.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._request_lock:
            try:
                assert self._supervisor.stdin is not None
                self._supervisor.stdin.write(json.dumps(request).encode() + b"\n")
                self._supervisor.stdin.flush()
            except (BrokenPipeError, ValueError):
                raise LocalError(f"the local cluster in {self.directory} has been stopped") from None
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": tail(self.logs / "supervisor.log") or "it was killed"}
        match answer.get("error"):
            case None:
                return answer
            case "locked":
                raise AlreadyRunning(f"a local cluster already runs in {self.directory}")
            case error:
                raise LocalError(f"the supervisor of the local cluster in {self.directory} says: {error}")


def running(directory: Path) -> bool:
    """Return whether a cluster runs in `directory`."""
    if not directory.is_dir():
        return False
    lock = supervisor.lock(directory)
    if lock:
        lock.close()
    return lock is None


def recorded(directory: Path) -> tuple[int, list[Process]]:
    """Return the supervisor's pid and the processes of processes.json; (0, []) if there is no such file."""
    try:
        state = json.loads((directory / "processes.json").read_text())
        rows = [Process(**row | {"log": Path(row["log"])}) for row in state["processes"]]
        return int(state["supervisor"]), rows
    except (OSError, ValueError, KeyError, TypeError):
        return 0, []


def stop_detached(directory: Path) -> bool:
    """Stop the cluster that runs in `directory` and wait for its end; return False if none ran."""
    if not running(directory):
        return False
    pid, listed = recorded(directory)
    living = [pid, *(process.pid for process in listed if process.exit_code is None)]
    _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running(directory) or any(map(proc.alive, living)):
        if time.monotonic() > deadline:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.05)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        if pid:
            os.kill(pid, number)
    except ProcessLookupError:
        pass


def tail(log: Path, lines: int = LAST_LINES) -> str:
    """Return the last lines of a log, empty if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def free_ports(count: int) -> list[int]:
    """Return different free ports of loopback; another process may take one before it is used, so callers retry."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]
