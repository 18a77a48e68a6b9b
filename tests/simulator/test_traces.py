"""Traces: reading files, and errors in bad rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.simulator.traces import philly, poisson, tiresias
from muster.simulator.yaml_errors import BadInput

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
HEADER = "timestamp,duration,num_gpus,gpu_time,cluster\n"
ROWS = [
    "2017-10-09 07:01:55,66.0,1,66.0,aaa",
    "2017-10-09 06:13:03,2951.0,8,66.0,bbb",
    "2017-10-09 07:01:55,5,24,66.0,aaa",
    "2017-10-09 06:13:04,70,2,66.0,aaa",
]


def trace(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "trace.csv"
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def test_philly_returns_jobs_in_order_of_submission(tmp_path: Path) -> None:
    jobs = philly.jobs(trace(tmp_path, *ROWS, ""))
    assert [(job.arrival, job.work, job.tasks) for job in jobs] == [
        (0.0, 2951.0, (8,)),
        (1.0, 70.0, (2,)),
        (2932.0, 66.0, (1,)),
        (2932.0, 5.0, (8, 8, 8)),
    ]
    assert [job.name for job in jobs] == sorted(job.name for job in jobs)


def test_philly_filters_by_cluster_and_size_and_scales_gpus(tmp_path: Path) -> None:
    path = trace(tmp_path, *ROWS)
    of_one = philly.jobs(path, cluster="aaa", gpu_scale=0.5, most_gpus=8)
    assert [(job.arrival, job.gpus) for job in of_one] == [(0.0, 1), (2931.0, 1)]
    assert [job.gpus for job in philly.jobs(path, limit=2)] == [8, 2]
    with pytest.raises(BadInput, match="no job is of virtual cluster 'ccc'"):
        philly.jobs(path, cluster="ccc")


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ("yesterday,66.0,1,66.0,aaa", "timestamp", "found 'yesterday'; expected a valid datetime"),
        ("2017-10-09 07:01:55,0,1,66.0,aaa", "duration", "found '0'; expected greater than 0"),
        ("2017-10-09 07:01:55,inf,1,66.0,aaa", "duration", "expected a finite number"),
        ("2017-10-09 07:01:55,66.0,1.5,66.0,aaa", "num_gpus", "found '1.5'; expected a valid integer"),
        ("2017-10-09 07:01:55,66.0,,66.0,aaa", "num_gpus", "found ''"),
        ("2017-10-09 07:01:55,66.0,1,66.0", "", "has 4 cells; expected 5"),
        ("", "", "has 0 cells; expected 5"),
    ],
)
def test_bad_row_is_reported_with_line_and_column(tmp_path: Path, row: str, field: str, words: str) -> None:
    path = trace(tmp_path, ROWS[0], row, ROWS[1])
    with pytest.raises(BadInput) as caught:
        philly.jobs(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (3, field)
    assert words in problem.message
    assert str(path) in str(caught.value)


def test_missing_column_is_reported(tmp_path: Path) -> None:
    path = trace(tmp_path, header="timestamp,duration,gpus,cluster\n")
    with pytest.raises(BadInput, match=r"line 1, num_gpus: there is no such column; expected timestamp, duration, num_gpus"):
        philly.jobs(path)


def test_duplicate_job_is_reported_with_both_lines(tmp_path: Path) -> None:
    path = trace(tmp_path, "1,1,0,5,a", "2,1,0,5,a", "1,1,0,5,a", header="job_id,num_gpu,submit_time,duration,model_name\n")
    with pytest.raises(BadInput, match=r"line 4, job_id: found 1, a duplicate of line 2"):
        tiresias.jobs(path)


def test_sixty_jobs_of_tiresias_are_read() -> None:
    jobs = tiresias.jobs(DATA / "tiresias" / "60_job.csv")
    assert len(jobs) == 60
    assert (jobs[1].name, jobs[1].gpus, jobs[1].arrival, jobs[1].work, jobs[1].kind) == ("job-001", 8, 30.0, 147.0, "vgg11")


def test_poisson_jobs_depend_on_the_seed_alone() -> None:
    def drawn(seed: int) -> list[tuple[float, float, int]]:
        jobs = poisson.jobs(seed, 500, per_hour=60, median_seconds=100, spread=1.0, gpus={1: 3, 16: 1})
        return [(job.arrival, job.work, job.gpus) for job in jobs]

    assert drawn(3) == drawn(3) != drawn(4)
    arrivals, work, sizes = zip(*drawn(3), strict=True)
    assert arrivals[-1] / 500 == pytest.approx(60.0, rel=0.15)
    assert sorted(work)[250] == pytest.approx(100.0, rel=0.2)
    assert sizes.count(16) / 500 == pytest.approx(0.25, abs=0.06)
    assert poisson.jobs(3, 1, 60, 100, gpus={16: 1})[0].tasks == (8, 8)
