"""`muster local` as a user types it, against a real cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from muster import machines
from muster_dev.local import proc, processes
from muster_dev.local.waiting import until


class Shell:
    """Runs `muster local ...` with a state directory of its own."""

    def __init__(self, home: Path) -> None:
        self.environ = os.environ | {"XDG_STATE_HOME": str(home)}
        self.state = home / "muster"

    def popen(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "import sys; from muster.cli import main; sys.exit(main())", "local", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environ, stdout=pipe, stderr=pipe, text=True, preexec_fn=_end_on_interrupt)

    def run(self, *words: str) -> tuple[int, str]:
        """Return the exit code, and stdout followed by stderr."""
        with self.popen(*words) as process:
            out, err = process.communicate()
            return process.returncode, out + err

    def pids(self) -> list[int]:
        return [process.pid for process in processes.recorded(self.state)[1]]


def _end_on_interrupt() -> None:
    """Let SIGINT end the command as in a terminal: tests in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize("action", ["status", "kubeconfig"])
def test_status_and_kubeconfig_without_a_cluster_say_how_to_start_one(shell: Shell, action: str) -> None:
    code, said = shell.run(action)
    assert code == 1
    assert "no local cluster is up" in said
    assert "muster local up" in said


def test_down_without_a_cluster_succeeds(shell: Shell) -> None:
    assert shell.run("down")[0] == 0


def test_invalid_nodes_are_refused_before_anything_starts(shell: Shell) -> None:
    code, said = shell.run("up", "--nodes", "abacus:1")
    assert code == 1
    assert "abacus" in said
    assert "Traceback" not in said
    assert not shell.state.exists()


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "-a", "x" * 33])
def test_bad_name_of_a_cluster_is_refused(shell: Shell, name: str) -> None:
    code, said = shell.run("up", f"--name={name}")
    assert code == 1
    assert "--name" in said
    assert "Traceback" not in said
    assert not shell.state.exists()


@pytest.mark.parametrize("seconds", ["0", "3", "-1", "4.5", "soon", "٤", "9" * 30])
def test_grace_period_out_of_bounds_is_refused(shell: Shell, seconds: str) -> None:
    code, said = shell.run("up", f"--node-grace-seconds={seconds}")
    assert code == 2
    assert "from 4" in said
    assert not shell.state.exists()


def test_help_and_errors_list_the_same_machine_types(shell: Shell) -> None:
    told = {" ".join(shell.run(*words)[1].split()) for words in (("up", "--help"), ("up", "--nodes", "abacus:1"))}
    assert all(machines.names() in said.replace("- ", "-") for said in told), told


@pytest.mark.cluster
def test_named_cluster_runs_beside_the_unnamed_one(shell: Shell) -> None:
    named = "--name=second"
    try:
        code, said = shell.run("up", "--nodes=p100:1", named)
        assert code == 0, said
        assert shell.run("status")[0] == 1, "the unnamed cluster is another one"
        assert shell.run("up", "--nodes=")[0] == 0
        assert "1 of 1 nodes are Ready" in shell.run("status", named)[1]
        assert shell.run("down")[0] == 0
        assert shell.run("status", named)[0] == 0
        code, said = shell.run("up", named)
        assert (code, "muster local down --name second" in said) == (1, True)
    finally:
        assert (shell.run("down")[0], shell.run("down", named)[0]) == (0, 0)


@pytest.mark.cluster
def test_cluster_goes_through_up_status_and_down(shell: Shell) -> None:
    write_stale_cluster(shell.state)
    assert shell.run("status")[0] == 1
    try:
        code, said = shell.run("up", "--nodes", "p100:2")
        assert code == 0, said
        assert f"KUBECONFIG={shell.state / 'kubeconfig'}" in said
        assert not (shell.state / "etcd" / "stale").exists()

        assert shell.run("kubeconfig") == (0, f"{shell.state / 'kubeconfig'}\n")
        code, said = shell.run("status")
        assert code == 0
        assert "2 of 2 nodes are Ready" in said

        code, said = shell.run("up")
        assert code == 1
        assert "already" in said
        assert shell.run("status")[0] == 0

        pids = shell.pids()
        os.kill(pids[-1], signal.SIGKILL)
        until(lambda: shell.run("status")[0] == 1, "status reports the killed process")
        assert "killed by signal 9" in shell.run("status")[1]
    finally:
        down = shell.run("down")
    assert down[0] == 0
    assert not any(map(proc.alive, pids))
    assert {path.name for path in shell.state.iterdir()} <= {"lock"}


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_foreground_cluster_ends_with_the_command(shell: Shell, number: signal.Signals) -> None:
    with shell.popen("up", "--foreground", "--nodes", "") as process:
        assert process.stdout is not None
        assert any("The cluster is up" in line for line in process.stdout)
        pids = shell.pids()
        assert len(pids) == 5
        process.send_signal(number)
        process.communicate()
    until(lambda: not any(map(proc.alive, pids)), "all processes have ended")
    until(lambda: not processes.running(shell.state), "the supervisor, which ends last, has let go of the directory")


def write_stale_cluster(state: Path) -> None:
    """Write the files of a cluster that ended with the machine: they say that it runs, but nobody holds the lock."""
    (state / "etcd").mkdir(parents=True)
    (state / "etcd" / "stale").write_text("not a database")
    (state / "kubeconfig").write_text("stale")
    (state / "processes.json").write_text(f'{{"supervisor": {os.getpid()}, "processes": []}}')
