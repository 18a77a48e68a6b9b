"""The private engine's runtime without a withheld capability, and the messages of `muster kind` without an engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from muster import cli
from muster_dev.kind import engine, private_engine, sysctls
from muster_dev.local.errors import LocalError

SPEC = '{"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE"],"permitted":["CAP_SYS_RESOURCE","CAP_KILL"]}'


@pytest.mark.parametrize(
    ("words", "touched"),
    [
        ("--root r create --bundle {bundle} id", "config.json"),
        ("run --bundle={bundle} id", "config.json"),
        ("exec --process {bundle}/process.json id", "process.json"),
        ("exec -p {bundle}/process.json id", "process.json"),
        ("delete --force id", None),
        ("state id", None),
    ],
)
def test_runtime_removes_the_withheld_capability(words: str, touched: str | None, tmp_path: Path) -> None:
    wrapper = tmp_path / "runc"
    wrapper.write_text(private_engine.RUNC.replace("@RUNC@", "echo"))
    for name in ("config.json", "process.json"):
        (tmp_path / name).write_text(SPEC)
    arguments = words.format(bundle=tmp_path).split()
    done = subprocess.run(["sh", wrapper, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.split() == arguments  # passed on unchanged
    for name in ("config.json", "process.json"):
        assert ("CAP_SYS_RESOURCE" in (tmp_path / name).read_text()) == (name != touched)
    if touched:
        assert (tmp_path / touched).read_text() == '{"bounding":["CAP_CHOWN"],"permitted":["CAP_KILL"]}'


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without an engine, and an empty state directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_commands_without_an_engine_report_that_there_is_no_cluster(
    no_engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert engine.running() is None
    assert cli.main(["kind", "status"]) == 1
    assert "`muster kind up` creates one" in capsys.readouterr().err
    assert cli.main(["kind", "run"]) == 1
    assert "name a program" in capsys.readouterr().err
    assert cli.main(["kind", "down"]) == 0
    assert "there was no kind cluster" in capsys.readouterr().out
    assert list(no_engine.iterdir()) == []


def test_missing_requirements_of_an_engine_are_reported_before_anything_starts(
    no_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LocalError, match=r"takes root.*muster local up"):
        private_engine.check()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(LocalError, match="on Debian only"):
        private_engine.check()
    assert list(no_engine.iterdir()) == []


def test_unchanged_sysctls_are_not_written() -> None:
    before = sysctls.read()
    assert "kernel/panic" in before
    sysctls.restore(before)  # only root may write
    assert sysctls.read() == before
