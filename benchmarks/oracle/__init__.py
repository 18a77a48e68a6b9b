"""kube-scheduler as the oracle of muster's planner, on random clusters with random gangs."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.oracle.contest import Contest, Tally
from benchmarks.oracle.mix import World, worlds
from hypothesis import HealthCheck, Phase, given, seed, settings

from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster, Options

BOUND, FITTED = 0.995, 0.99
"""The least share of admitted gangs that are bound at the first try, and of fitted gangs that are admitted."""


def run(number: int, gangs: int, start: int, say: Callable[[str], None] = lambda _: None) -> Tally:
    """Try so many gangs on each of so many random clusters; return what became of them, and say each miss."""
    with LocalCluster(options=Options(node_grace_seconds=24 * 3600)) as cluster:
        stack.install(cluster)
        return contest(cluster, number, gangs, start, say)


def contest(cluster: LocalCluster, number: int, gangs: int, start: int, say: Callable[[str], None] = lambda _: None) -> Tally:
    """Do so on a cluster without nodes on which muster runs."""
    found = Contest(cluster)

    @seed(start)
    @settings(
        max_examples=number, phases=[Phase.generate], deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(worlds(gangs))
    def every(world: World) -> None:
        before = len(found.tally.misses)
        found.run(world)
        for miss in found.tally.misses[before:]:
            say(miss)
        say(f"{found.tally.gangs} gangs: {found.tally.fitted} fit, {found.tally.admitted} admitted")

    every()
    return found.tally
