"""Gavel's baseline (OSDI'20, section 7): fair shares in rounds that do not see how fast a GPU is. Its simulator calls it LAS.

Jobs of one GPU get the same time on each GPU model. Every `SETTLED` seconds shares are worked out anew for the jobs that are
there, and the models, in random order, each take the jobs to which they owe most; in the rounds between, a GPU whose job
ended is given to one that waits. Nothing happens within a round: newcomers wait, a GPU stays idle when its job ends. So it is
in Gavel's simulator, too, but that changes who is where in every round; as a move costs nothing there, only shares count.
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

SETTLED = 1920.0
"""Seconds for which shares stand (Gavel's simulator, `minimum_time_between_allocation_resets`)."""


class FairRounds:
    """The same time on every GPU model for every job. A node is given to one job of one GPU; larger jobs never start."""

    def __init__(self, seed: int, round_seconds: Annotated[float, Field(gt=0)] = 360.0) -> None:
        self.period: float | None = round_seconds
        self._round = round_seconds
        self._random = Random(seed)
        self._owed: dict[str, dict[str, float]] = {}
        """Seconds that each model still owes to each job that has a share."""
        self._settled = -SETTLED

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        return ()

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        gangs = {gang.name: gang for gang in snapshot.gangs if gang.gpus == 1}
        by_model: dict[str, list[str]] = {}
        for node in snapshot.nodes.values():
            by_model.setdefault(node.model, []).append(node.name)
        self._count(gangs, snapshot.nodes)
        settles = now - self._settled >= SETTLED
        if settles:
            self._settle(gangs, {model: len(names) for model, names in by_model.items()}, now)
        staying = {} if settles else {gang.placement[0].node: name for name, gang in gangs.items() if gang.placement}
        return _carried_out(self._choose(by_model, staying, gangs), gangs)

    def _count(self, gangs: Mapping[str, Gang], nodes: Mapping[str, Node]) -> None:
        """Take the round that has just ended off what is owed."""
        for name, gang in gangs.items():
            if gang.placement:
                self._owed[name][nodes[gang.placement[0].node].model] -= self._round

    def _settle(self, gangs: Mapping[str, Gang], gpus: Mapping[str, int], now: float) -> None:
        """Give every job that had a share what it was due since the last time, and a share to those who came."""
        for owed in self._owed.values():
            for model, count in gpus.items():
                owed[model] += min(1 / len(gpus), count / len(self._owed)) * (now - self._settled)
        self._owed = {name: self._owed.get(name) or dict.fromkeys(gpus, 0.0) for name in gangs}
        self._settled = now

    def _choose(
        self, by_model: Mapping[str, list[str]], staying: Mapping[str, str], gangs: Mapping[str, Gang]
    ) -> dict[str, str]:
        """Who is to run on each node: those who stay, and on the others those to whom its model owes most."""
        there = set(staying.values())
        waiting = [name for name in self._owed if name in gangs and name not in there]
        order = sorted(by_model)
        self._random.shuffle(order)
        chosen: dict[str, str] = dict(staying)
        for model in order:
            free = [node for node in by_model[model] if node not in staying]
            owed = {name: self._owed[name][model] for name in waiting}
            waiting.sort(key=lambda name: (-owed[name], name))
            chosen |= _kept(waiting[: len(free)], free, gangs)
            waiting = waiting[len(free) :]
        return chosen


def _kept(names: Sequence[str], nodes: Sequence[str], gangs: Mapping[str, Gang]) -> dict[str, str]:
    """Who runs on which node; those that are on one of these already stay there."""
    free = set(nodes)
    there = {p.node: name for name in names for p in gangs[name].placement if p.node in free}
    coming = [name for name in names if name not in set(there.values())]
    return there | dict(zip(sorted(free - there.keys()), coming, strict=False))


def _carried_out(chosen: Mapping[str, str], gangs: Mapping[str, Gang]) -> list[Decision]:
    """Take off those who go elsewhere or wait, then place those who come."""
    now_at = {name: gang.placement[0].node for name, gang in gangs.items() if gang.placement}
    stopped = [gangs[name] for name, node in now_at.items() if chosen.get(node) != name]
    coming = [(gangs[name], node) for node, name in chosen.items() if now_at.get(name) != node]
    return [
        *(Requeue(gang, Reason.TIME_SLICED, "its round is over") for gang in stopped),
        *(
            Place(gang, (Assigned(gang.tasks[0], node, 1),), Reason.PLACED, "it is owed most of these GPUs")
            for gang, node in coming
        ),
    ]
