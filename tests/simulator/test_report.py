"""The metrics of runs whose values are known."""

from __future__ import annotations

import json

import pytest

from muster.scheduling.gang import Assigned, Task
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.assembly import Foresight
from muster.simulator.engine import Simulation
from muster.simulator.fragmentation import MOST_SAMPLES, Fragmentation, unusable
from muster.simulator.jobs import Job
from muster.simulator.physics import Ideal
from muster.simulator.policies.ordered import ORDERS, Ordered
from muster.simulator.records import Records
from muster.simulator.report import report


def nodes(count: int = 1, gpus: int = 4) -> list[Node]:
    machine = unknown_machine(gpus)
    return [Node(f"n{index}", machine, machine.all, machine.all) for index in range(count)]


def simulated(*jobs: Job, order: str = "first-fit", until: float = float("inf"), count: int = 1) -> Records:
    oracle = Foresight()
    oracle.simulation = Simulation(nodes(count), jobs, Ideal(resume_seconds=5.0), Ordered(ORDERS[order], oracle), until=until)
    return oracle.simulation.run()


def test_metrics_of_two_jobs_in_sequence() -> None:
    figures = report(simulated(Job("a", 0.0, (4,), 1000.0), Job("b", 100.0, (2,), 100.0)), jobs=True)
    assert figures["jobs"] == {"arrived": 2, "started": 2, "finished": 2, "cancelled": 0}
    assert figures["jct"] == {"mean": 1000.0, "median": 1000.0, "p99": 1000.0}
    assert figures["queueing"] == {"mean": 450.0, "median": 450.0, "p99": 891.0, "over_15_min": 0, "share_over_15_min": 0.0}
    assert figures["makespan"] == 1100.0
    assert figures["allocation"]["mean"] == figures["utilisation"]["mean"] == pytest.approx(4200 / 4400)
    assert figures["window"] == [0.0, 100.0]
    assert figures["allocation"]["window"] == 1.0
    assert [row["queued"] for row in figures["rows"]] == [0.0, 900.0]
    assert figures["decisions"] == {"Place": {"Placed": 2}, "Wait": {"InsufficientGPUs": 1}}


def test_window_of_the_caller_is_used() -> None:
    figures = report(simulated(Job("a", 0.0, (4,), 1000.0), Job("b", 100.0, (2,), 100.0)), (900.0, 1100.0))
    assert figures["allocation"]["window"] == 0.75
    assert "rows" not in figures


def test_job_that_never_starts_counts_as_waiting_until_the_end() -> None:
    figures = report(
        simulated(Job("a", 0.0, (4,), 5000.0), Job("b", 100.0, (2,), 100.0), Job("c", 2000.0, (1,), 1.0), until=2500.0)
    )
    assert figures["jobs"] == {"arrived": 3, "started": 1, "finished": 0, "cancelled": 0}
    assert figures["jct"] == {"mean": None, "median": None, "p99": None}
    assert figures["queueing"] == {"mean": pytest.approx(2900 / 3, abs=1e-6), "median": 500.0, "p99": 2362.0} | {
        "over_15_min": 1,
        "share_over_15_min": pytest.approx(1 / 3, abs=1e-6),
    }
    assert figures["makespan"] == 2500.0


def test_gpu_with_two_jobs_counts_as_held_once() -> None:
    records = Records(4)
    for name in ("a", "b"):
        records.arrived(Job(name, 0.0, (2,), 1.0), 0.0)
    a, b = ((Assigned(Task(name, 2), "n0", gpus),) for name, gpus in (("a", 0b11), ("b", 0b110)))
    records.moved(Job("a", 0.0, (2,), 1.0), (), a, 0.0, "Place", 0.0)
    records.moved(Job("b", 0.0, (2,), 1.0), (), b, 10.0, "Pack", 0.0)
    records.moved(Job("a", 0.0, (2,), 1.0), a, (), 20.0, "Suspend", 0.0)
    records.moved(Job("b", 0.0, (2,), 1.0), b, (), 30.0, "Suspend", 0.0)
    records.close(40.0)
    assert records.held.steps == [(0.0, 2.0), (10.0, 3.0), (20.0, 2.0), (30.0, 0.0), (40.0, 0.0)]


def test_suspensions_and_their_overhead_are_counted() -> None:
    figures = report(simulated(Job("long", 0.0, (4,), 100.0), Job("short", 10.0, (4,), 20.0), order="srtf"))
    assert figures["suspensions"] == 1
    assert figures["overhead"] == {"seconds": 5.0, "per_job": 2.5}
    assert figures["makespan"] == 125.0
    assert figures["decisions"]["Requeue"] == {"Preempted": 1}


def test_same_run_gives_the_same_bytes_and_an_empty_run_has_no_metrics() -> None:
    jobs = [Job(f"j{index}", index * 0.1, (1 + index % 3,), 7.3 / (1 + index)) for index in range(40)]
    texts = [json.dumps(report(simulated(*jobs), jobs=True)) for _ in range(2)]
    assert texts[0] == texts[1]
    empty = report(simulated())
    assert empty["jct"]["mean"] is None
    assert empty["allocation"] == {"mean": None, "window": None}


def test_fraction_of_free_gpus_unusable_to_the_mix() -> None:
    assert unusable({3: 1, 1: 2, 0: 9}, {1: 1}) == 0.0
    assert unusable({3: 1, 1: 2}, {2: 1}) == pytest.approx(2 / 5)
    assert unusable({3: 1, 1: 2}, {2: 1, 1: 1}) == pytest.approx(1 / 5)
    assert unusable({4: 2}, {8: 1}) == 1.0
    assert unusable({0: 5}, {1: 1}) == unusable({4: 1}, {}) == 0.0


def test_fragmentation_of_a_run_is_the_mean_over_time() -> None:
    figures = report(simulated(Job("a", 0.0, (3,), 110.0), Job("b", 10.0, (1,), 50.0), Job("c", 10.0, (4,), 40.0)))
    # Until 10 s all pods have 3 GPUs, and the 1 free GPU is unusable. From 60 to 110 s it is unusable to 2 of 3 pods.
    assert figures["fragmentation"] == pytest.approx((10 * 1.0 + 50 * 2 / 3) / 150, abs=1e-6)


def test_fragmentation_of_a_long_run_has_bounded_samples() -> None:
    fragmentation = Fragmentation()
    fragmentation.arrived(Job("a", 0.0, (8,), 1.0))
    (node,) = nodes()
    for second in range(50_000):
        if fragmentation.due(float(second)):
            fragmentation.sample([node], float(second))
    assert len(fragmentation.samples) <= MOST_SAMPLES + 1
    assert fragmentation.mean(50_000.0) == pytest.approx(1.0)
