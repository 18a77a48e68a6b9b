"""FfDL (IBM; Middleware'19): long queueing under Spread and Pack, and learners deadlocked without gang scheduling.

The full text was not available: the trends of its results are known, not all of its values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median

from benchmarks.figures.figure import Figure
from benchmarks.figures.progress import SCENARIOS, under, with_jobs
from benchmarks.figures.result_cache import cached_on_disk

from muster.simulator.assembly import assemble
from muster.simulator.policies.kubernetes import Order, stuck
from muster.simulator.report import LONG_WAIT
from muster.simulator.scenario import Sharing, load

LOAD = 0.5
"""The load of the 60 days; FfDL's own is not published."""
DEPENDS = "The ratio hangs on the load: the fuller the cluster, the smaller it is"
SUSPENDED = "under muster jobs let themselves be suspended, which costs 10 s, 30 s where they go on elsewhere"
DAYS_SEEDS, GANG_SEEDS = (0, 1, 2), range(200)
PLACEMENTS: Mapping[str, tuple[str, bool]] = {"Spread": ("fifo", True), "Pack": ("fifo", False), "muster": ("muster", False)}
"""The policy, and whether jobs spread over nodes, by placement."""
SCHEDULERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "kube-scheduler, pods in any order": ("kube-scheduler", {"order": Order.PODS}),
    "kube-scheduler, job by job": ("kube-scheduler", {"order": Order.JOBS}),
    "muster": ("muster", {}),
}


@dataclass(frozen=True, slots=True)
class Stuck:
    """Learners of partially placed jobs, and the GPUs that they hold idle, each out of 60."""

    learners: int
    gpus: int


@cached_on_disk
def late(placement: str, seed: int) -> int:
    """Return the number of jobs that queued for more than 15 minutes in 60 days."""
    policy, spread = PLACEMENTS[placement]
    scenario = with_jobs(under(load(SCENARIOS / "ffdl-days.yaml"), policy, seed), spread=spread, load=LOAD)
    if policy == "muster":
        scenario = scenario.model_copy(update={"sharing": Sharing(slices=True)})
    records = assemble(scenario, SCENARIOS).run()
    waits = (row.queued if row.queued is not None else records.end - row.arrival for row in records.rows.values())
    return sum(wait > LONG_WAIT for wait in waits)


@cache
def deadlocked(scheduler: str) -> Sequence[Stuck]:
    """Return the deadlocked learners after all possible bindings, for each seed."""
    policy, settings = SCHEDULERS[scheduler]
    scenario = load(SCENARIOS / "ffdl-gangs.yaml")
    results = []
    for seed in GANG_SEEDS:
        simulation = assemble(under(scenario, policy, seed, **settings), SCENARIOS)
        simulation.run()
        results.append(Stuck(*stuck(simulation.cluster.gangs.values())))
    return results


def figures() -> list[Figure]:
    """Return the figures of both studies."""
    return [*_queued(), *_stuck()]


def _queued() -> list[Figure]:
    counts = {name: [late(name, seed) for seed in DAYS_SEEDS] for name in PLACEMENTS}
    ratios = [spread / max(pack, 1) for spread, pack in zip(counts["Spread"], counts["Pack"], strict=True)]
    shown = {name: ", ".join(map(str, numbers)) for name, numbers in counts.items()}
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
    for name, (theirs, target, meets) in published.items():
        results = deadlocked(name)
        middle, most = median(result.learners for result in results), max(result.learners for result in results)
        idle = fmean(result.gpus for result in results) / 60
        ours = f"{middle:g} of 60, at most {most}; {idle:.0%} of the GPUs idle"
        met = meets(most if name == "muster" else middle)
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
        idle = sorted(100 * result.gpus / 60 for result in deadlocked(name))
        cdf.step([0.0, *idle, 100.0], [0.0, *((i + 1) / len(idle) for i in range(len(idle))), 1.0], where="post", label=name)
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
