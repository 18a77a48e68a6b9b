"""Continuous one-GPU jobs on three GPU models (Narayanan et al., OSDI'20, Gavel): mean completion times by load.

Fair rounds that ignore GPU speed validate this simulator against Gavel's on the jobs of its three seeds. Then muster, which
learns rates from running jobs, is compared with Gavel with space sharing, which knows all rates in advance.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
from benchmarks.figures.figure import Figure
from benchmarks.figures.result_cache import cached_on_disk
from matplotlib import pyplot as plt

from muster.simulator.assembly import assemble
from muster.simulator.engine import Simulation
from muster.simulator.plugin_fields import Choice, settings_model
from muster.simulator.registry import POLICIES
from muster.simulator.scenario import Scenario, load

SCENARIOS = Path(__file__).parent / "scenarios"
FIRST, LAST = 4000, 5000
"""The range of measured jobs, without the last."""
SEEDS = {"fair-rounds": (0, 1, 2), "muster": (0,)}
"""Published values are means over seeds 0, 1 and 2. A run of muster takes minutes, so it has the first seed only."""
HOUR = 3600.0
PUBLISHED = {
    "LAS": {4.0: 23.49, 4.8: 35.79, 5.6: 95.99},
    "Gandiva": {4.0: 18.88, 4.8: 30.46, 5.6: 42.54},
    "Gavel": {4.0: 16.82, 4.8: 18.97, 5.6: 28.96},
    "Gavel with space sharing": {4.0: 16.96, 4.8: 18.67, 5.6: 19.64},
}
"""Mean completion time in hours by scheduler and jobs per hour, from the notebooks of Gavel's repository."""
RATES = (4.0, 4.8, 5.6)
TOLERANCE = 0.10


def figures() -> list[Figure]:
    """Return the figures of the baseline, then of muster, at each load."""
    return [_baseline(rate) for rate in RATES] + [_muster(rate) for rate in RATES]


def plot(folder: Path) -> None:
    """Draw mean completion times over the load into gavel.png."""
    figure, axis = plt.subplots(figsize=(7.5, 4.8))
    for (name, by_rate), colour in zip(PUBLISHED.items(), ("C0", "C1", "C4", "C2"), strict=True):
        axis.plot(RATES, list(by_rate.values()), "o--", color=colour, alpha=0.55, label=f"{name} (published)")
    for policy, label, colour in (("fair-rounds", "LAS (ours)", "C0"), ("muster", "muster", "C3")):
        axis.plot(RATES, [mean(policy, rate) for rate in RATES], "s-", color=colour, label=label)
        for rate in RATES:
            dots = [mean_completion(policy, rate, seed) for seed in SEEDS[policy]]
            axis.scatter([rate] * len(dots), dots, s=9, color=colour)
    axis.set(xlabel="jobs an hour", ylabel="mean completion time (h)", yscale="log", xticks=RATES)
    axis.set_yticks([15, 20, 30, 50, 100], ["15", "20", "30", "50", "100"])
    axis.minorticks_off()
    axis.set_title("36 V100, 36 P100, 36 K80; jobs 4000 to 5000; dots: single seeds")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "gavel.png", dpi=110)
    plt.close(figure)


def mean(policy: str, rate: float) -> float:
    """Return the mean completion time over the seeds, in hours."""
    return fmean(mean_completion(policy, rate, seed) for seed in SEEDS[policy])


@cached_on_disk
def mean_completion(policy: str, rate: float, seed: int) -> float:
    """Return the mean completion time of the measured jobs in hours."""
    last_arrival = float("inf")
    measured: set[str] = set()

    def stop_after_measured_jobs(simulation: Simulation) -> None:
        if simulation.now >= last_arrival and measured.isdisjoint(simulation.cluster.gangs):
            simulation.until = simulation.now

    simulation = assemble(scenario(policy, rate, seed), SCENARIOS, on_moment=stop_after_measured_jobs)
    jobs = scenario(policy, rate, seed).jobs.build(seed=seed, folder=SCENARIOS)[FIRST:LAST]
    measured, last_arrival = {job.name for job in jobs}, jobs[-1].arrival
    rows = simulation.run().rows
    times = [jct for name in measured if (jct := rows[name].jct) is not None]
    if len(times) < len(measured):
        raise RuntimeError(f"{len(measured) - len(times)} of the measured jobs had not ended at the end of the run")
    return fmean(sorted(times)) / HOUR


def scenario(policy: str, rate: float, seed: int) -> Scenario:
    """Return the scenario of a policy at a load."""
    base = load(SCENARIOS / "gavel.yaml")
    settings = base.jobs.settings.model_copy(update={"per_hour": rate})
    jobs = Choice(base.jobs.name, base.jobs.builder, settings)
    choice = Choice(policy, POLICIES[policy], settings_model(POLICIES[policy])())
    return base.model_copy(update={"jobs": jobs, "policy": choice, "seed": seed})


def _baseline(rate: float) -> Figure:
    ours, theirs = mean("fair-rounds", rate), PUBLISHED["LAS"][rate]
    met = abs(ours / theirs - 1) <= TOLERANCE
    published, value = f"LAS {theirs:.2f} h", f"{ours:.2f} h ({ours / theirs - 1:+.1%})"
    return Figure(_name("LAS", rate), published, value, f"within {TOLERANCE:.0%}", met)


def _muster(rate: float) -> Figure:
    ours, theirs = mean("muster", rate), PUBLISHED["Gavel with space sharing"][rate]
    note = (
        "seed 0. Gavel is given every rate; muster learns them from the jobs that ran, moves no running job on a guess, and"
        " knows no job length"
    )
    published = f"Gavel with space sharing {theirs:.2f} h"
    return Figure(_name("muster", rate), published, f"{ours:.2f} h", f"<= {theirs:.2f} h", ours <= theirs, note)


def _name(policy: str, rate: float) -> str:
    return f"Gavel, {rate} jobs an hour, {policy}, mean completion"


if __name__ == "__main__":
    for figure in figures():
        print(figure)
