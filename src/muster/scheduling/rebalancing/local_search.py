"""Usage: gangs that run go where the GPUs make most of them, alone or two on the same GPUs.

What GPUs are used for is the sum over gangs of their GPUs times their relative rate, so 1 is one GPU at full speed. A local
search raises it by three changes: a gang goes to idle GPUs, joins another on its GPUs, or two gangs change places. Each gang
that moves has to bring `LEAST`, and its gain has to make up for what moving costs. What was never measured is tried where its
prior promises enough; once measured, the next pass sees what it is worth, and moves on.

The three are Gavel's (OSDI'20) in small: that solves a linear program over all gangs and pairs; from a good start, which the
last pass left, single changes come as far. A set of GPUs changes once in a pass. Only gangs of one priority share GPUs or
change places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from muster.scheduling.decisions import Migrate, Pack, Place, Reason
from muster.scheduling.gang import Effect, Gang, Placement, Sensitivity
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.policies.gandiva.migration import COST_SECONDS, pays
from muster.scheduling.rebalancing.sites import found_on
from muster.scheduling.rebalancing.swap import LEAST, Change, Site, Table
from muster.scheduling.session import Session, Spots
from muster.scheduling.speed.occupancy import gpus_by_node, shape, shape_of

LOOKS = 20_000
"""Pairs of sites that a pass looks at, those that lose most first; sites that are alike count once."""
MOVES = 100
"""Sites for whose gangs a pass looks for idle GPUs, those that lose most first."""
UNIT = "GPUs at full speed"


class _Move(NamedTuple):
    """A gang goes to a site, which another leaves."""

    gang: Gang
    to: Site
    leaves: Gang | None


def improve(session: Session, *, packing: bool = True) -> None:
    """Move gangs so that the GPUs make more of them: to idle ones, then among each other; two on one only if `packing`."""
    table = session.rates.kept(Table)
    if table.settled(session.gangs.values(), session.nodes.values()):
        return
    decided = {decision.gang.name for decision in session.decisions}
    sites = sorted(found_on(session, decided, packing), key=lambda site: (-site.loss, site.name))
    slowed = [site for site in sites if site.loss >= LEAST] if session.capacity.total else []
    done = [_to_idle(session, site) for site in slowed[:MOVES]]
    moved = {decision.gang.name for decision in session.decisions}
    rest = [site for site in sites if moved.isdisjoint(gang.name for gang in site.gangs)]
    done += [_carry_out(session, *found) for found in _changes(table, rest)]
    if all(done) and not session.decisions:
        table.settle(session.gangs.values(), session.nodes.values())


# To idle GPUs


def _to_idle(session: Session, site: Site) -> bool:
    """Move the gang of the site that gains most by it to idle GPUs (or its own); False if that would not pay yet."""
    gang, found, before, after = max((_offer(session, gang) for gang in site.gangs), key=lambda offer: offer[3] - offer[2])
    if after - before < LEAST:
        return True
    if not _pays(session, [gang], before, after):
        return False
    effect = Effect(max(0.0, before), after, UNIT)
    message = f"worth {effect.before:.2f} {UNIT}; {after:.2f} expected on idle ones"
    session.put(Migrate(gang, found, _reason(session, gang, gpus_by_node(found)), message, effect))
    return True


def _offer(session: Session, gang: Gang) -> tuple[Gang, Placement, float, float]:
    """Where the gang is fastest, and what it is worth where it is and there."""
    found = _fastest(session, gang)
    before = session.rates.worth(gang, session.spots(gang), session.running)
    if found is None or gpus_by_node(found) == session.spots(gang):
        return gang, gang.placement, before, before
    return gang, found, before, session.rates.worth(gang, gpus_by_node(found), session.running)


def _fastest(session: Session, gang: Gang) -> Placement | None:
    alone = not session.is_packed(gang)
    if alone:
        session.capacity.give_back(gang.placement)
    wanted = replace(_as_placed(gang), sensitivity=Sensitivity.HIGH)
    found = place(wanted, session.capacity, rate=lambda _, shape: session.rates.relative(gang, shape))
    if alone:
        session.capacity.take(gang.placement)
    return None if isinstance(found, Shortage) else found


# Among each other


def _changes(table: Table, sites: list[Site]) -> Iterator[tuple[Site, Site, Change]]:
    """The changes that gain enough, the best first, each between two sites that no earlier one is about."""
    alike: dict[int, list[Site]] = {}
    for site in sites:
        alike.setdefault(site.sort, []).append(site)
    looked_at = islice(_gains(table, [members[0] for members in alike.values()]), LOOKS)
    found = sorted((one for one in looked_at if one[2].gain >= 0), key=lambda f: (-f[2].gain, f[0].name, f[1].name))
    for one, other, change in found:
        mine, theirs = alike[one.sort], alike[other.sort]
        while mine and theirs and (mine is not theirs or len(mine) > 1):
            yield mine.pop(0), theirs.pop(0), change


def _gains(table: Table, sorts: list[Site]) -> Iterator[tuple[Site, Site, Change]]:
    """The best change of every two sorts of sites of as many GPUs, the worst off first; what they lose bounds the gain."""
    by_size: dict[int, list[Site]] = {}
    for site in sorts:
        by_size.setdefault(site.shape.gpus, []).append(site)
    for sites in by_size.values():
        for index, one in enumerate(sites):
            for other in sites[index:]:
                if one.loss + other.loss < LEAST:
                    break
                yield one, other, table.best(one, other)


def _carry_out(session: Session, one: Site, other: Site, change: Change) -> bool:
    """Decide on a change between two sites; False if it is not possible, or would not pay yet.

    Of two gangs that change places the first is taken off its GPUs, so that the second can go there.
    """
    goes = one.gangs[change.goes] if change.goes is not None else None
    comes = other.gangs[change.comes] if change.comes is not None else None
    moves = [_Move(gang, to, back) for gang, to, back in ((comes, one, goes), (goes, other, comes)) if gang]
    found = [_on(session, move) for move in moves]
    effect = Effect(one.worth + other.worth, one.worth + other.worth + change.total, UNIT)
    if not all(found) or not _pays(session, [move.gang for move in moves], effect.before, effect.after):
        return False
    for move in moves[1:]:
        message = f"changes places with {moves[0].gang.name}"
        session.requeue(move.gang, _reason(session, move.gang, move.to.gpus), message)
    for move, placement in zip(moves, found, strict=True):
        _put(session, move, placement, effect)
    return True


def _put(session: Session, move: _Move, placement: Placement, effect: Effect) -> None:
    """Let a gang go on at a site, alone or beside the one that stays there."""
    gang, stays = move.gang, next((stays for stays in move.to.gangs if stays is not move.leaves), None)
    told = f"{effect.before:.2f} {UNIT}; {effect.after:.2f} expected"
    if stays is None:
        verb = Migrate if session.gangs[gang.name].placement else Place
        session.put(verb(gang, placement, _reason(session, gang, move.to.gpus), told, effect))
        return
    if session.gangs[gang.name].placement:
        session.requeue(gang, Reason.PACKED, f"goes onto the GPUs of {stays.name}")
    message = f"with {stays.name}: {told}"
    session.put(Pack(gang, placement, Reason.PACKED, message, effect, session.gangs[stays.name].packed or stays.name))


def _on(session: Session, move: _Move) -> Placement:
    """The gang on exactly the site's GPUs, once the one that leaves has gone; nothing where it may not or does not fit."""
    rest = {name: session.capacity.resources(name) for name in move.to.gpus}
    for gone in move.leaves.placement if move.leaves else ():
        if gone.node in rest:
            rest[gone.node] = rest[gone.node] + gone.task.resources
    nodes = {
        name: replace(session.nodes[name], free=gpus, resources=rest[name], parts=()) for name, gpus in move.to.gpus.items()
    }
    found = place(_as_placed(move.gang), FreeCapacity(nodes))
    return () if isinstance(found, Shortage) or gpus_by_node(found) != move.to.gpus else found


def _as_placed(gang: Gang) -> Gang:
    """The gang in the size that it has: growing and shrinking are decided elsewhere."""
    return replace(gang, tasks=tuple(one.task for one in gang.placement), fewest=None, asked=None)


def _pays(session: Session, gangs: list[Gang], before: float, after: float) -> bool:
    """Whether it does for the gangs that move, each of which is taken to run as long again as it has.

    Where neighbours would lose as much as the gangs are worth, no move pays.
    """
    costs = [session.rates.profile(gang).migrate_seconds for gang in gangs]
    cost = max(COST_SECONDS if seconds is None else seconds for seconds in costs)
    return after > 0 and pays(after / max(before, 1e-9), min(session.now - gang.started for gang in gangs), cost)


def _reason(session: Session, gang: Gang, gpus: Spots) -> Reason:
    before, after = shape(gang.placement, session.nodes), shape_of(gpus, session.nodes)
    if before.model != after.model:
        return Reason.FASTER_GPUS
    return Reason.INTERFERENCE if before == after else Reason.LOCALITY
