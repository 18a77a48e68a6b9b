"""The 60 jobs of the Tiresias simulator (Gu et al., NSDI'19): mean completion times of sort orders and of muster.

The published values come from the unmodified simulator. FIFO, first-fit and shortest remaining time validate this simulator;
muster, which knows no job lengths, must come close to shortest remaining time, which does.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
from benchmarks.figures.figure import Figure
from matplotlib import pyplot as plt

from muster.simulator.assembly import assemble
from muster.simulator.plugin_fields import Choice, settings_model
from muster.simulator.registry import POLICIES
from muster.simulator.scenario import load

SCENARIOS = Path(__file__).parent / "scenarios"
PUBLISHED = {"fifo": {3: 423.48, 4: 200.82}, "first-fit": {3: 310.42, 4: 190.68}, "srtf": {3: 273.50, 4: 192.12}}
"""Mean completion time in seconds by order and number of nodes."""
OTHERS = ("las", "las-queues", "muster")
TOLERANCE = 0.01
ABOVE_SRTF = 0.10


def figures() -> list[Figure]:
    """Return the validated orders, then muster, on each cluster."""
    checks = [_check(policy, nodes) for policy in PUBLISHED for nodes in (3, 4)]
    return checks + [_muster(nodes) for nodes in (3, 4)]


def plot(folder: Path) -> None:
    """Draw our and the published mean completion time of each policy into tiresias60.png."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    names = (*PUBLISHED, *OTHERS)
    for axis, nodes in zip(axes, (3, 4), strict=True):
        ours = [mean_completion(name, nodes) for name in names]
        published = [by_nodes[nodes] for by_nodes in PUBLISHED.values()]
        axis.bar([x - 0.2 for x in range(len(published))], published, 0.4, color="C0", alpha=0.45, label="published")
        shifts = [0.2] * len(published) + [0.0] * len(OTHERS)
        colours = ["C3" if name == "muster" else "C0" for name in names]
        axis.bar([x + shift for x, shift in enumerate(shifts)], ours, 0.4, color=colours, label="ours")
        limit = (1 + ABOVE_SRTF) * PUBLISHED["srtf"][nodes]
        axis.axhline(limit, color="grey", linewidth=0.8, linestyle="--", label="srtf + 10 %")
        axis.set_xticks(range(len(names)), names, rotation=20)
        axis.set_title(f"{nodes} nodes of 4 GPUs")
    axes[0].set_ylabel("mean completion time (s)")
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(folder / "tiresias60.png", dpi=110)
    plt.close(figure)


@cache
def mean_completion(policy: str, nodes: int) -> float:
    """Return the mean completion time of the 60 jobs in seconds."""
    base = load(SCENARIOS / "tiresias60.yaml")
    groups = [group.model_copy(update={"count": nodes}) for group in base.cluster.groups]
    cluster = base.cluster.model_copy(update={"groups": groups})
    choice = Choice(policy, POLICIES[policy], settings_model(POLICIES[policy])())
    records = assemble(base.model_copy(update={"cluster": cluster, "policy": choice}), SCENARIOS).run()
    return fmean(row.jct for row in records.rows.values() if row.jct is not None)


def _check(policy: str, nodes: int) -> Figure:
    ours, theirs = mean_completion(policy, nodes), PUBLISHED[policy][nodes]
    met = abs(ours / theirs - 1) <= TOLERANCE
    return Figure(_name(policy, nodes), f"{theirs:.2f} s", f"{ours:.2f} s", f"within {TOLERANCE:.0%}", met)


def _muster(nodes: int) -> Figure:
    ours, srtf = mean_completion("muster", nodes), PUBLISHED["srtf"][nodes]
    limit = (1 + ABOVE_SRTF) * srtf
    note = "muster is not told how long a job runs, srtf is"
    return Figure(_name("muster", nodes), f"srtf {srtf:.2f} s", f"{ours:.2f} s", f"<= {limit:.2f} s", ours <= limit, note)


def _name(policy: str, nodes: int) -> str:
    return f"Tiresias 60 jobs, {nodes} x 4 GPUs, {policy}, mean completion"


if __name__ == "__main__":
    for figure in figures():
        print(figure)
