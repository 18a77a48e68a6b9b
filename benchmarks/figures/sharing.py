"""Gandiva (OSDI'18), figures 9 to 11 and table 1: time slicing, packing by model, growing and shrinking."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from benchmarks.figures.figure import Figure
from benchmarks.figures.progress import SCENARIOS, Progress, progress, under, with_jobs

from muster.simulator.physics.gandiva_figures import RESNET_ON_P100, model
from muster.simulator.scenario import load
from muster.simulator.traces.listed import Listed

WINDOW = 360.0
"""Seconds over which figures 9 and 11 count mini-batches."""
SLICED = (1800.0, 2880.0)
"""An interval in which six jobs take turns, a multiple of a round of three one-minute slices."""
COPIES = {"VAE": 6, "SuperResolution": 4}
"""Copies on one GPU at the best packing of table 1; two for other models."""
SIDE_BY_SIDE = 0.05
"""The deviation from the rate of a single job above which jobs count as packed: with turns only switches are lost."""
GPUS_GROWN = ((1, 0.0, 1440.0, 3350.0), (2, 2160.0, 2640.0, 5050.0), (4, 3360.0, 4440.0, 6550.0))
"""GPUs of figure 11's job, start and end of the interval with them, and the published mini-batches in six minutes."""


@dataclass(frozen=True, slots=True)
class Packing:
    """The result of packing copies of one model onto one GPU."""

    model: str
    published: float
    """The published gain over time slicing at the best number of copies."""
    gain: float
    """Our gain over the last ten minutes."""
    kept: bool
    """Whether the copies are packed in the last ten minutes."""
    tried: bool


def figures() -> list[Figure]:
    """Return the figures of every part."""
    return [*_sliced(), *_packed(), *_grown()]


@cache
def sliced() -> Progress:
    """Run figure 9."""
    return progress(load(SCENARIOS / "sharing-slices.yaml"), 25.0)


def _sliced() -> Iterator[Figure]:
    run, (start, end) = sliced(), SLICED
    jobs = [name for name in run.marks if run.between(name, start, end) > 0]
    alone = RESNET_ON_P100 * (end - start)
    shares = [run.between(name, start, end) / alone for name in jobs if name.startswith("long")]
    loss = 1 - sum(run.between(name, start, end) for name in jobs) / (4 * alone)
    worst = max(shares, key=lambda share: abs(share * 6 / 4 - 1))
    yield Figure(
        "Gandiva fig 9: share of each long job among six on four GPUs",
        "3300 to 2200 mini-batches in 6 minutes (4/6)",
        f"{min(shares):.3f} to {max(shares):.3f}",
        "4/6 +- 2 %",
        abs(worst * 6 / 4 - 1) <= 0.02,
    )
    yield Figure("Gandiva fig 9: loss of all together", "< 2 %", f"{loss:.2%}", "<= 1 %", loss <= 0.01)


@cache
def packings(policy: str = "gandiva") -> Sequence[Packing]:
    """Run copies of each model of table 1."""
    return [_packing(row["job"], float(row["packing_gain_pct"]) / 100, policy) for row in _table("table1_packing.csv")]


@cache
def packing_run(kind: str, policy: str) -> Progress:
    """Run copies of one model for half an hour."""
    scenario = load(SCENARIOS / "sharing-packing.yaml")
    work = 3600.0 * next(iter(model(kind).rates.values()))
    copies = Listed(name="copy", count=COPIES.get(kind, 2), kind=kind, work=work)
    return progress(under(with_jobs(scenario, jobs=[copies]), policy), work / 720)


def _packing(kind: str, published: float, policy: str) -> Packing:
    run = packing_run(kind, policy)
    done = sum(run.between(name, 1200.0, 1800.0) for name in run.marks if run.marks[name])
    alone = 600.0 * next(iter(model(kind).rates.values()))
    gain = done / alone - 1
    return Packing(kind, published, gain, abs(gain) > SIDE_BY_SIDE, run.records.verbs["Pack"] > 0)


def _packed() -> Iterator[Figure]:
    before, after = (_net_rate(*time) for time in ((0.0, 120.0), (1200.0, 1800.0)))
    yield Figure(
        "Gandiva fig 10: two SuperResolution jobs, mini-batches in 30 s, taking turns and packed",
        "1250 to 2300",
        f"{before:.0f} to {after:.0f}",
        "packed, within 5 %",
        abs(after / 2300 - 1) <= 0.05,
    )
    for policy in ("gandiva", "muster"):
        for packing in packings(policy):
            target = "kept" if packing.published > 0 else "undone"
            result = "kept" if packing.kept else "undone" if packing.tried else "never tried"
            note = "" if packing.tried else "what was measured of a neighbour of its kind is enough: it is not tried"
            yield Figure(
                f"Gandiva table 1: packing {packing.model}, policy {policy}",
                f"{packing.published:+.0%}, {target}",
                f"{packing.gain:+.0%}, {result}",
                target,
                packing.kept == (packing.published > 0),
                note,
            )


def _net_rate(start: float, end: float) -> float:
    run = pair()
    return sum(run.between(name, start, end) for name in run.marks) / (end - start) * 30


@cache
def pair() -> Progress:
    """Run figure 10."""
    return progress(load(SCENARIOS / "sharing-packing.yaml"), 100.0)


@cache
def grown() -> Progress:
    """Run figure 11."""
    return progress(load(SCENARIOS / "sharing-grow.yaml"), 25.0)


def _grown() -> Iterator[Figure]:
    run = grown()
    for gpus, start, end, published in GPUS_GROWN:
        ours = run.between("elastic", start, end) / (end - start) * WINDOW
        name = f"Gandiva fig 11: mini-batches in 6 minutes on {gpus} GPU{'s' if gpus > 1 else ''}"
        yield Figure(name, f"{published:.0f}", f"{ours:.0f}", "within 5 %", abs(ours / published - 1) <= 0.05)
    after = [run.between("elastic", start, end) / (end - start) * WINDOW for start, end in ((4560.0, 5640.0), (5760.0, 6840.0))]
    met = all(abs(ours / want - 1) <= 0.05 for ours, want in zip(after, (5050.0, 3350.0), strict=True))
    yield Figure(
        "Gandiva fig 11: after neighbours come", "5050, then 3350", ", then ".join(f"{a:.0f}" for a in after), "within 5 %", met
    )
    waits = [run.records.rows[name].queued for name in ("two", "one")]
    shown = ", ".join("never" if wait is None else f"{wait:.0f} s" for wait in waits)
    yield Figure("Gandiva fig 11: wait of those who need the GPUs", "shrinks at once", shown, "0 s", waits == [0.0, 0.0])


def _table(file: str) -> list[dict[str, str]]:
    text = files("muster.simulator").joinpath("data", "gandiva", file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def plot(folder: Path) -> None:
    """Draw the three figures and table 1 into sharing.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(14, 9), layout="constrained")
    for axis, run, names, title in (
        (
            axes[0, 0],
            sliced(),
            ("long-000", "long-001", "long-002", "long-003", "short-000", "short-001"),
            "fig 9: six jobs on four GPUs",
        ),
        (axes[1, 1], grown(), ("elastic",), "fig 11: an elastic job, neighbours leave and come"),
    ):
        for name in names:
            times = [WINDOW * step / 6 for step in range(6, int(run.records.end / WINDOW * 6))]
            inside = [time for time in times if run.at(name, time) > 0 and run.at(name, time - 60) < run.marks[name][-1][1]]
            rates = [run.between(name, time - WINDOW, time) for time in inside]
            axis.plot([time / 60 for time in inside], rates, label=name)
        axis.set(title=f"Gandiva {title}", xlabel="time (min)", ylabel="mini-batches in 6 minutes")
    for published in (3300.0, 2200.0):
        axes[0, 0].axhline(published, color="grey", linestyle=":", label=f"published: {published:.0f}")
    for _, start, end, published in GPUS_GROWN:
        axes[1, 1].hlines(published, start / 60, end / 60, color="grey", linestyle=":", label=f"published: {published:.0f}")
    times = [30.0 * step for step in range(1, 60)]
    axes[0, 1].plot([t / 60 for t in times], [_net_rate(t - 30, t) for t in times], label="both jobs")
    for published in (1250.0, 2300.0):
        axes[0, 1].axhline(published, color="grey", linestyle=":", label=f"published: {published:.0f}")
    axes[0, 1].set(title="Gandiva fig 10: two SuperResolution jobs", xlabel="time (min)", ylabel="mini-batches in 30 s")
    at = range(len(packings()))
    gains = (
        ("published, packed", -0.2, [100 * packing.published for packing in packings()], "0.7"),
        ("ours, as decided", 0.2, [100 * packing.gain for packing in packings()], "C0"),
    )
    for label, shift, values, colour in gains:
        bars = axes[1, 0].bar([x + shift for x in at], values, 0.4, label=label, color=colour)
        axes[1, 0].bar_label(bars, fmt="%+.0f", fontsize=7, padding=2)
    axes[1, 0].set_xticks(
        list(at), [f"{packing.model}\n{'kept' if packing.kept else 'undone'}" for packing in packings()], fontsize=7
    )
    axes[1, 0].set(title="Gandiva table 1: packing", ylabel="gain over taking turns (%)", ylim=(-45, 460))
    for axis in axes.flat:
        axis.legend(fontsize=8)
    for axis in (axes[0, 0], axes[0, 1], axes[1, 1]):
        axis.set_ylim(bottom=0)
    figure.savefig(folder / "sharing.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    for line in figures():
        print(line)
