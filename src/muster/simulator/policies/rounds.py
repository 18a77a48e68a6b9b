"""Gavel's baseline (OSDI'20, section 7): fair rounds that ignore GPU speed. Its simulator calls it LAS.

One-GPU jobs get equal time on each GPU model. Every `RESET_SECONDS` the fair times of the present jobs are recomputed, and the
models, in random order, each take the jobs to which they owe most. In the rounds between, a GPU whose job has ended goes to a
waiting job. Nothing changes within a round: new jobs wait, and a GPU stays idle after its job ends. Gavel's simulator does the
same, except that it reassigns jobs in every round; since a move costs nothing there, only the times matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated

from pydantic import Field

from muster.scheduling.decisions import Decision, Place, Reason, Requeue
from muster.scheduling.gang import Assigned, Gang
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.node import Node

RESET_SECONDS = 1920.0
"""Seconds between recomputations (`minimum_time_between_allocation_resets` of Gavel's simulator)."""


class FairRounds:
    """Equal time on every GPU model for every job. A node runs one one-GPU job; larger jobs never start."""

    def __init__(self, seed: int, round_seconds: Annotated[float, Field(gt=0)] = 360.0) -> None:
        self.period: float | None = round_seconds
        self._round = round_seconds
        self._random = Random(seed)
        self._owed: dict[str, dict[str, float]] = {}
        """Seconds that each model still owes to each job."""
        self._reset_at = -RESET_SECONDS

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        gangs = {gang.name: gang for gang in snapshot.gangs if gang.gpus == 1}
        by_model: dict[str, list[str]] = {}
        for node in snapshot.nodes.values():
            by_model.setdefault(node.model, []).append(node.name)
        self._count(gangs, snapshot.nodes)
        reset = now - self._reset_at >= RESET_SECONDS
        if reset:
            self._reset(gangs, {model: len(names) for model, names in by_model.items()}, now)
        staying = {} if reset else {gang.placement[0].node: name for name, gang in gangs.items() if gang.placement}
        return _decisions(self._choose(by_model, staying, gangs), gangs)

    def _count(self, gangs: Mapping[str, Gang], nodes: Mapping[str, Node]) -> None:
        """Subtract the last round from the time owed to its jobs."""
        for name, gang in gangs.items():
            if gang.placement:
                self._owed[name][nodes[gang.placement[0].node].model] -= self._round

    def _reset(self, gangs: Mapping[str, Gang], gpus: Mapping[str, int], now: float) -> None:
        """Credit each job with its fair time since the last reset, and add the new jobs."""
        for owed in self._owed.values():
            for model, count in gpus.items():
                owed[model] += min(1 / len(gpus), count / len(self._owed)) * (now - self._reset_at)
        self._owed = {name: self._owed.get(name) or dict.fromkeys(gpus, 0.0) for name in gangs}
        self._reset_at = now

    def _choose(
        self, by_model: Mapping[str, list[str]], staying: Mapping[str, str], gangs: Mapping[str, Gang]
    ) -> dict[str, str]:
        """The job of each node: the staying ones, and on other nodes those to which the model owes most."""
        running = set(staying.values())
        waiting = [name for name in self._owed if name in gangs and name not in running]
        order = sorted(by_model)
        self._random.shuffle(order)
        chosen: dict[str, str] = dict(staying)
        for model in order:
            free = [node for node in by_model[model] if node not in staying]
            owed = {name: self._owed[name][model] for name in waiting}
            waiting.sort(key=lambda name: (-owed[name], name))
            chosen |= _assigned(waiting[: len(free)], free, gangs)
            waiting = waiting[len(free) :]
        return chosen


def _assigned(names: Sequence[str], nodes: Sequence[str], gangs: Mapping[str, Gang]) -> dict[str, str]:
    """The job of each node; jobs already on one of the nodes stay there."""
    free = set(nodes)
    staying = {assigned.node: name for name in names for assigned in gangs[name].placement if assigned.node in free}
    arriving = [name for name in names if name not in set(staying.values())]
    return staying | dict(zip(sorted(free - staying.keys()), arriving, strict=False))


def _decisions(chosen: Mapping[str, str], gangs: Mapping[str, Gang]) -> list[Decision]:
    """Suspend the jobs that leave their node, then place those that arrive."""
    node_of = {name: gang.placement[0].node for name, gang in gangs.items() if gang.placement}
    stopped = [gangs[name] for name, node in node_of.items() if chosen.get(node) != name]
    arriving = [(gangs[name], node) for node, name in chosen.items() if node_of.get(name) != node]
    return [
        *(Requeue(gang, Reason.TIME_SLICED, "its round is over") for gang in stopped),
        *(
            Place(gang, (Assigned(gang.tasks[0], node, 1),), Reason.PLACED, "this GPU model owes it most time")
            for gang, node in arriving
        ),
    ]
