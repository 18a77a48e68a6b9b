"""The command `muster simulate`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muster.cli import atomic_write, main

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios"
SCENARIO = """\
cluster: {groups: [{count: 1, gpus: 4}]}
jobs: {source: list, jobs: [{name: a, work: 1000, gpus: 4}, {name: b, work: 100, gpus: 2, arrival: 100}]}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return str(path)


def test_result_is_printed_as_a_table(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", scenario, "--jobs"]) == 0
    out, err = capsys.readouterr()
    assert err == "", "no progress bar where there is no terminal"
    rows = {tuple(line.split()) for line in out.splitlines()}
    assert ("job", "completion", "time", "16.7", "min", "16.7", "min", "16.7", "min") in rows
    assert ("makespan", "18.3", "min") in rows
    assert ("b", "2", "100.0", "s", "15.0", "min", "16.7", "min", "0", "0") in rows


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(
        "cluster: {groups: [{count: 1, gpus: 4}]}\njobs: {source: poisson, count: 400, per_hour: 9, median_seconds: 9}\n"
    )
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", "import sys; from muster.cli import main; sys.exit(main())", "simulate", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: _read(ours), b""))
        assert b"400 of 400 jobs" in (process.stdout.read() if process.stdout else b"")
    assert process.returncode == 0
    assert b" of 400 jobs" in shown
    os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says EIO where the other end is closed
        return b""


def test_json_output_is_reproducible(scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    assert main(["simulate", scenario, "--json", "--jobs"]) == 0
    first = capsys.readouterr().out
    assert main(["simulate", scenario, "--json", "--jobs", "-o", str(file)]) == 0
    assert capsys.readouterr().out == ""
    assert file.read_text() == first
    result = json.loads(first)
    assert (result["policy"], result["gpus"], result["makespan"]) == ("muster", 4, 1100.0)
    assert [row["name"] for row in result["rows"]] == ["a", "b"]


def test_timeline_is_written(scenario: str, tmp_path: Path) -> None:
    assert main(["simulate", scenario, "--timeline", str(tmp_path / "a.svg"), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected either a scenario or --snapshot FILE"),
        (["SCENARIO", "--snapshot", "x"], "expected either a scenario or --snapshot FILE"),
        (["SCENARIO", "--timeline", "a.pdf"], "found a.pdf; expected a name that ends in .png or .svg"),
        (["SCENARIO", "--assume-duration", "5"], "together with --snapshot"),
        (["--snapshot", "x", "--assume-duration", "-5"], "seconds above 0"),
        (["--snapshot", "x", "--timeline", "a.png"], "expected --assume-duration as well"),
        (["none.yaml"], "none.yaml: cannot be read"),
        (["--snapshot", "none.json"], "none.json: cannot be read"),
        (["SCENARIO", "-o", "no/such/folder/result"], "there is no folder no/such/folder"),
    ],
)
def test_invalid_command_line_is_rejected_with_a_message(
    scenario: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *(scenario if word == "SCENARIO" else word for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("muster simulate: ")


def test_bad_trace_is_reported_and_no_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("job_id,num_gpu,submit_time,duration,model_name\n1,0,0,5,vgg\n2,1,0,x,vgg\n")
    path = tmp_path / "scenario.yaml"
    path.write_text("cluster: {groups: [{count: 1, gpus: 4}]}\njobs: {source: tiresias, path: t.csv}\n")
    before = sorted(tmp_path.iterdir())
    assert main(["simulate", str(path), "-o", str(tmp_path / "result"), "--timeline", str(tmp_path / "a.png")]) == 2
    assert "t.csv, line 2, num_gpu: found '0'; expected greater than or equal to 1" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_atomic_write_replaces_a_file_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result"
    atomic_write.write(path, b"old")
    with pytest.raises(TypeError):
        atomic_write.write(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    atomic_write.write(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_example_scenario_finishes_all_jobs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(path), "--json"]) == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert jobs["finished"] == jobs["arrived"] > 0
