"""FfDL (IBM; Middleware'19): jobs that queue long under Spread and under Pack, and learners stuck without gangs.

The paper's text was not to be had: the shape of its results is known, not its values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median

from benchmarks.figures.figure import Figure
from benchmarks.figures.progress import SCENARIOS, under, with_jobs
from benchmarks.figures.result_cache import kept

from muster.simulator.assembly import assemble
from muster.simulator.policies.kubernetes import Order, stuck
from muster.simulator.report import LONG_WAIT
from muster.simulator.scenario import Sharing, load

LOAD = 0.5
"""The share of the GPUs that the 60 days ask for; FfDL's own is not known."""
DEPENDS = "The ratio hangs on the load: the fuller the cluster, the smaller it is"
SUSPENDED = "under muster jobs let themselves be suspended, which costs 10 s, 30 s where they go on elsewhere"
DAYS_SEEDS, GANG_SEEDS = (0, 1, 2), range(200)
PLACEMENTS: Mapping[str, tuple[str, bool]] = {"Spread": ("fifo", True), "Pack": ("fifo", False), "muster": ("muster", False)}
"""The policy, and whether jobs spread over nodes."""
SCHEDULERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "kube-scheduler, pods in any order": ("kube-scheduler", {"order": Order.PODS}),
    "kube-scheduler, job by job": ("kube-scheduler", {"order": Order.JOBS}),
    "muster": ("muster", {}),
}


@dataclass(frozen=True, slots=True)
class Stuck:
    """Learners that hold GPUs while their job is not whole, and those GPUs, of 60 each."""

    learners: int
    gpus: int


@kept
def late(placement: str, seed: int) -> int:
    """Return how many jobs queued for more than 15 minutes in 60 days."""
    policy, spread = PLACEMENTS[placement]
    scenario = with_jobs(under(load(SCENARIOS / "ffdl-days.yaml"), policy, seed), spread=spread, load=LOAD)
    if policy == "muster":
        scenario = scenario.model_copy(update={"sharing": Sharing(slices=True)})
    records = assemble(scenario, SCENARIOS).run()
    waits = (row.queued if row.queued is not None else records.end - row.arrival for row in records.rows.values())
    return sum(wait > LONG_WAIT for wait in waits)


@cache
def deadlocked(scheduler: str) -> Sequence[Stuck]:
    """Return what is stuck once every GPU that can be given is given, for each seed."""
    policy, settings = SCHEDULERS[scheduler]
    scenario = load(SCENARIOS / "ffdl-gangs.yaml")
    found = []
    for seed in GANG_SEEDS:
        simulation = assemble(under(scenario, policy, seed, **settings), SCENARIOS)
        simulation.run()
        found.append(Stuck(*stuck(simulation.cluster.gangs.values())))
    return found


def figures() -> list[Figure]:
    """Return the lines of both studies."""
    return [*_queued(), *_stuck()]


def _queued() -> list[Figure]:
    counts = {name: [late(name, seed) for seed in DAYS_SEEDS] for name in PLACEMENTS}
    ratios = [spread / max(pack, 1) for spread, pack in zip(counts["Spread"], counts["Pack"], strict=True)]
    shown = {name: ", ".join(map(str, found)) for name, found in counts.items()}
    below = all(ours < pack for ours, pack in zip(counts["muster"], counts["Pack"], strict=True))
    late_jobs = f"{shown['Spread']} jobs against {shown['Pack']}"
    note = f"{len(DAYS_SEEDS)} slices of Philly, each thinned to {LOAD:.0%} of the GPUs: {late_jobs}. {DEPENDS}"
    name = "FfDL: jobs queued > 15 min in 60 days"
    mean = sum(counts["Spread"]) / max(1, sum(counts["Pack"]))
    return [
        Figure(
            f"{name}, Spread / Pack",
            "> 3 x",
            f"{mean:.2f} x ({min(ratios):.2f} to {max(ratios):.2f})",
            ">= 3 x",
            mean >= 3,
            note,
        ),
        Figure(f"{name}, muster", f"Pack: {shown['Pack']}", shown["muster"], "below Pack in each slice", below, SUSPENDED),
    ]


def _stuck() -> list[Figure]:
    published: Mapping[str, tuple[str, str, Callable[[float], bool]]] = {
        "kube-scheduler, pods in any order": ("51 of 60 (real kube-scheduler)", ">= 40 in the median", lambda m: m >= 40),
        "kube-scheduler, job by job": ("2 or 3 of 60 (real kube-scheduler)", "<= 3 in the median", lambda m: m <= 3),
        "muster": ("0 with gangs", "0 in every run", lambda m: m == 0),
    }
    lines = []
    for name, (theirs, target, right) in published.items():
        found = deadlocked(name)
        middle, most = median(one.learners for one in found), max(one.learners for one in found)
        idle = fmean(one.gpus for one in found) / 60
        ours = f"{middle:g} of 60, at most {most}; {idle:.0%} of the GPUs idle"
        met = right(most if name == "muster" else middle)
        lines.append(Figure(f"FfDL: temporarily deadlocked learners, {name}", theirs, ours, target, met, "200 seeds"))
    return lines


def plot(folder: Path) -> None:
    """Draw both studies into ffdl.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (bars, cdf) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for index, name in enumerate(PLACEMENTS):
        counts = [late(name, seed) for seed in DAYS_SEEDS]
        drawn = bars.bar([seed + (index - 1) * 0.27 for seed in range(len(counts))], counts, 0.27, label=name)
        bars.bar_label(drawn)
    bars.set_xticks(range(len(DAYS_SEEDS)), [f"slice {seed}" for seed in DAYS_SEEDS])
    bars.set(title="60 days on 400 GPUs (published: Spread / Pack > 3)", ylabel="jobs queued for more than 15 minutes")
    for name in SCHEDULERS:
        found = sorted(100 * one.gpus / 60 for one in deadlocked(name))
        cdf.step([0.0, *found, 100.0], [0.0, *((i + 1) / len(found) for i in range(len(found))), 1.0], where="post", label=name)
    cdf.set(
        title="50 jobs of 2 to 4 learners on 15 nodes of 4 GPUs",
        xlabel="GPUs held idle by stuck learners (%)",
        ylabel="share of 200 runs",
    )
    bars.legend()
    cdf.legend(loc="center")
    figure.savefig(folder / "ffdl.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    for line in figures():
        print(line)
