"""The command as a process: arguments and termination by SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from agent.conftest import Nodes, until
from muster_agent.__main__ import main


def kubeconfig(tmp_path: Path, url: str) -> str:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, users: [],"
        f" clusters: [{{name: c, cluster: {{server: '{url}'}}}}], contexts: [{{name: c, context: {{cluster: c}}}}]}}"
    )
    return str(path)


async def start(*args: str, **env: str) -> Process:
    command = [sys.executable, "-m", "muster_agent", *args]
    return await asyncio.create_subprocess_exec(*command, stderr=PIPE, env={**os.environ, **env})


async def terminated(process: Process) -> str:
    """Terminate the process with SIGTERM and return its output; the exit status must be 0."""
    process.send_signal(signal.SIGTERM)
    _, text = await process.communicate()
    assert process.returncode == 0, text.decode()
    return text.decode()


async def wait_for_log(process: Process, text: str) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while text not in (line := (await process.stderr.readline()).decode()):
            assert line, f"the process terminated without logging {text!r}"


async def test_local_nodes_runs_until_sigterm(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add("a", "p100")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = await start("--local-nodes", "--kubeconfig", kubeconfig(tmp_path, nodes.url), TMPDIR=str(scratch))
    await until(lambda: len(nodes.patches) == 1 and bool(nodes.streams))
    text = await terminated(process)
    assert "published 8 GPUs of node a" in text
    assert "stopped" in text
    assert "Traceback" not in text
    assert list(scratch.iterdir()) == []


async def test_node_without_driver_idles_until_sigterm(nodes: Nodes, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, nodes.url)
    process = await start("--metrics-port", "0", "--interval", "0.01", "--kubeconfig", path, NODE_NAME="n1")
    await wait_for_log(process, "idle: the NVIDIA driver does not answer")
    text = await terminated(process)
    assert "idle" not in text
    assert nodes.gets == []


async def test_missing_kubeconfig_is_reported(tmp_path: Path) -> None:
    process = await start("--node-name", "n1", "--kubeconfig", str(tmp_path / "none"))
    _, text = await process.communicate()
    assert process.returncode == 1
    assert text.decode().startswith("muster-agent: no kubeconfig at")
    assert "Traceback" not in text.decode()


def test_missing_node_name_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    with pytest.raises(SystemExit) as exit_info:
        main([])
    assert exit_info.value.code == 2
    assert "give --node-name, or set NODE_NAME" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "soon"])
def test_invalid_interval_is_rejected(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--node-name", "n1", "--interval", seconds])
    assert "argument --interval" in capsys.readouterr().err
