"""The workloads of Pollux (Qiao et al., OSDI'21): mean completion times compared with those published by its simulator.

Tiresias and Optimus validate this simulator job by job. Then muster, which knows no job lengths, is compared with Tiresias on
rigid jobs and with Pollux on adaptive jobs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
from benchmarks.figures.figure import Figure
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from muster.simulator.assembly import assemble
from muster.simulator.plugin_fields import Choice, settings_model
from muster.simulator.registry import POLICIES
from muster.simulator.scenario import Scenario, Sharing, load

SCENARIOS = Path(__file__).parent / "scenarios"
DATA = Path(__file__).parents[1] / "data" / "pollux"
WORKLOADS = (1, 2, 3, 6)
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Case:
    """A simulated policy, the scaling of its jobs, and the published scheduler for comparison."""

    policy: str
    scaling: str
    published: str
    target: str

    def met(self, ours: float, theirs: float) -> bool:
        return abs(ours / theirs - 1) <= TOLERANCE if self.policy == self.published else ours < theirs


CASES = (
    Case("tiresias", "rigid", "tiresias", "within 5 %"),
    Case("optimus", "elastic", "optimus", "within 5 %"),
    Case("muster", "rigid", "tiresias", "below Tiresias"),
    Case("muster", "adaptive", "pollux", "below Pollux"),
)
ADAPTIVE = "jobs choose the batch size for the GPUs that they have, as under Pollux, but by true step times, not fitted ones"
WIDE = (
    "three jobs have 32 GPUs for eight hours each, two of them the whole cluster. muster ranks by seconds run, so jobs that "
    "ran as long wait for them; Tiresias by GPU-seconds, which lets narrow jobs by"
)
NOTES: Mapping[tuple[str, int], str] = {("rigid", 1): WIDE, ("rigid", 6): "as for workload 1, less so"}
"""Remarks on muster's figures, by scaling of the jobs and workload."""


def figures() -> list[Figure]:
    """Return the mean completion time of each case, by workload and over all workloads."""
    return [figure for case in CASES for figure in _figures(case)]


def plot(folder: Path) -> None:
    """Draw the means, and single completion times over the published ones, into pollux.png."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.8), width_ratios=(1.3, 1, 1))
    _draw_means(axes[0])
    for axis, case in zip(axes[1:], CASES[:2], strict=True):
        _draw_jobs(axis, case)
    figure.tight_layout()
    figure.savefig(folder / "pollux.png", dpi=110)
    plt.close(figure)


@cache
def published() -> Mapping[str, Mapping[str, float]]:
    """Return the published completion time of each job, by "scheduler/workload"."""
    table = json.loads((DATA / "published_jcts.json").read_text())
    return {f"{name}/{workload}": run["jcts"] for name, runs in table.items() for workload, run in runs.items()}


@cache
def simulated(case: Case, workload: int) -> Mapping[str, float]:
    """Return the completion time of each job of a workload in a case."""
    records = assemble(scenario(case, workload), SCENARIOS).run()
    return {row.name: row.jct for row in records.rows.values() if row.jct is not None}


def scenario(case: Case, workload: int) -> Scenario:
    """Return the scenario of a case with a workload."""
    base = load(SCENARIOS / "pollux.yaml")
    path = DATA / "workloads" / f"workload-{workload}.csv"
    jobs = replace(base.jobs, settings=base.jobs.settings.model_copy(update={"path": path, "scaling": case.scaling}))
    builder = POLICIES[case.policy]
    policy = Choice(case.policy, builder, settings_model(builder)())
    return base.model_copy(update={"jobs": jobs, "policy": policy, "sharing": Sharing(slices=True)})


def _figures(case: Case) -> list[Figure]:
    means = {w: (fmean(simulated(case, w).values()), fmean(_theirs(case, w).values())) for w in WORKLOADS}
    means_of_all = (fmean(ours for ours, _ in means.values()), fmean(theirs for _, theirs in means.values()))
    name = f"Pollux workload, {case.policy} ({case.scaling} jobs), mean completion"
    return [
        Figure(
            f"{name}, {f'workload {which}' if which else 'all four'}",
            f"{case.published} {theirs:.0f} s",
            f"{ours:.0f} s ({ours / theirs - 1:+.1%})",
            case.target,
            case.met(ours, theirs),
            _note(case, which),
        )
        for which, (ours, theirs) in (means | {0: means_of_all}).items()
    ]


def _note(case: Case, workload: int) -> str:
    if case.policy != "muster":
        return ""
    return NOTES.get((case.scaling, workload), ADAPTIVE if case.scaling == "adaptive" else "")


def _theirs(case: Case, workload: int) -> Mapping[str, float]:
    return published()[f"{case.published}/workload-{workload}"]


def _draw_means(axis: Axes) -> None:
    bars = [(f"{who} (published)", [_theirs(case, w) for w in WORKLOADS]) for case in CASES[:2] for who in [case.published]]
    bars.append(("pollux (published)", [_theirs(CASES[3], w) for w in WORKLOADS]))
    bars += [(f"{case.policy}, {case.scaling} (ours)", [simulated(case, w) for w in WORKLOADS]) for case in CASES]
    colours = ("C0", "C1", "C2", "C0", "C1", "C3", "C4")
    for index, ((label, jcts), colour) in enumerate(zip(bars, colours, strict=True)):
        positions = [x + (index - len(bars) / 2 + 0.5) * 0.8 / len(bars) for x in range(len(WORKLOADS))]
        heights = [fmean(times.values()) for times in jcts]
        axis.bar(positions, heights, 0.8 / len(bars), label=label, color=colour, alpha=0.45 if "published" in label else 1.0)
    axis.set_xticks(range(len(WORKLOADS)), [f"workload {w}" for w in WORKLOADS])
    axis.set_ylabel("mean completion time (s)")
    axis.set_title("64 T4 GPUs, 160 jobs in 8 hours, restarts of 30 s")
    axis.set_ylim(top=axis.get_ylim()[1] * 1.3)
    axis.legend(fontsize=8, ncols=2)


def _draw_jobs(axis: Axes, case: Case) -> None:
    for workload in WORKLOADS:
        ours, theirs = simulated(case, workload), _theirs(case, workload)
        axis.scatter([theirs[name] for name in ours], list(ours.values()), s=9, alpha=0.6, label=f"workload {workload}")
    axis.axline((100, 100), (1000, 1000), color="grey", linewidth=0.8)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="published completion time (s)",
        ylabel="ours (s)",
        title=f"{case.policy}, job by job",
    )
    axis.legend(fontsize=8)


if __name__ == "__main__":
    for figure in figures():
        print(figure)
