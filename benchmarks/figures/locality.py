"""Gandiva (OSDI'18), figures 1 to 4: the physics compared with each published point, and the planner's placements.

A placement is evaluated by the physics: the joint rate of all jobs, in GPUs at full speed, compared with the best placement.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import yaml
from benchmarks.figures.figure import Figure

from muster.scheduling.decisions import Place
from muster.scheduling.gang import Assigned, Gang, Task, gpus_by_node
from muster.scheduling.occupancy import Occupancy
from muster.scheduling.planner import plan
from muster.scheduling.profile import NO_NEIGHBOURS, CoLocation, Shape, Via
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.speed.rates import Rates
from muster.scheduling.speed.shapes import shape_of
from muster.scheduling.topology.links import UNLIMITED, GpuSet, gpu_set
from muster.scheduling.topology.machine import machine_type
from muster.scheduling.topology.node import Node
from muster.simulator.jobs import Job, gang_of
from muster.simulator.physics.gandiva import Gandiva
from muster.simulator.physics.gandiva_figures import HOPS

SCENARIO = Path(__file__).parent / "scenarios" / "locality.yaml"
MODEL = "P100"
PHYSICS = Gandiva()


@dataclass(frozen=True, slots=True)
class Point:
    """One published value and ours."""

    figure: int
    label: str
    published: float
    ours: float

    @property
    def off(self) -> float:
        """The relative deviation from the published value."""
        return abs(self.ours / self.published - 1)


def points() -> list[Point]:
    """Return every point of the four figures."""
    return [*_fig1(), *_fig2(), *_fig3(), *_fig4()]


def rate(kind: str, counts: tuple[int, ...], gbps: float, co_location: CoLocation = NO_NEIGHBOURS) -> float:
    """Return the true mini-batches/s of a job."""
    job = Job(kind, 0.0, counts, 1.0, kind)
    return PHYSICS.rate(job, 0.0, Shape(MODEL, counts, gbps), co_location)


def _fig1() -> Iterator[Point]:
    for row in _table("fig1_intra_server_locality.csv"):
        ours = rate(row["model"], (2,), HOPS[row["placement"]]) / rate(row["model"], (2,), HOPS["SamePCIeSw"])
        yield Point(1, f"{row['model']}\n{row['placement']}", float(row["normalized_performance"]), ours)


def _fig2() -> Iterator[Point]:
    shapes = {"local_4gpu": ((4,), 6.0), "2x2gpu": ((2, 2), 12.0), "4x1gpu": ((1, 1, 1, 1), UNLIMITED)}
    local: dict[str, float] = {}
    for row in _table("fig2_inter_server_locality.csv"):
        published = float(row["images_per_s"])
        local.setdefault(row["model"], published)
        counts, gbps = shapes[row["placement"]]
        relative = rate(row["model"], counts, gbps) / rate(row["model"], *shapes["local_4gpu"])
        yield Point(2, f"{row['model']}\n{row['placement']}", published, local[row["model"]] * relative)


def _fig3() -> Iterator[Point]:
    for row in _table("fig3_1gpu_interference.csv"):
        first, second = row["pair"].split("+")
        kind, neighbour = (first, second) if row["job"] == first else (second, first)
        ours = rate(kind, (1,), UNLIMITED, ((Via.SWITCH, neighbour),)) / rate(kind, (1,), UNLIMITED)
        yield Point(3, f"{kind}\nin {row['pair']}", float(row["normalized_performance"]), ours)


def _fig4() -> Iterator[Point]:
    for row in _table("fig4_nic_interference.csv"):
        kind, jobs = row["model"], int(row["jobs"])
        ours = rate(kind, (1, 1), UNLIMITED, ((Via.NIC, kind),) * (jobs - 1)) / rate(kind, (1, 1), UNLIMITED)
        yield Point(4, f"{kind}\n{jobs} jobs", float(row["normalized_performance"]), ours)


@dataclass(frozen=True, slots=True)
class Choice:
    """A cluster with running jobs and one arriving job."""

    figure: str
    nodes: Mapping[str, Node]
    running: tuple[Gang, ...]
    arriving: Gang

    @property
    def snapshot(self) -> Snapshot:
        gangs = (*self.running, self.arriving)
        profiles = {gang.kind: PHYSICS.profile(_job(gang)) for gang in gangs}
        return Snapshot(self.nodes, gangs, profiles=profiles)

    def planned(self) -> Gang:
        """Return the arriving gang with the planner's placement."""
        (decision,) = (d for d in plan(self.snapshot, 0.0) if d.gang.name == self.arriving.name)
        assert isinstance(decision, Place), decision
        return replace(self.arriving, placement=decision.placement)

    def weighed(self, tolerance: float) -> Gang:
        """Return the arriving gang where `Rates.worth` is highest; ties within tolerance by the most useful free GPUs."""
        rates, running = Rates(self.snapshot.profiles, self.nodes), Occupancy(self.running)
        weighed = [(rates.worth(self.arriving, gpus_by_node(gang.placement), running), gang) for gang in self.all()]
        most = max(worth for worth, _ in weighed)
        close = [gang for worth, gang in weighed if worth >= most - tolerance * self.arriving.gpus]
        return max(close, key=self._left_useful)

    def all(self) -> Iterator[Gang]:
        """Yield the arriving gang with every possible placement."""
        free_gpus = [
            (name, gpu) for name, node in self.nodes.items() for gpu in range(node.machine.gpus) if node.free >> gpu & 1
        ]
        for chosen in combinations(free_gpus, self.arriving.gpus):
            for order in permutations(chosen) if len(self.arriving.tasks) != self.arriving.gpus else (chosen,):
                placement = _assigned(self.arriving.tasks, order)
                if placement:
                    yield replace(self.arriving, placement=placement)

    def value(self, arrived: Gang) -> float:
        """Return the joint rate of all jobs, in GPUs at full speed."""
        gangs = (*self.running, arrived)
        occupancy = Occupancy(gangs)
        return sum(_speed(gang, self.nodes, occupancy) * gang.held for gang in gangs)

    def _left_useful(self, arrived: Gang) -> float:
        taken = gpus_by_node(arrived.placement)
        return sum(n.machine.usefulness(n.free & ~taken.get(name, 0)) for name, n in self.nodes.items())


def _assigned(tasks: Sequence[Task], gpus: Sequence[tuple[str, int]]) -> tuple[Assigned, ...]:
    """The tasks on these GPUs in order; empty if a task would span two nodes."""
    remaining, placement = list(gpus), []
    for rank, task in enumerate(tasks):
        of_task, remaining = remaining[: task.gpus], remaining[task.gpus :]
        if len({node for node, _ in of_task}) != 1:
            return ()
        placement.append(Assigned(task, of_task[0][0], gpu_set([gpu for _, gpu in of_task]), rank))
    return tuple(placement)


def _speed(gang: Gang, nodes: Mapping[str, Node], occupancy: Occupancy) -> float:
    """The rate relative to that of the same job alone under one switch."""
    gpus = gpus_by_node(gang.placement)
    co_location = occupancy.co_location(gang.name, gpus, nodes)
    ideal = PHYSICS.rate(_job(gang), 0.0, Shape(MODEL, (gang.held,), UNLIMITED), NO_NEIGHBOURS)
    return PHYSICS.rate(_job(gang), 0.0, shape_of(gpus, nodes), co_location) / ideal


def choices() -> tuple[list[Choice], float]:
    """Return the choices of the scenario and its tolerance."""
    scenario = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))
    return [_choice(entry, scenario) for entry in scenario["choices"]], scenario["tolerance"]


def _choice(entry: Mapping[str, Any], scenario: Mapping[str, Any]) -> Choice:
    machine = machine_type(scenario["links"])
    nodes = {
        name: Node(name, machine, machine.all, gpu_set(free), scenario["model"], nic_gbps=scenario["nic_gbps"])
        for name, free in entry["free"].items()
    }
    running = []
    for index, job in enumerate(entry.get("running", ())):
        held: list[tuple[str, GpuSet]] = [(node, gpu_set(gpus)) for node, gpus in job["gpus"].items()]
        gang = gang_of(_kind_job(f"running-{index}", job["kind"], tuple(gpus.bit_count() for _, gpus in held)))
        placement = (
            Assigned(task, node, gpus, rank) for rank, (task, (node, gpus)) in enumerate(zip(gang.tasks, held, strict=True))
        )
        running.append(replace(gang, placement=tuple(placement)))
    arriving = gang_of(_kind_job("arriving", entry["job"]["kind"], tuple(entry["job"]["tasks"])))
    return Choice(entry["figure"], nodes, tuple(running), arriving)


def _kind_job(name: str, kind: str, tasks: tuple[int, ...]) -> Job:
    return Job(name, 0.0, tasks, 1.0, kind)


def _job(gang: Gang) -> Job:
    return _kind_job(gang.name, gang.kind, tuple(task.gpus for task in gang.tasks))


def figures() -> list[Figure]:
    """Return one figure for each curve and for each choice."""
    return [*_curves(), *_chosen()]


def _curves() -> Iterator[Figure]:
    for number in (1, 2, 3, 4):
        of_figure = [point for point in points() if point.figure == number]
        worst = max(of_figure, key=lambda point: point.off)
        published, ours = (", ".join(f"{value:.4g}" for value in values) for values in zip(*_values(of_figure), strict=True))
        note = f"worst point {worst.off:.1%} off; the physics goes through the published points by construction"
        yield Figure(f"Gandiva fig {number}: curve", published, ours, "within 3 % of each point", worst.off <= 0.03, note)


def _values(of_figure: Sequence[Point]) -> Iterator[tuple[float, float]]:
    for point in of_figure:
        yield point.published, point.ours


def _chosen() -> Iterator[Figure]:
    all_choices, tolerance = choices()
    for choice in all_choices:
        best = max(choice.value(gang) for gang in choice.all())
        chosen = choice.planned()
        value = choice.value(chosen)
        target = f"within {tolerance * 100:g} % of the best placement"
        where = ", ".join(f"{name} {bin(gpus)[2:]}" for name, gpus in sorted(gpus_by_node(chosen.placement).items()))
        met = value >= best - tolerance * chosen.gpus
        weighed = choice.value(choice.weighed(tolerance))
        note = "" if met else f"by Rates.worth over all placements it would be {weighed:.2f}"
        yield Figure(f"Gandiva {choice.figure}", f"{best:.2f} GPUs' worth", f"{value:.2f} ({where})", target, met, note)


def _table(file: str) -> list[dict[str, str]]:
    text = files("muster.simulator").joinpath("data", "gandiva", file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def plot(folder: Path) -> None:
    """Draw the published values and ours of the four figures into locality.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(15, 9), layout="constrained")
    titles = (
        "two P100 of a server",
        "four P100 on 1, 2, 4 servers",
        "1-GPU jobs under one switch",
        "2-GPU jobs on two servers' cards",
    )
    for number, (axis, title) in enumerate(zip(axes.flat, titles, strict=True), start=1):
        of_figure = [point for point in points() if point.figure == number]
        at = range(len(of_figure))
        axis.bar([x - 0.2 for x in at], [point.published for point in of_figure], 0.4, label="published", color="0.7")
        axis.bar([x + 0.2 for x in at], [point.ours for point in of_figure], 0.4, label="ours", color="tab:blue")
        axis.set_xticks(list(at), [point.label for point in of_figure], fontsize=7)
        axis.set_ylabel("images/s" if number == 2 else "rate beside the best (1 = no loss)")
        axis.set_title(f"Gandiva fig {number}: {title}")
        axis.margins(y=0.2)
        axis.legend(loc="upper right", ncols=2)
    figure.savefig(folder / "locality.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    for line in figures():
        print(
            f"{'met    ' if line.met else 'NOT MET'}  {line.figure}",
            line.published,
            f"{line.ours}  {line.note}",
            sep="\n         ",
        )
