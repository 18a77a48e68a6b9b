"""Scene (e): 100 gangs of 20 on 1,000 nodes, kube-scheduler's own gang scheduling and muster in turn, on one control plane.

muster is installed only for its own run, so that each contestant has the machine to itself. One run each gives a rough figure;
`make bench-gangs` repeats the runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from muster_dev.demo import gang_race
from muster_dev.demo.gang_race import Race
from muster_dev.demo.show import Show
from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster


@dataclass(frozen=True)
class Outcome:
    """The results of both contestants."""

    native: Race
    muster: Race


def play(show: Show, nodes: str = gang_race.NODES, gangs: int = gang_race.GANGS, size: int = gang_race.SIZE) -> Outcome:
    """Run the scene on a separate cluster."""
    what = f"{gangs} gangs of {size}"
    with LocalCluster(options=gang_race.options(), progress=show.progress) as cluster:
        gang_race.add_nodes(cluster, nodes)
        with show.step(f"kube-scheduler's own gang scheduling (alpha): {what}"):
            native = gang_race.race_native(cluster, gangs, size)
        stack.install(cluster)
        with show.step("waiting until the agents have published every node"):
            gang_race.wait_for_agents(cluster)
        with show.step(f"muster, one DLJob a gang: {what}"):
            muster = gang_race.race_muster(cluster, gangs, size)
    _report(show, native, muster)
    return Outcome(native, muster)


def _report(show: Show, *races: Race) -> None:
    rows = [
        (race.contestant, str(race.pods), f"{race.seconds:.1f} s", f"{race.pods_per_second:.0f}", _cpu_ms(race))
        for race in races
    ]
    show.table(("", "pods", "first create to last bind", "pods/s", "CPU ms per pod, all processes"), rows)
    native, muster = races
    show.result(
        f"muster: {muster.pods_per_second / native.pods_per_second:.1f} times the pods per second of native gang scheduling"
    )


def _cpu_ms(race: Race) -> str:
    return f"{1000 * sum(race.cpu_seconds.values()) / race.pods:.1f}"
