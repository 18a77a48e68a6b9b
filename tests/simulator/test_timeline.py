"""The chart of a run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.engine import Simulation
from muster.simulator.jobs import Job
from muster.simulator.physics import Ideal
from muster.simulator.policies.muster import Muster
from muster.simulator.records import Records, Span
from muster.simulator.timeline import bars, render


def simulated() -> Simulation:
    machine = unknown_machine(4)
    nodes = [Node(f"n{index}", machine, machine.all, machine.all) for index in range(2)]
    jobs = [Job("big", 0.0, (4, 2), 100.0), Job("small", 10.0, (1,), 50.0)]
    simulation = Simulation(nodes, jobs, Ideal(), Muster(), records=Records(8, timeline=True))
    simulation.run()
    return simulation


def test_each_gpu_of_a_job_is_a_bar_on_its_own_line() -> None:
    simulation = simulated()
    drawn = bars(simulation.records.spans or [], simulation.cluster.nodes)
    assert sum(bar.job == "big" for bar in drawn) == 6
    assert {(bar.start, bar.end) for bar in drawn if bar.job == "small"} == {(10.0, 60.0)}
    assert len({bar.low for bar in drawn}) == 7
    assert all(bar.high == bar.low + 1.0 for bar in drawn)


def test_job_on_a_shared_gpu_is_drawn_on_half_a_line() -> None:
    node = replace(next(iter(simulated().cluster.nodes.values())))
    spans = [Span("a", "n0", 0b1, 0.0, 50.0), Span("b", "n0", 0b1, 20.0, 40.0), Span("c", "n0", 0b1, 50.0, 60.0)]
    heights = {bar.job: bar.high - bar.low for bar in bars(spans, {"n0": node})}
    assert heights == {"a": 1.0, "b": 0.5, "c": 1.0}


def test_same_run_gives_the_same_labelled_chart() -> None:
    first, second = simulated(), simulated()
    svg = render(first.records, first.cluster.nodes, "svg", "a run")
    assert svg == render(second.records, second.cluster.nodes, "svg", "a run")
    words = set(re.findall(r"<!-- (.*?) -->", svg.decode()))
    assert {"a run", "big", "small", "n0", "n1", "time (seconds)"} <= words


def test_run_without_jobs_is_drawn(tmp_path: Path) -> None:
    machine = unknown_machine(4)
    simulation = Simulation([Node("n0", machine, 15, 15)], [], Ideal(), Muster(), records=Records(4, timeline=True))
    simulation.run()
    picture = tmp_path / "empty.png"
    picture.write_bytes(render(simulation.records, simulation.cluster.nodes, "png"))
    assert picture.read_bytes().startswith(b"\x89PNG")
