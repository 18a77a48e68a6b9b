"""Gandiva (OSDI'18), figures 1 to 4: the physics beside each published point, and the placements that the planner chooses.

A placement is judged by the physics: what all jobs do there together, in GPUs at full speed, beside the best of all placements.
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
from muster.simulator.jobs import Job, gang
from muster.simulator.physics.gandiva import Gandiva
from muster.simulator.physics.gandiva_figures import HOPS

SCENARIO = Path(__file__).parent / "scenarios" / "locality.yaml"
MODEL = "P100"
PHYSICS = Gandiva()


@dataclass(frozen=True, slots=True)
class Point:
    """One published value beside ours."""

    figure: int
    label: str
    published: float
    ours: float

    @property
    def off(self) -> float:
        """How far ours is from the published value, as a share of it."""
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
        one, other = row["pair"].split("+")
        kind, beside = (one, other) if row["job"] == one else (other, one)
        ours = rate(kind, (1,), UNLIMITED, ((Via.SWITCH, beside),)) / rate(kind, (1,), UNLIMITED)
        yield Point(3, f"{kind if row['job'] == one else other}\nin {row['pair']}", float(row["normalized_performance"]), ours)


def _fig4() -> Iterator[Point]:
    for row in _table("fig4_nic_interference.csv"):
        kind, jobs = row["model"], int(row["jobs"])
        ours = rate(kind, (1, 1), UNLIMITED, ((Via.NIC, kind),) * (jobs - 1)) / rate(kind, (1, 1), UNLIMITED)
        yield Point(4, f"{kind}\n{jobs} jobs", float(row["normalized_performance"]), ours)


@dataclass(frozen=True, slots=True)
class Choice:
    """A cluster with jobs that run, and one that arrives."""

    figure: str
    nodes: Mapping[str, Node]
    running: tuple[Gang, ...]
    arriving: Gang

    @property
    def snapshot(self) -> Snapshot:
        gangs = (*self.running, self.arriving)
        profiles = {one.kind: PHYSICS.profile(_job(one)) for one in gangs}
        return Snapshot(self.nodes, gangs, profiles=profiles)

    def planned(self) -> Gang:
        """The arriving gang where the planner puts it."""
        (decision,) = (d for d in plan(self.snapshot, 0.0) if d.gang.name == self.arriving.name)
        assert isinstance(decision, Place), decision
        return replace(self.arriving, placement=decision.placement)

    def weighed(self, tolerance: float) -> Gang:
        """The arriving gang where `Rates.worth` is highest; among those within the tolerance, where the most stays useful."""
        rates, running = Rates(self.snapshot.profiles, self.nodes), Occupancy(self.running)
        found = [(rates.worth(self.arriving, gpus_by_node(one.placement), running), one) for one in self.all()]
        most = max(worth for worth, _ in found)
        close = [one for worth, one in found if worth >= most - tolerance * self.arriving.gpus]
        return max(close, key=self._left_useful)

    def all(self) -> Iterator[Gang]:
        """The arriving gang everywhere that it fits."""
        spots = [(name, gpu) for name, node in self.nodes.items() for gpu in range(node.machine.gpus) if node.free >> gpu & 1]
        for chosen in combinations(spots, self.arriving.gpus):
            for order in permutations(chosen) if len(self.arriving.tasks) != self.arriving.gpus else (chosen,):
                placement = _assigned(self.arriving.tasks, order)
                if placement:
                    yield replace(self.arriving, placement=placement)

    def value(self, arrived: Gang) -> float:
        """What all jobs do, in GPUs at full speed."""
        gangs = (*self.running, arrived)
        occupancy = Occupancy(gangs)
        return sum(_speed(one, self.nodes, occupancy) * one.held for one in gangs)

    def _left_useful(self, arrived: Gang) -> float:
        taken = gpus_by_node(arrived.placement)
        return sum(n.machine.usefulness(n.free & ~taken.get(name, 0)) for name, n in self.nodes.items())


def _assigned(tasks: Sequence[Task], spots: Sequence[tuple[str, int]]) -> tuple[Assigned, ...]:
    """The tasks on these GPUs in order; empty where one would be on two nodes."""
    left, found = list(spots), []
    for rank, task in enumerate(tasks):
        share, left = left[: task.gpus], left[task.gpus :]
        if len({node for node, _ in share}) != 1:
            return ()
        found.append(Assigned(task, share[0][0], gpu_set([gpu for _, gpu in share]), rank))
    return tuple(found)


def _speed(one: Gang, nodes: Mapping[str, Node], occupancy: Occupancy) -> float:
    """The rate beside that of the same job alone under one switch."""
    spots = gpus_by_node(one.placement)
    co_location = occupancy.co_location(one.name, spots, nodes)
    ideal = PHYSICS.rate(_job(one), 0.0, Shape(MODEL, (one.held,), UNLIMITED), NO_NEIGHBOURS)
    return PHYSICS.rate(_job(one), 0.0, shape_of(spots, nodes), co_location) / ideal


def choices() -> tuple[list[Choice], float]:
    """Return the choices of the scenario and its tolerance."""
    found = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))
    return [_choice(one, found) for one in found["choices"]], found["tolerance"]


def _choice(one: Mapping[str, Any], scenario: Mapping[str, Any]) -> Choice:
    machine = machine_type(scenario["links"])
    nodes = {
        name: Node(name, machine, machine.all, gpu_set(free), scenario["model"], nic_gbps=scenario["nic_gbps"])
        for name, free in one["free"].items()
    }
    running = []
    for index, other in enumerate(one.get("running", ())):
        shares: list[tuple[str, GpuSet]] = [(node, gpu_set(gpus)) for node, gpus in other["gpus"].items()]
        there = gang(_kind_job(f"running-{index}", other["kind"], tuple(gpus.bit_count() for _, gpus in shares)))
        places = (
            Assigned(task, node, gpus, rank) for rank, (task, (node, gpus)) in enumerate(zip(there.tasks, shares, strict=True))
        )
        running.append(replace(there, placement=tuple(places)))
    arriving = gang(_kind_job("arriving", one["job"]["kind"], tuple(one["job"]["tasks"])))
    return Choice(one["figure"], nodes, tuple(running), arriving)


def _kind_job(name: str, kind: str, tasks: tuple[int, ...]) -> Job:
    return Job(name, 0.0, tasks, 1.0, kind)


def _job(one: Gang) -> Job:
    return _kind_job(one.name, one.kind, tuple(task.gpus for task in one.tasks))


def figures() -> list[Figure]:
    """Return one line for each figure's curve and for each choice."""
    return [*_curves(), *_chosen()]


def _curves() -> Iterator[Figure]:
    for number in (1, 2, 3, 4):
        mine = [point for point in points() if point.figure == number]
        worst = max(mine, key=lambda point: point.off)
        published, ours = (", ".join(f"{value:.4g}" for value in values) for values in zip(*_values(mine), strict=True))
        note = f"worst point {worst.off:.1%} off; the physics goes through the published points by construction"
        yield Figure(f"Gandiva fig {number}: curve", published, ours, "within 3 % of each point", worst.off <= 0.03, note)


def _values(mine: Sequence[Point]) -> Iterator[tuple[float, float]]:
    for point in mine:
        yield point.published, point.ours


def _chosen() -> Iterator[Figure]:
    found, tolerance = choices()
    for choice in found:
        best = max(choice.value(one) for one in choice.all())
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
    """Draw the four figures into locality.png, the published values beside ours."""
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
        mine = [point for point in points() if point.figure == number]
        at = range(len(mine))
        axis.bar([x - 0.2 for x in at], [point.published for point in mine], 0.4, label="published", color="0.7")
        axis.bar([x + 0.2 for x in at], [point.ours for point in mine], 0.4, label="ours", color="tab:blue")
        axis.set_xticks(list(at), [point.label for point in mine], fontsize=7)
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
