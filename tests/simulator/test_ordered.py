"""Schedulers with a sort order: the published results of the Tiresias simulator, and the semantics of each order."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.assembly import Foresight
from muster.simulator.engine import Simulation
from muster.simulator.jobs import Job
from muster.simulator.physics import Ideal
from muster.simulator.policies.ordered import ORDERS, Ordered
from muster.simulator.records import Records
from muster.simulator.traces import tiresias

TRACE = Path(__file__).parents[2] / "benchmarks" / "data" / "tiresias" / "60_job.csv"


def simulated(order: str, nodes: int, jobs: list[Job]) -> Records:
    machine = unknown_machine(4)
    oracle = Foresight()
    policy = Ordered(ORDERS[order], oracle)
    four = [Node(f"n{index}", machine, machine.all, machine.all) for index in range(nodes)]
    oracle.simulation = Simulation(four, jobs, Ideal(), policy)
    return oracle.simulation.run()


@pytest.mark.parametrize(
    ("order", "nodes", "seconds", "preemptions"),
    [
        ("fifo", 3, 423.48, 0),
        ("fifo", 4, 200.82, 0),
        ("first-fit", 3, 310.42, 0),
        ("first-fit", 4, 190.68, 0),
        ("srtf", 3, 273.50, 11),
        ("srtf", 4, 192.12, 4),
        ("srsf", 3, 353.43, 12),
        ("srsf", 4, 195.90, 7),
        ("fewest-gpus", 3, 413.43, 12),
        ("fewest-gpus", 4, 198.20, 8),
        ("las-queues", 3, 310.42, 0),
        ("las-queues", 4, 190.68, 0),
    ],
)
def test_mean_jct_equals_the_published_simulators(order: str, nodes: int, seconds: float, preemptions: int) -> None:
    records = simulated(order, nodes, tiresias.jobs(TRACE))
    assert fmean(row.jct or 0.0 for row in records.rows.values()) == pytest.approx(seconds, rel=0.01)
    assert records.verbs["Suspend"] == preemptions


def test_job_that_does_not_fit_blocks_later_jobs_under_fifo_only() -> None:
    jobs = [Job("a", 0, (1, 1, 1), 100), Job("b", 1, (1, 1), 100), Job("c", 2, (1,), 100)]
    starts = {order: [row.started for row in simulated(order, 1, jobs).rows.values()] for order in ("fifo", "first-fit")}
    assert starts == {"fifo": [0, 100, 100], "first-fit": [0, 100, 2]}


def test_las_runs_a_new_job_until_it_has_caught_up() -> None:
    jobs = [Job("old", 0, (4,), 600), Job("new", 300, (4,), 100)]
    rows = simulated("las", 1, jobs).rows
    assert rows["new"].finished == 400
    assert rows["old"].finished == 700


def test_order_by_remaining_time_requires_an_oracle() -> None:
    machine = unknown_machine(1)
    simulation = Simulation([Node("n", machine, 1, 1)], [Job("a", 0, (1,), 1)], Ideal(), Ordered(ORDERS["srtf"]))
    with pytest.raises(RuntimeError, match="remaining work of a"):
        simulation.run()
