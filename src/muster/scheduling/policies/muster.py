"""muster's own policy: who promises to end soonest goes first, though nobody knows how long anything will run.

A gang's promise is its Gittins index, from how long the gangs that ended lately ran (`prospects`): with nothing known yet, or
with the heavy tail of most clusters, that is least attained service; where jobs take about as long, first come, first served.
A gang that runs is only suspended for one that promises twice as much, and one that has waited much longer than it ever ran
comes first again: nobody is moved to and fro, and nobody starves. Those that promise alike start
so that they fill the GPUs best (`mechanisms.filling`). Elastic gangs rank for the fewest workers that they can run with, and
share what nobody claims by what they make of it (`mechanisms.shares`).

A pass ranks the gangs, lets each claim GPUs in that order (its own if it runs, idle ones, those of gangs ranked below it), and
decides only what changes. What still waits may be packed onto GPUs where it is known to gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import inf

from muster.scheduling.decisions import Admission, Place, Preempt, Reason, Wait
from muster.scheduling.mechanisms import packing, shares, usage
from muster.scheduling.mechanisms.board import Board, Spots
from muster.scheduling.mechanisms.changes import carry_out
from muster.scheduling.mechanisms.filling import fill
from muster.scheduling.mechanisms.turns import Bundle, bundled
from muster.scheduling.placing.placement import fewest_gpus, find
from muster.scheduling.queueing import Quotas
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Gang, Placement
from muster.scheduling.speed.occupancy import gpus_by_node
from muster.scheduling.topology.links import GpuSet

HOLD = 2.0
"""What a gang that runs promises counts this many times."""
PATIENCE = 16.0
"""A gang that has waited this many times as long as it ran (and a slice at least) comes first."""


def react(board: Board, settings: Settings) -> None:
    """Share the GPUs anew where somebody waits who could go before others."""
    if _claimants(board) or shares.sharing(board):
        share(board, settings)


def introspect(board: Board, settings: Settings) -> None:
    """Judge what was packed, repair placements, share the GPUs anew."""
    packing.judge(board)
    if settings.migration:
        usage.improve(board, packing=settings.packing)
    react(board, settings)


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
    elastic = shares.sharing(board)
    least = board.supposing(shares.least(gang, board.now) for gang in elastic.values()) if elastic else board
    claims = _Claims(least, settings)
    claims.make()
    for gang in claims.displaced:
        if gang.name not in elastic or gang.name not in claims.placements:
            board.suspend(gang, Reason.PREEMPTED, "others have had less", stays=False)
    claimed = {gang.name: claims.placements[gang.name] for gang in claims.ranked if gang.name in claims.placements}
    rigid = {name: found for name, found in claimed.items() if name not in elastic}
    kept = {name: least.gangs[name].placement for name in elastic if board.gangs[name].placement}
    at_least = kept | {name: found for name, found in claimed.items() if name in elastic}
    carry_out(board, rigid | shares.divide(board, at_least, rigid, claims.quotas))
    if settings.packing:
        left = (board.gangs[gang.name] for gang in claims.ranked)
        packing.offer(board, [gang for gang in left if not gang.placement])


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
        self._room = board.only({node: board.idle(node) for node in board.nodes})
        """GPUs that are idle or were given up, and nobody has claimed since."""
        self._lent: list[list[tuple[str, GpuSet]]] = []
        """For each gang below whose GPUs are lent to the room, the last in rank first, what was free of its nodes before."""
        self._count = self._room.total + sum(gang.held for gang in hosts)
        """GPUs that nobody has claimed yet."""
        self._too_large: set[object] = set()

    def _rank(self, gang: Gang) -> tuple[int, float, bool, float, str]:
        return (-gang.priority, -self._promises[gang.name], not gang.placement, gang.arrived, gang.name)

    def make(self) -> None:
        """Let everybody claim in the order of rank; those that wait and promise alike so that they fill what is left best."""
        for _, alike in groupby(self.ranked, key=lambda gang: (bool(gang.placement), gang.priority, self._promises[gang.name])):
            for gang in fill(list(alike), self._count):
                self._claim(gang)
        guests = sorted((gang for gang in self.displaced if gang.name not in self._bundles), key=self._rank)
        self.ranked += guests
        for gang in guests:  # packed gangs lose their GPUs together, and find others each for itself
            self._seek(gang)

    def _claim(self, gang: Gang) -> None:
        """Let the gang keep what it has, find it something, or note that it loses its GPUs."""
        own = self._below.pop(gang.name, None)
        if own is not None and own == self.board.spots(gang):
            self._count -= gang.held
            return
        if own is not None:
            self._displace(self._bundles[gang.name])
            self._give(own)
        self._seek(gang)

    def _seek(self, gang: Gang) -> None:
        """Find the gang a place, or keep its queue's quota for it."""
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
        found = find(gang, self._room) or self._over_fewest(gang)
        if found is None:
            self._too_large.add(shape)
            return False
        self.placements[gang.name] = found
        self._count -= sum(place.gpus.bit_count() for place in found)
        for node, gpus in gpus_by_node(found).items():
            self._room.set(node, self._room.free[node] & ~gpus)
            for name in self.board.residents.get(node, ()):
                if node in self._below.get(name, ()):
                    self._below[name][node] &= ~gpus
        self.quotas.add(gang.queue, sum(place.gpus.bit_count() for place in found))
        return True

    def _over_fewest(self, gang: Gang) -> Placement | None:
        """A place on the spare GPUs and those of as few gangs as will do, the last in rank first."""
        below = list(self._below.values())
        best: Placement | None = None
        too_few, enough = 0, 1
        while best is None and too_few < len(below):
            enough = min(enough, len(below))
            best = self._over(gang, below[:enough])
            too_few, enough = (too_few, enough) if best else (enough, 2 * enough)
        while best and enough - too_few > 1:
            middle = (too_few + enough) // 2
            found = self._over(gang, below[:middle])
            best, too_few, enough = (found, too_few, middle) if found else (best, middle, enough)
        self._lend(())
        return best

    def _over(self, gang: Gang, victims: Sequence[Spots]) -> Placement | None:
        self._lend(victims)
        return find(gang, self._room)

    def _lend(self, victims: Sequence[Spots]) -> None:
        """Let the room have the GPUs of these gangs, which are the last in rank, and of no others."""
        for spots in victims[len(self._lent) :]:
            self._lent.append([(node, self._room.free[node]) for node in spots])
            self._give(spots)
        while len(self._lent) > len(victims):
            for node, free in self._lent.pop():
                self._room.set(node, free)

    def _give(self, spots: Spots) -> None:
        for node, gpus in spots.items():
            self._room.set(node, self._room.free[node] | gpus)


def _running(board: Board) -> dict[str, Gang]:
    return {gang.name: gang for gang in board.gangs.values() if gang.placement and gang.running and gang.sharing.slices}


def _claimants(board: Board) -> list[Gang]:
    """The gangs that wait and may claim GPUs: those that `may_claim`, and those whose start was left to their rank."""
    preempting = {decision.gang.name for decision in board.decisions if isinstance(decision, Preempt)}
    waiting = [gang for gang in board.gangs.values() if not gang.placement and gang.name not in preempting]
    return [g for g in waiting if (may_claim(board.waits[g.name]) if g.name in board.waits else g.sharing.slices)]
