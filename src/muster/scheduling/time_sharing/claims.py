"""Claims: which gangs get which GPUs, worked out in the order of rank before anything is decided.

Each gang claims its own GPUs if it runs, else idle ones, else those of as few gangs ranked below it as will do, the last in
rank first. A gang whose GPUs were claimed seeks others when its own turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter, itemgetter

from muster.scheduling.decisions import Move, Preempt, Reason, Requeue, Resize, Wait
from muster.scheduling.gang import Gang, Placement, gpus_by_node, gpus_of
from muster.scheduling.packing.bundles import bundled
from muster.scheduling.placing.placement import fit_key
from muster.scheduling.rebalancing.cost import LEAST_GAIN
from muster.scheduling.session import GpusByNode, Session
from muster.scheduling.speed.shapes import shape
from muster.scheduling.time_sharing.gittins import GittinsIndex
from muster.scheduling.time_sharing.knapsack import starting_order
from muster.scheduling.time_sharing.rank import Rank, RankKey, RankOrder, Ranks, held_back
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.node import Level


def may_claim(wait: Wait) -> bool:
    """Say whether a gang that admission leaves waiting may claim GPUs of others: one that shares, or the first in its turn."""
    gang, reason = wait.gang, wait.reason
    if reason is Reason.BEHIND_IN_QUEUE:
        return gang.sharing.slices and not gang.placement
    return reason in (Reason.INSUFFICIENT_GPUS, Reason.QUOTA_EXHAUSTED) and not gang.placement


def claimants(session: Session) -> Iterator[Gang]:
    """Return the gangs that wait and may claim GPUs: those that `may_claim`, and those whose start was left to their rank."""
    gangs, waits = session.gangs, session.waits
    for name, wait in waits.items():
        if may_claim(wait):
            yield gangs[name]
    preempting = {decision.gang.name for decision in session.decisions if isinstance(decision, Preempt)}
    for name, gang in gangs.items():
        if not gang.placement and name not in waits and gang.sharing.slices and name not in preempting:
            yield gang


class Claims:
    """The outcome of the claims; made within a trial of the session, whose capacity it uses up."""

    def __init__(self, session: Session) -> None:
        self.placements: dict[str, Placement] = {}
        """Gangs that start, or go on elsewhere, in the order in which they claimed."""
        self.displaced: list[Gang] = []
        self.quotas = session.quotas.copy()
        self._session, self._capacity = session, session.capacity
        running = _running(session)
        everyone = (*running.values(), *claimants(session))
        self._ranks = session.cache.kept(Ranks).of(everyone, session.now, session.settings.slice_seconds)
        self._gittins = GittinsIndex(session.ended)
        claims_first = any(rank.gang.local_priority for rank in self._ranks.values())
        self._held_back = held_back(self._ranks.values(), self._gittins) if claims_first else {}
        packed = [sorted(bundle, key=self._turn) for bundle in bundled(_sharing_gpus(running)) if len(bundle) > 1]
        self._bundles = {bundle[0].name: bundle for bundle in packed}
        """Gangs that are packed rank as the first of them does."""
        self._guests = {gang.name for bundle in packed for gang in bundle[1:]}
        self._order = self._in_order()
        hosts = [rank for (*_, waits), equals in self._order if not waits for rank in equals]
        self._below = {rank.gang.name: rank.gang for rank in reversed(hosts)} if session.can(Requeue) else {}
        """Gangs that run and whose turn to claim has not come, the last in rank first."""
        self._left: dict[str, GpusByNode] = {}
        """What gangs below have left, where others claimed some of their GPUs."""
        self._lent: list[list[tuple[str, GpuSet]]] = []
        """For each gang below whose GPUs count as free for now, the last in rank first, what was free of its nodes before."""
        for name in list(self._capacity.parts):
            self._capacity.set(name, self._capacity.free[name], parts=())
        self._unclaimed = self._capacity.total + sum(rank.held for rank in hosts)
        """GPUs that nobody has claimed yet."""
        self._too_large: set[object] = set()
        self._make()

    def losers(self) -> list[tuple[str, int]]:
        """Return the gangs without a placement in the end, each with the GPUs with which it can start, in the order of rank."""
        waiting = (rank for (*_, waits), equals in self._order if waits for rank in _by_arrival(equals))
        displaced = (self._ranks[gang.name] for gang in self.displaced)
        ranks = chain(displaced, waiting)
        return [(rank.gang.name, rank.fewest) for rank in ranks if rank.gang.name not in self.placements]

    def packable(self) -> list[Gang]:
        """Return the gangs that may be packed, in the order of rank."""
        return sorted((rank.gang for rank in self._ranks.values() if rank.gang.sharing.packs), key=self._turn)

    def _in_order(self) -> list[tuple[RankOrder, list[Rank]]]:
        """The gangs that claim, by rank; running ones by arrival within it."""
        by_key: dict[RankKey, list[Rank]] = {}
        by_order: dict[RankOrder, list[Rank]] = {}
        for name, rank in self._ranks.items():
            if name in self._held_back and name not in self._guests:
                by_order.setdefault(self._held_back[name], []).append(rank)
            elif name not in self._guests:
                by_key.setdefault(rank.key, []).append(rank)
        for key, equals in by_key.items():
            by_order.setdefault(key.order(self._gittins), []).extend(equals)
        ordered = sorted(by_order.items(), key=itemgetter(0))
        return [(order, equals if order[-1] else _by_arrival(equals)) for order, equals in ordered]

    def _turn(self, gang: Gang) -> tuple[RankOrder, float, str]:
        order = self._held_back.get(gang.name) or self._ranks[gang.name].key.order(self._gittins)
        return (order, gang.arrived, gang.name)

    def _make(self) -> None:
        """Let every gang claim, in the order of rank."""
        for (*_, waits), equals in self._order:
            if waits:
                self._start(equals)
            else:
                for rank in equals:
                    self._go_on(rank)
        for gang in sorted((gang for gang in self.displaced if gang.name in self._guests), key=self._turn):
            self._seek(gang)  # packed gangs lose their GPUs together, and find others each for itself

    def _start(self, equals: Sequence[Rank]) -> None:
        """Find placements for waiting gangs; no search where they need more than could still come free."""
        if not self._unclaimed and not self.quotas.limits:
            return
        able = [rank for rank in equals if rank.fewest <= self._unclaimed]
        unable = [rank for rank in equals if rank.fewest > self._unclaimed] if self.quotas.limits else []
        for gang in starting_order([rank.gang for rank in _by_arrival(able)], self._unclaimed):
            self._seek(gang)
        for rank in unable:
            self._reserve(rank.gang, rank.fewest)

    def _go_on(self, rank: Rank) -> None:
        """Let a running gang keep what it has, or note that it loses its GPUs and find it others."""
        gang = rank.gang
        self._below.pop(gang.name, None)
        left = self._left.get(gang.name)
        if left is None:
            self._unclaimed -= rank.held
            return
        bundle = self._bundles.get(gang.name, [gang])
        self.displaced += bundle
        for member in bundle:
            self.quotas.add(member.queue, -member.held)
        self._add(left)
        self._seek(gang)

    def _seek(self, gang: Gang) -> None:
        """Find the gang a placement, or reserve its queue's quota for it."""
        fewest = self._ranks[gang.name].fewest
        allowed = self.quotas.within(gang) if fewest <= self._unclaimed else None
        if allowed is None or not self._claim(allowed):
            self._reserve(gang, fewest)

    def _reserve(self, gang: Gang, gpus: int) -> None:
        """Reserve quota for a gang that finds no GPUs; none for one whose last start failed."""
        if not gang.start_failed:
            self.quotas.reserve(gang.queue, gpus)

    def _claim(self, gang: Gang) -> bool:
        key = fit_key(gang), self._capacity.residents.rules and tuple([task.relations for task in gang.tasks])
        if key in self._too_large:
            return False
        placement = self._choose(gang)
        if placement is None:
            self._too_large.add(key)
            return False
        self.placements[gang.name] = placement
        self._unclaimed -= gpus_of(placement)
        self._capacity.residents.put(placement, 1)
        for node, gpus in gpus_by_node(placement).items():
            self._capacity.set(node, self._capacity.free[node] & ~gpus)
            for name, (_, held) in self._session.occupancy.residents(node).items():
                if held & gpus and name in self._below:
                    self._left.setdefault(name, gpus_by_node(self._below[name].placement))[node] &= ~gpus
        self.quotas.place(replace(gang, placement=()), placement)
        return True

    def _choose(self, gang: Gang) -> Placement | None:
        """A placement on unclaimed GPUs, else over gangs below; over these on one node where that makes the gang faster."""
        placement = self._session.find(gang) or self._over_fewest(gang)
        spread_out = placement is not None and len(gpus_by_node(placement)) > 1
        if placement is None or not spread_out or gang.spread or gang.gpus > self._session.largest:
            return placement
        together = self._over_fewest(replace(gang, required=Level.NODE))
        return together if together and self._is_faster(gang, together, placement) else placement

    def _is_faster(self, gang: Gang, one: Placement, other: Placement) -> bool:
        rates, nodes = self._session.rates, self._session.nodes
        return rates.relative(gang, shape(one, nodes)) > rates.relative(gang, shape(other, nodes)) + LEAST_GAIN

    # Over gangs that rank below

    def _over_fewest(self, gang: Gang) -> Placement | None:
        """A placement on unclaimed GPUs and those of as few gangs below as will do, the last in rank first; by bisection.

        A gang whose last start failed takes none of others, not in turn either: it may fail again.
        """
        below = [
            self._left.get(name) or gpus_by_node(other.placement)
            for name, other in self._below.items()
            if not gang.start_failed and (gang.preempts or other.priority == gang.priority)
        ]
        best: Placement | None = None
        too_few, enough = 0, 1
        while best is None and too_few < len(below):
            enough = min(enough, len(below))
            best = self._over(gang, below[:enough])
            too_few, enough = (too_few, enough) if best else (enough, 2 * enough)
        while best and enough - too_few > 1:
            middle = (too_few + enough) // 2
            placement = self._over(gang, below[:middle])
            best, too_few, enough = (placement, too_few, middle) if placement else (best, middle, enough)
        self._lend(())
        return best

    def _over(self, gang: Gang, victims: Sequence[GpusByNode]) -> Placement | None:
        self._lend(victims)
        return self._session.find(gang)

    def _lend(self, victims: Sequence[GpusByNode]) -> None:
        """Let the capacity have the GPUs of these gangs, which are the last in rank, and of no others."""
        for gpus in victims[len(self._lent) :]:
            self._lent.append([(node, self._capacity.free[node]) for node in gpus])
            self._add(gpus)
        while len(self._lent) > len(victims):
            for node, free in self._lent.pop():
                self._capacity.set(node, free)

    def _add(self, gpus: GpusByNode) -> None:
        for node, held in gpus.items():
            self._capacity.set(node, self._capacity.free[node] | (held & self._session.nodes[node].healthy))


def _running(session: Session) -> dict[str, Gang]:
    """The running gangs that share, but for those that are restarted in this pass anyway."""
    restarted = {decision.gang.name for decision in session.decisions if isinstance(decision, Move | Resize)}
    sharing = (gang for gang in session.gangs.values() if gang.placement and gang.running and gang.sharing.slices)
    return {gang.name: gang for gang in sharing if gang.name not in restarted}


def _sharing_gpus(running: Mapping[str, Gang]) -> dict[str, Gang]:
    """The gangs that are packed, and those onto which others are."""
    packed = [gang for gang in running.values() if gang.packed]
    return {gang.name: gang for gang in (*packed, *(running[gang.packed] for gang in packed if gang.packed in running))}


def _by_arrival(equals: Iterable[Rank]) -> list[Rank]:
    return sorted(equals, key=attrgetter("gang.arrived", "gang.name"))
