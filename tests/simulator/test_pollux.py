"""Pollux: physics against measured points, and its two baseline schedulers against published results."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from muster.scheduling.profile import NO_NEIGHBOURS, Shape
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.assembly import Foresight
from muster.simulator.engine import Policy, Simulation
from muster.simulator.jobs import Job
from muster.simulator.physics import Ideal, Physics
from muster.simulator.physics.pollux import APPLICATIONS, Pollux, application
from muster.simulator.policies.optimus import Optimus
from muster.simulator.policies.tiresias import Tiresias
from muster.simulator.traces import pollux
from muster.simulator.yaml_errors import BadInput

DATA = Path(__file__).parents[2] / "benchmarks" / "data" / "pollux"
PUBLISHED = json.loads((DATA / "published_jcts.json").read_text())


def shape(*counts: int) -> Shape:
    return Shape("T4", counts, float("inf"))


def t4_nodes(count: int) -> list[Node]:
    machine = unknown_machine(4)
    return [Node(f"node-{index:02}", machine, machine.all, machine.all, "T4") for index in range(count)]


def run(
    jobs: list[Job], policy: Policy, oracle: Foresight | None = None, nodes: int = 16, physics: Physics | None = None
) -> Simulation:
    simulation = Simulation(t4_nodes(nodes), jobs, physics or Pollux(), policy)
    if oracle:
        oracle.simulation = simulation
    simulation.run()
    return simulation


# Step times


@pytest.mark.parametrize(
    ("name", "counts", "local", "step", "sync"),
    [
        ("bert", (1,), 4, 0.45532, 0.013739),
        ("cifar10", (1,), 45, 0.050485, 0.00050402),
        ("imagenet", (1,), 28, 0.20809, 0.0012061),
        ("yolov3", (1,) * 6, 4, 0.82473, 0.57772),
    ],
)
def test_step_times_equal_the_measurements(name: str, counts: tuple[int, ...], local: int, step: float, sync: float) -> None:
    assert application(name).times(counts, local) == pytest.approx((step, sync), rel=1e-4)


def test_step_times_are_linear_between_local_batches() -> None:
    low, high = application("bert").times((1,), 4)[0], application("bert").times((1,), 6)[0]
    assert application("bert").times((1,), 5)[0] == pytest.approx((low + high) / 2)


def test_step_times_are_linear_between_node_counts_at_equal_gpus_per_node() -> None:
    app = application("imagenet")
    seven, around = app.times((4,) * 7, 100)[0], (app.times((4,) * 6, 100)[0], app.times((4,) * 8, 100)[0])
    assert seven == pytest.approx(fmean(around))


def test_spread_over_nodes_is_slower() -> None:
    app = application("bert")
    assert app.times((2, 2), 12)[0] > 1.5 * app.times((4,), 12)[0]


# Batches


def test_batch_beyond_gpu_memory_takes_several_passes_and_one_exchange() -> None:
    app = application("yolov3")
    assert app.split(64, 4) == (8, 2)
    step, sync = app.times((4,), 8)
    assert app.step_seconds((4,), 64)[0] == pytest.approx(step + (step - sync))


def test_one_gpu_takes_two_passes_to_estimate_noise() -> None:
    app = application("cifar10")
    assert (app.split(256, 1), app.split(256, 2)) == ((128, 2), (128, 1))
    assert app.split(app.least_batch, 1) == (app.least_batch, 1)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_no_split_exceeds_the_largest_batch(name: str) -> None:
    app = application(name)
    for gpus in range(1, min(64, app.most_gpus()) + 1):
        local, passes = app.split(app.most_batch, gpus)
        assert local * passes * gpus <= app.most_batch


# Progress


def test_smallest_batch_makes_one_unit_of_progress_per_step() -> None:
    assert application("cifar10").progress(128, 50) == pytest.approx(1.0)


def test_progress_of_a_larger_batch_follows_the_noise() -> None:
    square, variance = 8.9785, 6.7403  # of cifar10 in its first epoch with batches of 1024, eight times the smallest
    expected = (variance + square) / (variance / 8 + square)
    assert application("cifar10").progress(1024, 0) == pytest.approx(expected, rel=1e-4)


def test_rate_holds_until_the_end_of_the_epoch() -> None:
    physics, job = Pollux(), Job("a", 0.0, (1,), application("cifar10").epochs[-1], "cifar10/1024")
    end = physics.milestone(job, 0.0)
    assert end == pytest.approx(390.71439)
    first, second = (physics.rate(job, done, shape(4), NO_NEIGHBOURS) for done in (0.0, end))
    assert physics.rate(job, end - 1, shape(4), NO_NEIGHBOURS) == first
    assert second > first  # gradients become noisier as training goes on, so large batches pay more
    assert physics.milestone(job, job.work) == job.work


def test_adaptive_job_is_not_slower_than_with_a_fixed_batch() -> None:
    physics = Pollux()
    for counts in ((1,), (4,), (4, 4)):
        adapts = physics.rate(Job("a", 0.0, (1,), 1.0, "deepspeech2"), 10_000, shape(*counts), NO_NEIGHBOURS)
        fixed = [
            physics.rate(Job("a", 0.0, (1,), 1.0, f"deepspeech2/{b}"), 10_000, shape(*counts), NO_NEIGHBOURS)
            for b in (80, 320, 640)
        ]
        assert adapts > 0.98 * max(fixed)  # it tries fifty sizes, so it may miss the best one narrowly


def test_gang_reports_its_current_rates_on_the_shapes_measured_for_its_kind() -> None:
    """Two jobs of a kind run on one and four GPUs: each has its own rates for both, until it ends."""
    one, four = (Job(name, 0.0, (1,) * gpus, 30_000.0, "cifar10") for name, gpus in (("one", 1), ("four", 4)))
    simulation = Simulation(t4_nodes(2), [one, four], Pollux(), Tiresias(), until=360.0)
    simulation.run()
    assert set(simulation.cluster.profiles) == {"cifar10", "one", "four"}
    reported = {
        name: {shape.counts: rate for (shape, _), rate in simulation.cluster.profiles[name].rates.items()}
        for name in ("one", "four")
    }
    now = {counts: Pollux().rate(one, simulation.runs["one"].done, shape(*counts), NO_NEIGHBOURS) for counts in ((1,), (4,))}
    assert reported["one"] == now
    assert reported["four"][4,] != now[4,]
    simulation.cancel("four")
    assert set(simulation.cluster.profiles) == {"cifar10", "one"}


# The trace


@pytest.mark.parametrize(
    ("scaling", "kind", "most"), [("rigid", "cifar10/2048", None), ("elastic", "cifar10/2048", 64), ("adaptive", "cifar10", 64)]
)
def test_first_job_of_a_workload_by_scaling(scaling: str, kind: str, most: int | None) -> None:
    job = next(iter(pollux.jobs(DATA / "workloads" / "workload-1.csv", scaling)))  # type: ignore[arg-type]
    assert (job.name, job.arrival, job.tasks, job.kind, job.most) == ("cifar10-0", 107.0, (1,) * 6, kind, most)


def test_unknown_application_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("name,time,application,num_replicas,batch_size\na-0,1,cifar10,1,128\nb-1,2,resnet,1,128\n")
    with pytest.raises(BadInput, match=r"line 3, application: found 'resnet'; expected one of bert, cifar10"):
        pollux.jobs(path)


def test_unmeasured_batch_size_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("name,time,application,num_replicas,batch_size\na-0,1,cifar10,1,64\n")
    with pytest.raises(BadInput, match=r"line 2, batch_size: found 64; expected 128 to 4096"):
        pollux.jobs(path)


# The baseline schedulers


def test_tiresias_suspends_a_job_at_its_limit_for_a_newer_one() -> None:
    jobs = [Job("long", 0.0, (1,) * 4, 600.0), Job("short", 70.0, (1,) * 4, 100.0)]
    rows = run(jobs, Tiresias(limit=4 * 120.0), nodes=1, physics=Ideal()).records.rows
    assert rows["short"].started == 180.0  # placed at 60, "long" has had its 120 s by then
    assert rows["short"].finished == 280.0
    assert rows["long"].finished == 60.0 + 120.0 + 120.0 + 480.0  # suspended from 180 to 300


def test_optimus_gives_more_gpus_to_the_longer_job() -> None:
    oracle = Foresight()
    long, short = (Job(n, 0.0, (1,), work, "deepspeech2/640", 1, 64) for n, work in (("long", 28_000.0), ("short", 2_000.0)))
    simulation = Simulation(t4_nodes(2), [long, short], Pollux(), Optimus(oracle), until=100.0)
    oracle.simulation = simulation
    simulation.run()
    gpus = {name: gang.held for name, gang in simulation.cluster.gangs.items()}
    assert gpus["long"] > gpus["short"] >= 1
    assert sum(gpus.values()) <= 8


def test_start_costs_as_much_as_a_restart() -> None:
    job = pollux.jobs(DATA / "workloads" / "workload-1.csv")[2]
    row = run([job], Tiresias()).records.rows[job.name]
    work_alone = sum(
        (end - begin) / Pollux().rate(job, begin, shape(1), NO_NEIGHBOURS)
        for begin, end in zip([0.0, *application("ncf").epochs], application("ncf").epochs, strict=False)
    )
    assert row.started is not None
    assert row.finished == pytest.approx(row.started + 30.0 + work_alone)


@pytest.mark.parametrize(("workload", "tolerance"), [(1, 0.02), (6, 0.02)])
def test_tiresias_reproduces_the_published_jcts(workload: int, tolerance: float) -> None:
    rows = run(list(pollux.jobs(DATA / "workloads" / f"workload-{workload}.csv")), Tiresias()).records.rows
    published = PUBLISHED["tiresias"][f"workload-{workload}"]
    assert fmean(row.jct or 0.0 for row in rows.values()) == pytest.approx(published["avg"], rel=tolerance)
    lone = [name for name in rows if name.startswith("yolov3")]
    assert [rows[name].jct for name in lone] == pytest.approx([published["jcts"][name] for name in lone], rel=0.05)


def test_optimus_reproduces_the_published_mean_jct() -> None:
    oracle = Foresight()
    jobs = pollux.jobs(DATA / "workloads" / "workload-3.csv", "elastic")
    rows = run(jobs, Optimus(oracle), oracle).records.rows
    assert fmean(row.jct or 0.0 for row in rows.values()) == pytest.approx(PUBLISHED["optimus"]["workload-3"]["avg"], rel=0.05)
