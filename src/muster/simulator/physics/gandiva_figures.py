"""The figures and tables of Gandiva (OSDI'18) as curves: sorted points from data/gandiva in the units of `gandiva`.

Step times are relative to the best of the same job: an added time of 0.2 is a step that takes 1.2 times as long.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

HOPS = {"SamePCIeSw": 12.0, "SameSocket": 10.0, "DiffSocket": 6.0}
"""GB/s of figure 1's placements, as `links` has them: PIX, PHB, SYS."""
PACKED_TWO = 0.92
"""The rate of each of two SuperResolution jobs on one GPU: 2300 against 1250 mini-batches in 30 s (figure 10), halved."""
RESNET_ON_P100 = 3350 / 360
"""Mini-batches/s of ResNet-50 on one P100: 3350 in six minutes (figure 11)."""

Points = Sequence[tuple[float, float]]


class UnknownModel(ValueError):
    """A kind of job or a GPU model that the paper does not cover."""


@dataclass(frozen=True, slots=True)
class Model:
    """One row of models.csv: rates in mini-batches/s of one GPU by GPU model; utilisation, memory and scaling from 0 to 1."""

    name: str
    rates: dict[str, float]
    utilisation: float
    memory: float
    model_mb: float | None
    scaling: float
    bus: str
    """The model of figure 3 with the same use of the PCIe switch."""
    like: str
    """The model with the same exchange between GPUs, usually itself."""
    traffic: float
    """GB/s that one GPU sends and receives at full speed."""


def model(name: str) -> Model:
    """Return the model of that name; raise UnknownModel."""
    try:
        return models()[name]
    except KeyError:
        raise UnknownModel(f"{name!r} is no model of Gandiva's testbed; expected one of {', '.join(models())}") from None


@cache
def models() -> dict[str, Model]:
    """Return the models by name."""
    rows = {row["model"]: row for row in _table("models.csv")}
    return {name: _read(row, rows[row["like"]]) for name, row in rows.items()}


def curve(points: Points, x: float) -> float:
    """Return the value at `x`: linear between points, flat beyond the ends."""
    index = bisect_right(points, (x, float("inf")))
    if index in (0, len(points)):
        return points[min(index, len(points) - 1)][1]
    (x0, y0), (x1, y1) = points[index - 1 : index + 1]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@cache
def locality() -> dict[str, Points]:
    """Return figure 1 by model: time added to a step, by GB/s of the slowest hop."""
    points_by_model: dict[str, list[tuple[float, float]]] = {}
    for row in _table("fig1_intra_server_locality.csv"):
        points_by_model.setdefault(row["model"], []).append(
            (HOPS[row["placement"]], 1 / float(row["normalized_performance"]) - 1)
        )
    return {name: sorted(points) for name, points in points_by_model.items()}


@cache
def spread() -> dict[str, tuple[float, float]]:
    """Return figure 2 by model: time added to a step by two servers and by four."""
    images_per_s: dict[str, dict[str, float]] = {}
    for row in _table("fig2_inter_server_locality.csv"):
        images_per_s.setdefault(row["model"], {})[row["placement"]] = float(row["images_per_s"])
    return {
        name: (speed["local_4gpu"] / speed["2x2gpu"] - 1, speed["local_4gpu"] / speed["4x1gpu"] - 1)
        for name, speed in images_per_s.items()
    }


@cache
def bus() -> dict[str, tuple[float, float]]:
    """Return figure 3 by model: its sensitivity under a shared switch and the disturbance it causes, 1 for LM."""
    rows = _table("fig3_1gpu_interference.csv")
    added = {(row["pair"], row["job"]): 1 / float(row["normalized_performance"]) - 1 for row in rows}
    lm = added["LM+LM", "LM"]
    return {
        "LM": (lm, 1.0),
        "GNMT": (added["LM+GNMT", "GNMT"], added["LM+GNMT", "LM"] / lm),
        "ResNet-50": (added["LM+ResNet-50", "ResNet-50"], added["LM+ResNet-50", "LM"] / lm),
    }


@cache
def cards() -> dict[str, Points]:
    """Return figure 4 by model: step time by number of jobs on the cards of two servers, relative to one alone."""
    points_by_model: dict[str, list[tuple[float, float]]] = {}
    for row in _table("fig4_nic_interference.csv"):
        points_by_model.setdefault(row["model"], []).append((float(row["jobs"]), 1 / float(row["normalized_performance"])))
    return {name: sorted(points) for name, points in points_by_model.items()}


@cache
def packing() -> Points:
    """Return table 1 and figure 10: the rate of each of two equal jobs on one GPU, by their summed utilisation.

    A job above half utilisation gains most from a pair: a third copy could only wait.
    """
    pairs = []
    for row in _table("table1_packing.csv"):
        utilisation, gain = float(row["gpu_util_pct"]) / 100, float(row["packing_gain_pct"]) / 100
        if utilisation > 0.5:
            pairs.append((2 * utilisation, (1 + gain) / 2))
    return sorted([(0.0, 1.0), (2 * model("SuperResolution").utilisation, PACKED_TWO), *pairs])


@cache
def moves() -> tuple[dict[str, tuple[float, float]], Points, Points]:
    """Return figure 13: seconds of a move within a server and between two, by model and by MB of checkpoint."""
    rows = _table("fig13_migration_time.csv")
    sizes = [(float(row["checkpoint_mb"]), float(row["intra_server_s"]), float(row["inter_server_s"])) for row in rows]
    names = ["LM" if row["model"] == "LanguageModel" else row["model"] for row in rows]
    by_model = {name: (near, far) for name, (_, near, far) in zip(names, sizes, strict=True)}
    return by_model, sorted((mb, near) for mb, near, _ in sizes), sorted((mb, far) for mb, _, far in sizes)


@cache
def cold_moves() -> Points:
    """Return figure 12: seconds of a move of ResNet-50 to an unprepared destination, by GPUs."""
    return sorted((float(row["gpus"]), float(row["total_unoptimised_s"])) for row in _table("fig12_migration_breakdown.csv"))


def _read(row: dict[str, str], like: dict[str, str]) -> Model:
    rate = float(row["rate"])
    rates = {row["gpu"]: rate, "P100": rate, "P40": rate}
    if row["model"] == "ResNet-50":
        rates["P100"] = RESNET_ON_P100
    return Model(
        name=row["model"],
        rates=rates,
        utilisation=float(row["utilisation"]),
        memory=float(row["memory"]),
        model_mb=float(row["model_mb"]) if row["model_mb"] else None,
        scaling=float(row["scaling"]),
        bus=row["bus"],
        like=row["like"],
        traffic=2 * float(like["model_mb"] or 0) / 1000 * float(like["rate"]),
    )


@cache
def _table(file: str) -> tuple[dict[str, str], ...]:
    text = files("muster.simulator").joinpath("data", "gandiva", file).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
