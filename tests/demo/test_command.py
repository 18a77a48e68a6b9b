"""`muster demo` as a user runs it, stopped in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster_dev.local import waiting
from muster_dev.local.cluster import LocalCluster


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory for the demo's cluster; its name is short, since paths of sockets are limited."""
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        yield Path(directory)


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_demo_leaves_nothing_running(number: signal.Signals, scratch: Path, cluster: LocalCluster) -> None:
    assert cluster.binaries, "the programs are built, so that the demo does not have to"
    out = scratch / "out"
    with out.open("w") as file:
        demo = subprocess.Popen(
            [sys.executable, "-c", "import sys; from muster.cli import main; sys.exit(main(['demo']))"],
            env=os.environ | {"TMPDIR": str(scratch)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            waiting.until(lambda: "submitted" in out.read_text() or demo.poll() is not None, "the demo has submitted jobs")
            assert demo.poll() is None, out.read_text()
            assert processes_of(scratch)
            demo.send_signal(number)
            assert demo.wait(waiting.PATIENCE_SECONDS) == 130
        finally:
            demo.kill()
    assert processes_of(scratch) == []
    assert [path.name for path in scratch.iterdir()] == ["out"]


def processes_of(directory: Path) -> list[str]:
    """Return the command lines of other processes that name files in `directory`."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # it has just ended
            continue
        if f"{directory}/muster-".encode() in words:
            commands.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return commands
