"""Optimus (Peng et al., EuroSys'18) as implemented in Pollux's simulator, to validate this one. It knows remaining work.

Each job gets one worker in order of arrival; every further GPU goes to the job whose remaining time it shortens most. A job
whose number of workers changes is placed again, small jobs first, on the emptiest nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.scheduling.decisions import Decision
from muster.scheduling.gang import Gang
from muster.scheduling.profile import Shape
from muster.scheduling.snapshot import Snapshot
from muster.simulator.policies import Oracle
from muster.simulator.policies.tiresias import INTERVAL, reassign


class Optimus:
    """Elastic worker counts by marginal gain in remaining time."""

    def __init__(self, oracle: Oracle) -> None:
        self.period: float | None = INTERVAL
        self._oracle = oracle

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        gangs = sorted(snapshot.gangs, key=lambda gang: (gang.arrived, gang.name))
        sizes = [node.healthy.bit_count() for node in snapshot.nodes.values()]
        workers = self._workers(gangs, sum(sizes), max(sizes, default=0))
        chosen = [(gang, workers[gang.name]) for gang in gangs if gang.name in workers]
        return reassign(snapshot, sorted(chosen, key=lambda item: item[1]))

    def _workers(self, gangs: Sequence[Gang], gpus: int, per_node: int) -> dict[str, int]:
        """The number of workers of each running gang."""
        workers: dict[str, int] = {}
        for gang in gangs:
            if gang.tasks[0].gpus * (gang.fewest or len(gang.tasks)) <= gpus:
                workers[gang.name] = gang.fewest or len(gang.tasks)
                gpus -= gang.tasks[0].gpus * workers[gang.name]
        gains = {gang.name: self._gain(gang, workers[gang.name], per_node) for gang in gangs if gang.name in workers}
        by_name = {gang.name: gang for gang in gangs}
        while gains:
            best = max(gains, key=lambda name: (gains[name], -by_name[name].arrived, name))
            worker_gpus = by_name[best].tasks[0].gpus
            if gains[best] <= 0 or worker_gpus > gpus:
                break
            workers[best] += 1
            gpus -= worker_gpus
            gains[best] = self._gain(by_name[best], workers[best], per_node)
        return workers

    def _gain(self, gang: Gang, workers: int, per_node: int) -> float:
        """Seconds by which one more worker would shorten the gang's remaining time."""
        if workers >= len(gang.tasks):
            return 0.0
        return self._seconds(gang, workers, per_node) - self._seconds(gang, workers + 1, per_node)

    def _seconds(self, gang: Gang, workers: int, per_node: int) -> float:
        full_nodes, remainder = divmod(workers * gang.tasks[0].gpus, per_node)
        shape = Shape("", (per_node,) * full_nodes + ((remainder,) if remainder else ()), float("inf"))
        return self._oracle.remaining(gang.name) / self._oracle.rate_on(gang.name, shape)
