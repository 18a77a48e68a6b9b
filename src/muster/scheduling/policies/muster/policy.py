"""muster's own policy: who promises to end soonest goes first, though nobody knows how long anything will run.

A gang's promise is its Gittins index, from how long the gangs that ended lately ran (`prospects`): with nothing known yet, or
with the heavy tail of most clusters, that is least attained service; where jobs take about as long, first come, first served.
A gang that runs is only suspended for one that promises twice as much, and one that has waited much longer than it ever ran
comes first again: nobody is moved to and fro, and nobody starves. Of gangs that are there for more than a day it counts what
they ran a day: the longest take turns instead of being left to the end, on a cluster that empties around them. Those that
promise alike start so that they fill the GPUs best (`mechanisms.filling`). Elastic gangs rank for the fewest workers that they
can run with, and share what nobody claims by what they make of it (`mechanisms.shares`).

A pass ranks the gangs, lets each claim GPUs in that order (its own if it runs, idle ones, those of gangs ranked below it), and
decides only what changes. What still waits may be packed onto GPUs where it is known to gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from math import inf
from operator import attrgetter, itemgetter

from muster.scheduling.admission.queueing import Quotas
from muster.scheduling.decisions import Migrate, Move, Pack, Place, Preempt, Reason, Resize, Wait
from muster.scheduling.elastic import shares
from muster.scheduling.elastic.reclaim import reclaim
from muster.scheduling.gang import Gang, Placement
from muster.scheduling.packing import packing
from muster.scheduling.placing.placement import fit_key
from muster.scheduling.policies.gandiva.turns import bundled
from muster.scheduling.policies.muster.transition import carry_out
from muster.scheduling.rebalancing import local_search
from muster.scheduling.rebalancing.swap import LEAST
from muster.scheduling.session import Session, Spots
from muster.scheduling.settings import Settings
from muster.scheduling.speed.occupancy import gpus_by_node, gpus_of, shape
from muster.scheduling.time_sharing.gittins import GittinsIndex
from muster.scheduling.time_sharing.knapsack import fill
from muster.scheduling.time_sharing.rank import Rank, RankKey
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.node import Level

HOLD = 2.0
"""What a gang that runs promises counts this many times."""


def react(session: Session, settings: Settings) -> None:
    """Share the GPUs anew where somebody waits who could go before others."""
    if any(True for _ in _claimants(session)) or shares.sharing(session):
        share(session, settings)


def introspect(session: Session, settings: Settings) -> None:
    """Judge what was packed, repair placements, share the GPUs anew."""
    packing.judge(session)
    if Migrate in settings.verbs:
        local_search.improve(session, packing=Pack in settings.verbs)
    react(session, settings)


def may_claim(wait: Wait) -> bool:
    """Say whether a gang that admission leaves waiting may claim GPUs of others: one that shares, or the first in its turn."""
    gang, reason = wait.gang, wait.reason
    if reason is Reason.BEHIND_IN_QUEUE:
        return gang.sharing.slices and not gang.placement
    return reason in (Reason.INSUFFICIENT_GPUS, Reason.QUOTA_EXHAUSTED) and not gang.placement


def leaves_to_rank(decision: Place | Move | Resize | Preempt) -> bool:
    """Say whether a gang that admission would start claims its GPUs by rank instead, since others claim too."""
    return isinstance(decision, Place) and decision.gang.sharing.slices and not decision.gang.placement


def share(session: Session, settings: Settings) -> None:
    """Let each gang claim GPUs in the order of its rank, and decide what changes."""
    elastic = shares.sharing(session)
    least = session.supposing(shares.least(gang, session.now) for gang in elastic.values()) if elastic else session
    claims = _Claims(least, settings)
    claims.make()
    for gang in claims.displaced:
        if gang.name not in elastic or gang.name not in claims.placements:
            session.requeue(gang, Reason.PREEMPTED, "others have had less")
    rigid = {name: found for name, found in claims.placements.items() if name not in elastic}
    kept = {name: least.gangs[name].placement for name in elastic if session.gangs[name].placement}
    at_least = kept | {name: found for name, found in claims.placements.items() if name in elastic}
    targets = rigid | shares.divide(session, at_least, rigid, claims.quotas)
    carry_out(session, reclaim(session, targets, claims.losers(), claims.quotas) if elastic else targets)
    if Pack in settings.verbs:
        packing.offer(session, [session.gangs[gang.name] for gang in claims.packs() if not session.gangs[gang.name].placement])


def promise(gittins_index: GittinsIndex, standing: RankKey) -> float:
    """What running the gang now promises: ends per second, the more the sooner it should run.

    A gang that runs is only suspended for one that promises twice as much, so that nobody is moved to and fro.
    """
    if not standing.waits:
        return HOLD * gittins_index.index(standing.age)
    return inf if standing.starved else gittins_index.index(standing.age)


_Rank = tuple[int, float, bool]
"""Priority and promise, the highest first, and whether it waits; of those that rank alike the one that came first."""


class _Claims:
    """Who gets which GPUs, worked out in the order of rank before anything is decided."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.session = session
        self.quotas = Quotas(session.queues, session.gangs.values())
        self.placements: dict[str, Placement] = {}
        """Gangs that start, or go on elsewhere, in the order in which they claimed."""
        self.displaced: list[Gang] = []
        running = _running(session)
        self._ranks_by_name = session.ranks.of((*running.values(), *_claimants(session)), session.now, settings.slice_seconds)
        packed = [sorted(bundle, key=self._turn) for bundle in bundled(_sharing_gpus(running)) if len(bundle) > 1]
        self._bundles = {bundle[0].name: bundle for bundle in packed}
        """Gangs that are packed rank as the first of them does."""
        self._guests = {gang.name for bundle in packed for gang in bundle[1:]}
        self._ranks = self._by_rank()
        hosts = [one for (_, _, waits), alike in self._ranks if not waits for one in alike]
        self._below = {one.gang.name: one.gang for one in reversed(hosts)}
        """Gangs that run and whose turn to claim has not come, the last in rank first."""
        self._cut: dict[str, Spots] = {}
        """What gangs below have left, where others claimed some of their GPUs."""
        self._room = session.capacity.copy()
        """GPUs that are idle or were given up, and nobody has claimed since."""
        for name in list(self._room.parts):
            self._room.set(name, self._room.free[name], parts=())
        self._lent: list[list[tuple[str, GpuSet]]] = []
        """For each gang below whose GPUs are lent to the room, the last in rank first, what was free of its nodes before."""
        self._count = self._room.total + sum(one.held for one in hosts)
        """GPUs that nobody has claimed yet."""
        self._too_large: set[object] = set()

    def _by_rank(self) -> list[tuple[_Rank, list[Rank]]]:
        """Those that claim, by rank; those that run by turn within it."""
        found: dict[RankKey, list[Rank]] = {}
        for name, one in self._ranks_by_name.items():
            if name not in self._guests:
                found.setdefault(one.alike, []).append(one)
        ranks: dict[_Rank, list[Rank]] = {}
        for alike, members in found.items():
            ranks.setdefault(self._rank(alike), []).extend(members)
        return [(rank, members if rank[2] else _by_turn(members)) for rank, members in sorted(ranks.items(), key=itemgetter(0))]

    def _rank(self, alike: RankKey) -> _Rank:
        return (-alike.priority, -promise(self.session.gittins_index, alike), alike.waits)

    def _turn(self, gang: Gang) -> tuple[_Rank, float, str]:
        return (self._rank(self._ranks_by_name[gang.name].alike), gang.arrived, gang.name)

    def losers(self) -> list[tuple[str, int]]:
        """The gangs that have no place in the end, each with the GPUs with which it can start, in the order of rank."""
        waiting = (one for (_, _, waits), alike in self._ranks if waits for one in _by_turn(alike))
        displaced = (self._ranks_by_name[gang.name] for gang in self.displaced)
        return [(one.gang.name, one.fewest) for one in chain(displaced, waiting) if one.gang.name not in self.placements]

    def packs(self) -> list[Gang]:
        """The gangs that let themselves be packed, in the order of rank."""
        return sorted((one.gang for one in self._ranks_by_name.values() if one.gang.sharing.packs), key=self._turn)

    def make(self) -> None:
        """Let everybody claim in the order of rank; those that wait and promise alike so that they fill what is left best."""
        for (_, _, waits), alike in self._ranks:
            if waits:
                self._start(alike)
            else:
                for one in alike:
                    self._go_on(one)
        for gang in sorted((gang for gang in self.displaced if gang.name in self._guests), key=self._turn):
            self._seek(gang)  # packed gangs lose their GPUs together, and find others each for itself

    def _start(self, alike: Sequence[Rank]) -> None:
        """Find gangs that wait a place; there is no looking where they need more than anybody could still give them."""
        if not self._count and not self.quotas.limited:
            return
        able = [one for one in alike if one.fewest <= self._count]
        unable = [one for one in alike if one.fewest > self._count] if self.quotas.limited else []
        for gang in fill([one.gang for one in _by_turn(able)], self._count):
            self._seek(gang)
        for one in unable:
            self.quotas.keep(one.gang.queue, one.fewest)

    def _go_on(self, one: Rank) -> None:
        """Let a gang keep what it has, or note that it loses its GPUs and find it others."""
        gang = self._below.pop(one.gang.name)
        left = self._cut.get(gang.name)
        if left is None:
            self._count -= one.held
            return
        bundle = self._bundles.get(gang.name, [gang])
        self.displaced += bundle
        for member in bundle:
            self.quotas.add(member.queue, -member.held)
        self._give(left)
        self._seek(gang)

    def _seek(self, gang: Gang) -> None:
        """Find the gang a place, or keep its queue's quota for it."""
        least = self._ranks_by_name[gang.name].fewest
        allowed = self.quotas.within(gang) if least <= self._count else None
        if allowed is None or not self._find(allowed):
            self.quotas.keep(gang.queue, least)

    def _find(self, gang: Gang) -> bool:
        if fit_key(gang) in self._too_large:
            return False
        found = self._choose(gang)
        if found is None:
            self._too_large.add(fit_key(gang))
            return False
        self.placements[gang.name] = found
        self._count -= gpus_of(found)
        for node, gpus in gpus_by_node(found).items():
            self._room.set(node, self._room.free[node] & ~gpus)
            for name, held in self.session.residents.get(node, {}).items():
                if held & gpus and name in self._below:
                    self._cut.setdefault(name, self.session.spots(self._below[name]))[node] &= ~gpus
        self.quotas.add(gang.queue, gpus_of(found))
        return True

    def _choose(self, gang: Gang) -> Placement | None:
        """A place on spare GPUs, else over others; over others on one node where the gang makes so much more of its GPUs."""
        found = self.session.find(gang, self._room) or self._over_fewest(gang)
        if found is None or len(gpus_by_node(found)) == 1 or gang.spread or gang.gpus > self.session.largest:
            return found
        together = self._over_fewest(replace(gang, required=Level.NODE))
        return together if together and self._relative(gang, together) > self._relative(gang, found) + LEAST else found

    def _relative(self, gang: Gang, placement: Placement) -> float:
        return self.session.rates.relative(gang, shape(placement, self.session.nodes))

    def _over_fewest(self, gang: Gang) -> Placement | None:
        """A place on the spare GPUs and those of as few gangs as will do, the last in rank first."""
        below = [self._cut.get(name) or self.session.spots(gang) for name, gang in self._below.items()]
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
        return self.session.find(gang, self._room)

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


def _running(session: Session) -> dict[str, Gang]:
    return {gang.name: gang for gang in session.gangs.values() if gang.placement and gang.running and gang.sharing.slices}


def _sharing_gpus(running: Mapping[str, Gang]) -> dict[str, Gang]:
    """Those that are packed, and those onto which others are."""
    packed = [gang for gang in running.values() if gang.packed]
    return {gang.name: gang for gang in (*packed, *(running[one.packed] for one in packed if one.packed in running))}


def _claimants(session: Session) -> Iterator[Gang]:
    """The gangs that wait and may claim GPUs: those that `may_claim`, and those whose start was left to their rank."""
    gangs, waits = session.gangs, session.waits
    for name, wait in waits.items():
        if may_claim(wait):
            yield gangs[name]
    preempting = {decision.gang.name for decision in session.decisions if isinstance(decision, Preempt)}
    for name, gang in gangs.items():
        if not gang.placement and name not in waits and gang.sharing.slices and name not in preempting:
            yield gang


def _by_turn(alike: Iterable[Rank]) -> list[Rank]:
    return sorted(alike, key=attrgetter("gang.arrived", "gang.name"))
