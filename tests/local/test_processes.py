"""Processes end: in order on request, and in any case with their starter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muster_dev.local import proc, processes
from muster_dev.local.errors import LocalError
from muster_dev.local.processes import AlreadyRunning, ProcessDied, Processes
from muster_dev.local.waiting import until

# Prints when it is ready; on SIGTERM appends its name to a file, and ends if it obeys.
CHILD = """
import signal, sys
name, order, obeys = sys.argv[1:]
def stop(*_):
    open(order, "a").write(name + " ")
    if obeys == "yes": sys.exit()
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True: signal.pause()
"""

# Starts two children, prints the pids (supervisor first), and ends in the way that its argument names.
PARENT = """
import os, pathlib, signal, sys, time
from muster_dev.local import processes
directory = pathlib.Path(sys.argv[1])
mine = processes.Processes(directory)
for name, obeys in ("a", "yes"), ("b", "no"):
    words = [sys.executable, "-c", sys.argv[3], name, str(directory / "order"), obeys]
    mine.start(name, words, stage=0, grace=0.3)
supervisor, listed = processes.recorded(directory)
pids = [supervisor, *(process.pid for process in listed)]
if sys.argv[2] == "fork" and not (child := os.fork()):
    signal.pause()
if sys.argv[2] == "fork": pids.append(child)
if sys.argv[2] == "detach": mine.detach()
print(*pids, flush=True)
if sys.argv[2] in ("return", "detach"): sys.exit()
signal.pause()
"""


class Parent:
    """A Python process that has started two children through a supervisor."""

    def __init__(self, directory: Path, way: str) -> None:
        command = [sys.executable, "-c", PARENT, str(directory), way, CHILD]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.popen.stdout is not None
        self.pids = [int(word) for word in self.popen.stdout.readline().split()]

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        if self.popen.stdout:
            self.popen.stdout.close()


@pytest.fixture
def start_parent(tmp_path: Path) -> Iterator[Callable[[str], Parent]]:
    started: list[Parent] = []

    def start(way: str) -> Parent:
        started.append(Parent(tmp_path, way))
        return started[-1]

    yield start
    for parent in started:
        parent.end()


def all_gone(pids: list[int]) -> bool:
    return not any(map(proc.alive, pids))


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


def start_child(mine: Processes, name: str, stage: int = 0, obeys: str = "yes") -> int:
    words = [sys.executable, "-c", CHILD, name, str(mine.directory / "order"), obeys]
    pid = mine.start(name, words, stage=stage, grace=0.3 if obeys == "no" else 60)
    until(lambda: "ready" in processes.tail(mine.logs / f"{name}.log"), f"{name} is ready")
    return pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_processes_end_when_the_starter_is_killed(start_parent: Callable[[str], Parent], number: signal.Signals) -> None:
    parent = start_parent("wait")
    assert len(parent.pids) == 3
    assert all(map(proc.alive, parent.pids))
    os.kill(parent.popen.pid, number)
    until(lambda: all_gone(parent.pids), "all have ended")


def test_all_processes_end_when_the_starter_returns_without_stopping_them(start_parent: Callable[[str], Parent]) -> None:
    parent = start_parent("return")
    until(lambda: all_gone(parent.pids), "all have ended")


def test_all_processes_end_when_the_supervisor_is_killed(tmp_path: Path, start_parent: Callable[[str], Parent]) -> None:
    parent = start_parent("wait")
    os.kill(parent.pids[0], signal.SIGKILL)
    until(lambda: all_gone(parent.pids), "all have ended")
    assert not processes.running(tmp_path)


def test_processes_end_with_their_starter_despite_its_fork(start_parent: Callable[[str], Parent]) -> None:
    parent = start_parent("fork")
    *ours, fork = parent.pids
    parent.popen.kill()
    parent.popen.wait()
    try:
        until(lambda: all_gone(ours), "all have ended")
        assert proc.alive(fork)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_temporary_directory_is_removed_with_its_processes(tmp_path: Path) -> None:
    directory = tmp_path / "temporary"
    directory.mkdir()
    mine = Processes(directory, temporary=True)
    start_child(mine, "child")
    mine.close()
    assert not directory.exists()


def test_detached_processes_outlive_their_starter_until_they_are_stopped(
    tmp_path: Path, start_parent: Callable[[str], Parent]
) -> None:
    parent = start_parent("detach")
    assert parent.popen.wait() == 0
    assert all(map(proc.alive, parent.pids))
    assert processes.running(tmp_path)
    assert processes.stop_detached(tmp_path)
    assert all_gone(parent.pids)
    assert not processes.stop_detached(tmp_path)


def test_processes_are_stopped_stage_by_stage(mine: Processes) -> None:
    for name, stage in (("third", 3), ("first", 1), ("second", 2)):
        start_child(mine, name, stage)
    mine.close()
    assert (mine.directory / "order").read_text().split() == ["first", "second", "third"]


def test_process_that_ignores_sigterm_is_killed_after_its_grace_period(mine: Processes) -> None:
    pid = start_child(mine, "stubborn", obeys="no")
    mine.stop("stubborn")
    assert not proc.alive(pid)
    assert (mine.directory / "order").read_text().split() == ["stubborn"]
    assert [process.state for process in processes.recorded(mine.directory)[1]] == ["killed by signal 9"]


def test_process_can_be_stopped_and_started_again(mine: Processes) -> None:
    first = start_child(mine, "again")
    mine.stop("again")
    assert start_child(mine, "again") != first
    mine.check(["again"])


def test_second_process_of_a_name_is_refused(mine: Processes) -> None:
    pid = start_child(mine, "only")
    with pytest.raises(LocalError, match=f"only runs already, pid {pid}"):
        mine.start("only", ["true"], stage=0)


def test_missing_program_is_reported(mine: Processes) -> None:
    with pytest.raises(LocalError, match="/no/such/program"):
        mine.start("missing", ["/no/such/program"], stage=0)


def test_process_that_died_is_reported_with_the_end_of_its_log(mine: Processes) -> None:
    mine.start("broken", ["sh", "-c", "echo bind: address already in use; exit 3"], stage=0)
    with pytest.raises(ProcessDied, match=r"broken ended with exit code 3(?s:.*)in use") as died:
        until(lambda: False, "the end is noticed", check=lambda: mine.check(["broken"]))
    assert died.value.port_was_taken


def test_end_of_a_process_is_recorded_in_processes_json(mine: Processes) -> None:
    pid = start_child(mine, "victim")
    os.kill(pid, signal.SIGKILL)
    until(lambda: [process.exit_code for process in processes.recorded(mine.directory)[1]] == [-9], "the end is recorded")


def test_second_supervisor_of_a_directory_is_refused(mine: Processes) -> None:
    with pytest.raises(AlreadyRunning, match=str(mine.directory)):
        Processes(mine.directory)
    assert processes.running(mine.directory)


def test_start_after_the_end_is_refused(mine: Processes) -> None:
    mine.close()
    with pytest.raises(LocalError, match="has been stopped"):
        mine.start("late", ["true"], stage=0)


def test_free_ports_differ_from_each_other() -> None:
    assert len(set(processes.free_ports(20))) == 20


def test_memory_and_cpu_of_a_process_are_read_from_proc() -> None:
    assert proc.memory_mib(os.getpid()) > 1
    assert proc.cpu_seconds(os.getpid()) > 0
    assert proc.alive(os.getpid())


def test_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is not reaped
        assert Path(f"/proc/{zombie.pid}").exists()
        assert not proc.alive(zombie.pid)
