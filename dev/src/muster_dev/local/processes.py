"""The handle on a cluster's processes: starts the supervisor and talks to it over its lifeline.

The pipe to the supervisor is the cluster's hold on life: when this process ends, the pipe ends, and the supervisor stops
everything.
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
        """Whether it died because another process had taken its port meanwhile."""
        return "address already in use" in self.last_lines


@dataclass(frozen=True)
class Process:
    """One process of a cluster, as processes.json lists it."""

    name: str
    pid: int
    port: int | None
    log: Path
    exit_code: int | None

    @property
    def state(self) -> str:
        """What a user wants to know: running, or how it ended."""
        if self.exit_code is None:
            return "running" if proc.alive(self.pid) else "killed"
        return f"killed by signal {-self.exit_code}" if self.exit_code < 0 else f"ended with {self.exit_code}"


class Processes:
    """The processes of one cluster; they end when this object is closed, or when this process ends, unless detached."""

    def __init__(self, directory: Path, *, temporary: bool = False) -> None:
        """Start the supervisor in `directory`, which it removes in the end where it is temporary; raise AlreadyRunning."""
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._one_at_a_time = threading.Lock()
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
        """Start a process and return its pid; its output goes to logs/NAME.log. Those of a lower stage are stopped first."""
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
        """Raise ProcessDied where one of these processes has ended."""
        ended = self._ask({"do": "poll"})
        for name in names:
            if name in ended:
                raise ProcessDied(name, ended[name], self.logs / f"{name}.log")

    def detach(self) -> None:
        """Let the processes live on after this one; `stop_detached` ends them."""
        self._ask({"do": "detach"})
        self._hang_up()
        self._supervisor.returncode = 0  # no longer ours to wait for

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
        with self._one_at_a_time:
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
    held = supervisor.lock(directory)
    if held:
        held.close()
    return held is None


def recorded(directory: Path) -> tuple[int, list[Process]]:
    """Return the supervisor's pid and the processes that processes.json lists; (0, []) where there is none."""
    try:
        state = json.loads((directory / "processes.json").read_text())
        rows = [Process(**row | {"log": Path(row["log"])}) for row in state["processes"]]
        return int(state["supervisor"]), rows
    except (OSError, ValueError, KeyError, TypeError):
        return 0, []


def stop_detached(directory: Path) -> bool:
    """Stop the cluster that runs in `directory` and wait until it has; return False where none ran."""
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
    """Return the last lines of a log, empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def free_ports(count: int) -> list[int]:
    """Choose ports of loopback that are free and differ; another process may take one meanwhile, so be ready to retry."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
