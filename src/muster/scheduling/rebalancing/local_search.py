"""Local search: running gangs go where the GPUs make most of them, alone or two on the same GPUs.

The use of GPUs is the sum over gangs of their GPUs times their relative rate, so 1 is one GPU at full speed. A local search
raises it by three changes: a gang goes to idle GPUs, joins another on its GPUs, or two gangs change places. Each gang that
moves has to gain `LEAST_GAIN`, and its gain has to make up for what moving costs it. What a change gains has to follow from
measured rates alone: no running gang is moved on a prior.

The three are Gavel's (OSDI'20) in small: that solves a linear program over all gangs and pairs; from a good start, which the
last pass left, single changes come as far. A set of GPUs changes once in a pass. Only gangs of one priority share GPUs or
change places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from muster.scheduling.decisions import Migrate, Pack, Place, Reason, Requeue
from muster.scheduling.gang import Effect, Gang, Placement, Sensitivity, gpus_by_node
from muster.scheduling.naming import named
from muster.scheduling.packing.packing import can_pack
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster.scheduling.rebalancing.cost import LEAST_GAIN, move_seconds, pays
from muster.scheduling.rebalancing.swap import Change, Site, SwapTable, sites
from muster.scheduling.session import GpusByNode, Session
from muster.scheduling.speed.shapes import shape, shape_of

MOST_PAIRS = 20_000
"""Pairs of sites that a pass weighs, those that lose most first; sites that are alike count once."""
MOST_MOVES = 100
"""Sites for whose gangs a pass looks for idle GPUs, those that lose most first."""
UNIT = "GPUs at full speed"


class _Move(NamedTuple):
    """A gang goes to a site, which another leaves."""

    gang: Gang
    to: Site
    leaves: Gang | None


def improve(session: Session) -> None:
    """Move gangs so that the GPUs make more of them: to idle ones, then among each other."""
    if not session.can(Migrate) or session.cache.settled:
        return
    decided = {decision.gang.name for decision in session.decisions}
    found = sorted(sites(session, decided, can_pack(session)), key=lambda site: (-site.loss, site.name))
    done: list[bool] = []
    if session.capacity.total:
        slowed = [site for site in found if site.loss >= LEAST_GAIN]
        done += [_move_to_idle(session, site) for site in slowed[:MOST_MOVES]]
    if session.can(Requeue, Place):
        moved = {decision.gang.name for decision in session.decisions}
        unmoved = [site for site in found if moved.isdisjoint(gang.name for gang in site.gangs)]
        changes = _changes(session.rates.kept(SwapTable), unmoved)
        done += [_carry_out(session, one, other, change) for one, other, change in changes]
    if all(done) and not session.decisions:
        session.cache.settled = True


# To idle GPUs


def _move_to_idle(session: Session, site: Site) -> bool:
    """Move the gang of the site that gains most by it to idle GPUs; False where that would not pay yet."""
    offers = (_offer(session, gang) for gang in site.gangs)
    gang, placement, before, after = max(offers, key=lambda offer: offer[3] - offer[2])
    if after - before < LEAST_GAIN:
        return True
    if not _pays(session, [gang], before, after):
        return False
    effect = Effect(max(0.0, before), after, UNIT)
    message = f"worth {effect.before:.2f} {UNIT}; {after:.2f} expected on idle ones"
    session.apply(Migrate(gang, placement, _reason(session, gang, gpus_by_node(placement)), message, effect))
    return True


def _offer(session: Session, gang: Gang) -> tuple[Gang, Placement, float, float]:
    """Where the gang is fastest, and what it is worth where it is and there."""
    held, placement = gpus_by_node(gang.placement), _fastest(session, gang)
    before = session.rates.worth(gang, held, session.occupancy)
    there = gpus_by_node(placement or ())
    measured = session.rates.is_worth_measured
    if placement is None or there == held or not all(measured(gang, gpus, session.occupancy) for gpus in (held, there)):
        return gang, gang.placement, before, before
    return gang, placement, before, session.rates.worth(gang, there, session.occupancy)


def _fastest(session: Session, gang: Gang) -> Placement | None:
    wanted = replace(gang.as_placed(), sensitivity=Sensitivity.HIGH)
    with session.capacity.trial():
        if not session.is_packed(gang):
            session.capacity.give_back(gang.placement)
        return find(wanted, session.capacity, rate=lambda _, shape: session.rates.relative(gang, shape))


# Among each other


def _changes(table: SwapTable, found: list[Site]) -> Iterator[tuple[Site, Site, Change]]:
    """The changes that gain enough, the best first, each between two sites that no earlier one is about."""
    alike: dict[int, list[Site]] = {}
    for site in found:
        alike.setdefault(site.number, []).append(site)
    weighed = islice(_best_changes(table, [members[0] for members in alike.values()]), MOST_PAIRS)
    gaining = [pair for pair in weighed if pair[2].margin >= 0]
    for one, other, change in sorted(gaining, key=lambda pair: (-pair[2].margin, pair[0].name, pair[1].name)):
        mine, theirs = alike[one.number], alike[other.number]
        while mine and theirs and (mine is not theirs or len(mine) > 1):
            yield mine.pop(0), theirs.pop(0), change


def _best_changes(table: SwapTable, examples: list[Site]) -> Iterator[tuple[Site, Site, Change]]:
    """The best change of every two kinds of sites of as many GPUs, the worst off first; what they lose bounds the gain."""
    by_size: dict[int, list[Site]] = {}
    for site in examples:
        by_size.setdefault(site.shape.gpus, []).append(site)
    for same_size in by_size.values():
        for index, one in enumerate(same_size):
            for other in same_size[index:]:
                if one.loss + other.loss < LEAST_GAIN:
                    break
                yield one, other, table.best(one, other)


def _carry_out(session: Session, one: Site, other: Site, change: Change) -> bool:
    """Decide on a change between two sites; False where it is not possible, or would not pay yet.

    Of two gangs that change places the second is taken off its GPUs first, so that the first can go there.
    """
    goes = one.gangs[change.goes] if change.goes is not None else None
    comes = other.gangs[change.comes] if change.comes is not None else None
    moves = [_Move(gang, to, back) for gang, to, back in ((comes, one, goes), (goes, other, comes)) if gang]
    placements = [_placement_on(session, move) for move in moves]
    before = (one.worth or 0.0) + (other.worth or 0.0)
    effect = Effect(before, before + change.gain, UNIT)
    if not all(placements) or not _pays(session, [move.gang for move in moves], effect.before, effect.after):
        return False
    for move in moves[1:]:
        message = f"changes places with {named(moves[0].gang, move.gang.namespace)}"
        session.apply(Requeue(move.gang, _reason(session, move.gang, move.to.gpus), message))
    for move, placement in zip(moves, placements, strict=True):
        _place(session, move, placement, effect)
    return True


def _place(session: Session, move: _Move, placement: Placement, effect: Effect) -> None:
    """Let a gang go on at a site, alone or packed with the gang that stays there."""
    gang, host = move.gang, next((gang for gang in move.to.gangs if gang is not move.leaves), None)
    told = f"{effect.before:.2f} {UNIT}; {effect.after:.2f} expected"
    if host is None:
        verb = Migrate if session.gangs[gang.name].placement else Place
        session.apply(verb(gang, placement, _reason(session, gang, move.to.gpus), told, effect))
        return
    if session.gangs[gang.name].placement:
        session.apply(Requeue(gang, Reason.PACKED, f"goes onto the GPUs of {named(host, gang.namespace)}"))
    onto = session.gangs[host.name].packed or host.name
    session.apply(Pack(gang, placement, Reason.PACKED, f"with {named(host, gang.namespace)}: {told}", effect, onto))


def _placement_on(session: Session, move: _Move) -> Placement:
    """The gang on exactly the site's GPUs, once the one that leaves has gone; empty where it may not or does not fit."""
    resources = {name: session.capacity.resources(name) for name in move.to.gpus}
    for gone in move.leaves.placement if move.leaves else ():
        if gone.node in resources:
            resources[gone.node] = resources[gone.node] + gone.task.resources
    nodes = {
        name: replace(session.nodes[name], free=gpus, resources=resources[name], parts=())
        for name, gpus in move.to.gpus.items()
    }
    placement = find(move.gang.as_placed(), FreeCapacity(nodes))
    return placement if placement and gpus_by_node(placement) == move.to.gpus else ()


def _pays(session: Session, gangs: list[Gang], before: float, after: float) -> bool:
    """Whether it does for the gangs that move, each of which is taken to run as long again as it has.

    Where neighbours would lose as much as the gangs are worth, no move pays.
    """
    cost = max(move_seconds(session.rates, gang) for gang in gangs)
    ran = min(session.now - gang.started for gang in gangs)
    return after > 0 and pays(after / max(before, 1e-9), ran, cost)


def _reason(session: Session, gang: Gang, gpus: GpusByNode) -> Reason:
    before, after = shape(gang.placement, session.nodes), shape_of(gpus, session.nodes)
    if before.model != after.model:
        return Reason.FASTER_GPUS
    return Reason.INTERFERENCE if before == after else Reason.LOCALITY
