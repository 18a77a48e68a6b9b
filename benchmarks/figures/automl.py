"""Gandiva (OSDI'18), tables 3 and 4: the time of a hyperparameter search to a target accuracy.

Three rules run on the same configurations (`muster.scheduling.sweeps`): each to its end in turn, Gandiva's top M, and muster's
successive halving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import yaml
from benchmarks.figures.figure import Figure

from muster.scheduling.sweeps import Halving, Rule, TopM, in_turn
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.policies.sweep import Configuration, Training, configurations, reaching, seconds_to

SCENARIO = Path(__file__).parent / "scenarios" / "automl.yaml"
SERVER_GPUS = 4
CHECK = 0.8
"""The fraction of the paper's speed-up that Gandiva's rule must reach; otherwise the curves differ from the paper's."""
FIRST_COLUMN = 8.0
"""The target speed-up of muster if the good configuration is the 365th, on 4 GPUs."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of a table: minutes to the target."""

    table: int
    gpus: int
    target: float
    position: int
    published: float
    """Minutes of the paper's baseline."""
    gandiva: float
    """Minutes of Gandiva in the paper."""
    interval: float
    """Minutes between two reports: the resolution of our times."""
    minutes: Mapping[str, Sequence[float | None]]
    """Our minutes by rule, one for each seed; None if the good configuration was stopped."""

    @property
    def baseline(self) -> float:
        return _median(self.minutes["in turn"])

    def speedups(self, rule: str) -> list[float]:
        """Return the speed-up over the baseline for each seed, 0 if the target was never reached."""
        return [self.baseline / minutes if minutes else 0.0 for minutes in self.minutes[rule]]


def figures() -> list[Figure]:
    """Return one figure for each column and rule."""
    return [figure for cell in cells() for figure in _figures(cell)]


@cache
def cells() -> Sequence[Cell]:
    """Run every column of both tables."""
    scenario = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))
    return list(_cells(scenario))


def _cells(scenario: Mapping[str, Any]) -> Iterator[Cell]:
    for table in scenario["tables"]:
        for case in table["cases"]:
            for position, (published, gandiva) in case["positions"].items():
                rules: dict[str, Rule] = {"in turn": in_turn, "gandiva": TopM(case["best"]), "muster": Halving()}
                seeds = {name: scenario["seeds"][: 1 if name == "in turn" else None] for name in rules}
                minutes = {
                    name: [_minutes(rule, table, case, position, seed) for seed in seeds[name]] for name, rule in rules.items()
                }
                interval = case["minutes"] / table["reports"]
                yield Cell(table["table"], case["gpus"], case["target"], position, published, gandiva, interval, minutes)


def _minutes(rule: Rule, table: Mapping[str, Any], case: Mapping[str, Any], position: int, seed: int) -> float | None:
    curves = _curves(table, case, position, Random(seed))
    training = Training(case["minutes"] * 60.0, table["reports"])
    seconds = seconds_to(case["target"], rule, curves, training, lambda: _nodes(case["gpus"]), seed)
    return None if seconds is None else seconds / 60.0


def _curves(table: Mapping[str, Any], case: Mapping[str, Any], position: int, random: Random) -> list[Configuration]:
    """The configurations of a sweep: one good configuration at this position (table 3), or one for each column (table 4)."""
    curves = configurations(random, table["configurations"], table["mean"], table["deviation"], table["below"])
    if table["table"] == 3:
        curves[position - 1] = Configuration(case["target"], curves[position - 1].pace)
        return curves
    for column in table["cases"]:
        (index,) = column["positions"]
        curves[index - 1] = reaching(column["target"], column["fraction"], column["final"])
    return curves


def _nodes(gpus: int) -> list[Node]:
    machine = unknown_machine(SERVER_GPUS)
    return [Node(f"server-{index}", machine, machine.all, machine.all, "P40") for index in range(gpus // SERVER_GPUS)]


def _figures(cell: Cell) -> Iterator[Figure]:
    where = f"Gandiva table {cell.table}: {cell.target:.0%} by configuration {cell.position}, {cell.gpus} GPUs"
    off = abs(cell.baseline - cell.published)
    close = off <= max(0.05 * cell.published, cell.interval)
    note = "the length of a run is set by these"
    target = "within 5 % or a report"
    yield Figure(f"{where}, baseline", f"{cell.published:.1f} min", f"{cell.baseline:.1f} min", target, close, note)
    published = cell.published / cell.gandiva
    for rule in ("gandiva", "muster"):
        speedups = cell.speedups(rule)
        least, ours = published * (1.0 if rule == "muster" else CHECK), median(speedups)
        if rule == "muster" and (cell.gpus, cell.position) == (4, 365):
            least = FIRST_COLUMN
        lost = sum(not speedup for speedup in speedups)
        note = f"median of {len(speedups)} draws, from {min(speedups):.2f} to {max(speedups):.2f}; given up in {lost}"
        target = f">= {least:.2f} x" + ("" if rule == "muster" else " (a check of the curves)")
        yield Figure(f"{where}, {rule}", f"{published:.2f} x", f"{ours:.2f} x", target, ours >= least, note)


def _median(minutes: Sequence[float | None]) -> float:
    return median(value for value in minutes if value is not None)


def plot(folder: Path) -> None:
    """Draw the speed-ups into automl.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(14, 5.5), layout="constrained")
    columns = cells()
    at = range(len(columns))
    axis.bar(
        [x - 0.27 for x in at],
        [cell.published / cell.gandiva for cell in columns],
        0.27,
        label="Gandiva, published",
        color="0.7",
    )
    for offset, rule, label in ((0.0, "gandiva", "Gandiva's top M, ours"), (0.27, "muster", "muster: halving")):
        speedups = [cell.speedups(rule) for cell in columns]
        middle = [median(values) for values in speedups]
        spread = [
            [m - min(v) for m, v in zip(middle, speedups, strict=True)],
            [max(v) - m for m, v in zip(middle, speedups, strict=True)],
        ]
        axis.bar([x + offset for x in at], middle, 0.27, yerr=spread, capsize=3, label=label)
    labels = [f"table {c.table}, {c.gpus} GPUs\n{c.target:.0%} by the {c.position}th" for c in columns]
    axis.set_xticks(list(at), labels, fontsize=8)
    axis.set_ylabel("speed-up (median, and range of draws)")
    axis.set_title("Gandiva tables 3 and 4: time to a good configuration, beside running every one to its end")
    axis.legend()
    figure.savefig(folder / "automl.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    for line in figures():
        print(line)
