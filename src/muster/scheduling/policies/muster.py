"""muster's own policy: who promises to end soonest goes first, though nobody knows how long anything will run.

A gang's promise is its Gittins index, from how long the gangs that ended lately ran (`prospects`): with nothing known yet, or
with the heavy tail of most clusters, that is least attained service; where jobs take about as long, first come, first served.
A gang that runs is only suspended for one that promises twice as much, and one that has waited much longer than it ever ran
comes first again: nobody is moved to and fro, and nobody starves. Those that promise alike start
so that they fill the GPUs best (`mechanisms.filling`).

A pass ranks the gangs, lets each claim GPUs in that order (its own if it runs, idle ones, those of gangs ranked below it), and
decides only what changes. What still waits may be packed onto GPUs where it is known to gain.
"""

from __future__ import annotations

from itertools import groupby
from math import inf

from muster.scheduling.decisions import Admission, Place, Reason, Wait
from muster.scheduling.mechanisms import elasticity, migration, packing
from muster.scheduling.mechanisms.board import Board, Spots
from muster.scheduling.mechanisms.filling import fill
from muster.scheduling.mechanisms.turns import Bundle, bundled
from muster.scheduling.occupancy import gpus_by_node
from muster.scheduling.placement import Shortage, describe, fewest_gpus, place
from muster.scheduling.queueing import Quotas
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Gang, Placement

HOLD = 2.0
"""What a gang that runs promises counts this many times."""
PATIENCE = 16.0
"""A gang that has waited this many times as long as it ran (and a slice at least) comes first."""


def react(board: Board, settings: Settings) -> None:
    """Share the GPUs anew where somebody waits who could go before others."""
    if _claimants(board):
        share(board, settings)


def introspect(board: Board, settings: Settings) -> None:
    """Judge what was packed, share the GPUs anew, repair placements, grow."""
    packing.judge(board)
    if settings.migration:
        migration.improve(board)
    react(board, settings)
    if not board.waiting():
        elasticity.grow(board, settings.grow_after)


def may_claim(decision: Admission) -> bool:
    """Say whether admission leaves a gang waiting that may claim GPUs of others: one that shares, or the first in its turn."""
    if not isinstance(decision, Wait) or decision.gang.placement:
        return False
    first = decision.reason in (Reason.INSUFFICIENT_GPUS, Reason.QUOTA_EXHAUSTED)
    return first or (decision.gang.sharing.slices and decision.reason is Reason.BEHIND_IN_QUEUE)


def leaves_to_rank(decision: Admission) -> bool:
    """Say whether a gang that admission would start claims its GPUs by rank instead, since others claim too."""
    return isinstance(decision, Place) and decision.gang.sharing.slices and not decision.gang.placement


def share(board: Board, settings: Settings) -> None:
    """Let each gang claim GPUs in the order of its rank, and decide what changes."""
    claims = _Claims(board, settings)
    claims.make()
    for gang in claims.displaced:
        board.suspend(gang, Reason.PREEMPTED, "others have had less", stays=False)
    for gang in claims.ranked:
        found = claims.placements.get(gang.name)
        if found:
            board.put(Place(board.gangs[gang.name], found, Reason.PLACED, describe(found)))
    if settings.packing:
        packing.offer(board, [gang for gang in claims.ranked if not board.gangs[gang.name].placement])


def promise(board: Board, gang: Gang, settings: Settings) -> float:
    """What running the gang now promises: ends per second, the more the sooner it should run.

    A gang that runs is only suspended for one that promises twice as much, so that nobody is moved to and fro.
    """
    ran = gang.ran(board.now)
    if gang.placement:
        return HOLD * board.prospects.index(ran)
    starved = board.now - gang.since > PATIENCE * max(ran, settings.slice_seconds)
    return inf if starved else board.prospects.index(ran)


class _Claims:
    """Who gets which GPUs, worked out in the order of rank before anything is decided."""

    def __init__(self, board: Board, settings: Settings) -> None:
        self.board = board
        self.quotas = Quotas(board.queues, board.gangs.values())
        self.placements: dict[str, Placement] = {}
        """Gangs that start, or go on elsewhere."""
        self.displaced: list[Gang] = []
        running, waiting = _running(board), _claimants(board)
        self._promises = {gang.name: promise(board, gang, settings) for gang in (*running.values(), *waiting)}
        bundles = [sorted(bundle, key=self._rank) for bundle in bundled(running)]
        self._bundles = {bundle[0].name: bundle for bundle in bundles}
        """Gangs that are packed rank as the first of them does."""
        hosts = [bundle[0] for bundle in bundles]
        self.ranked = sorted((*hosts, *waiting), key=self._rank)
        self._below = {gang.name: board.spots(gang) for gang in reversed(self.ranked) if gang.placement}
        """GPUs of the gangs whose turn to claim has not come, the last in rank first."""
        self._spare: Spots = {node: board.idle(node) for node in board.nodes}
        self._count = sum(map(int.bit_count, self._spare.values())) + sum(gang.held for gang in hosts)
        """GPUs that nobody has claimed yet."""
        self._too_large: set[object] = set()

    def _rank(self, gang: Gang) -> tuple[int, float, bool, float, str]:
        return (-gang.priority, -self._promises[gang.name], not gang.placement, gang.arrived, gang.name)

    def make(self) -> None:
        """Let everybody claim in the order of rank; those that wait and promise alike so that they fill what is left best."""
        for _, alike in groupby(self.ranked, key=lambda gang: (bool(gang.placement), gang.priority, self._promises[gang.name])):
            for gang in fill(list(alike), self._count):
                self._claim(gang)

    def _claim(self, gang: Gang) -> None:
        """Let the gang keep what it has, find it something, or note that it loses its GPUs."""
        own = self._below.pop(gang.name, None)
        if own is not None and own == self.board.spots(gang):
            self._count -= gang.held
            return
        if own is not None:
            self._displace(self._bundles[gang.name])
            self._give(own)
        least = fewest_gpus(gang)
        allowed = self.quotas.within(gang) if least <= self._count else None
        if allowed is None or not self._find(allowed):
            self.quotas.keep(gang.queue, least)

    def _displace(self, bundle: Bundle) -> None:
        self.displaced += bundle
        for gang in bundle:
            self.quotas.add(gang.queue, -gang.held)

    def _find(self, gang: Gang) -> bool:
        shape = (tuple((task.gpus, task.where) for task in gang.tasks), gang.spread, gang.required, gang.fewest, gang.asked)
        if shape in self._too_large:
            return False
        found = self._over(gang, 0) or self._over_fewest(gang)
        if found is None:
            self._too_large.add(shape)
            return False
        self.placements[gang.name] = found
        self._count -= sum(place.gpus.bit_count() for place in found)
        for node, gpus in gpus_by_node(found).items():
            self._spare[node] &= ~gpus
            for spots in self._below.values():
                if spots.get(node, 0) & gpus:
                    spots[node] &= ~gpus
        self.quotas.add(gang.queue, sum(place.gpus.bit_count() for place in found))
        return True

    def _over_fewest(self, gang: Gang) -> Placement | None:
        """A place on the spare GPUs and those of as few gangs as will do, the last in rank first."""
        few, many = 1, len(self._below)
        best = self._over(gang, many) if many else None
        while best and few < many:
            middle = (few + many) // 2
            found = self._over(gang, middle)
            best, few, many = (found, few, middle) if found else (best, middle + 1, many)
        return best

    def _over(self, gang: Gang, victims: int) -> Placement | None:
        spots = dict(self._spare)
        for held in list(self._below.values())[:victims]:
            for node, gpus in held.items():
                spots[node] |= gpus
        found = place(gang, self.board.only(spots))
        return None if isinstance(found, Shortage) else found

    def _give(self, spots: Spots) -> None:
        for node, gpus in spots.items():
            self._spare[node] |= gpus


def _running(board: Board) -> dict[str, Gang]:
    return {gang.name: gang for gang in board.gangs.values() if gang.placement and gang.running and gang.sharing.slices}


def _claimants(board: Board) -> list[Gang]:
    """The gangs that wait and may claim GPUs: those that `may_claim`, and those whose start was left to their rank."""
    waiting = [gang for gang in board.gangs.values() if not gang.placement]
    return [g for g in waiting if (may_claim(board.waits[g.name]) if g.name in board.waits else g.sharing.slices)]
