"""Policy muster: gangs that share run in the order of their rank, and change only where a known gain pays for it.

Reactive: rank the gangs, let each claim GPUs in that order (its own if it runs, idle ones, those of gangs ranked below it),
and decide only what changes; rank and claims are `time_sharing`'s. Elastic gangs rank for the fewest workers that they can run
with, and share what no gang claims by what they make of it (`elastic`). What still waits may be packed onto GPUs where it is
known to gain (`packing`).

Introspective: judge what was packed, move gangs to where they are faster (`rebalancing`), then as above.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.scheduling.decisions import Admission, Place, Reason, Requeue, Wait
from muster.scheduling.elastic.reclaim import reclaim
from muster.scheduling.elastic.shares import at_fewest, divide, elastic_gangs
from muster.scheduling.packing import packing
from muster.scheduling.policies.muster.transition import carry_out
from muster.scheduling.rebalancing import local_search
from muster.scheduling.session import Session
from muster.scheduling.time_sharing.claims import Claims, claimants, may_claim


def has_work(session: Session, admitted: Iterable[Admission]) -> bool:
    """Say whether gangs share GPUs anew after this admission: one waits that may claim GPUs, or sizes may change."""
    index = session.index
    if index.elastic:
        return True
    return bool(index.slicing) and any(isinstance(decision, Wait) and may_claim(decision) for decision in admitted)


def leaves_to_rank(decision: Admission) -> bool:
    """Say whether a gang that admission would start claims its GPUs by rank instead, since others claim too."""
    return isinstance(decision, Place) and decision.gang.sharing.slices


def react(session: Session) -> None:
    """Share the GPUs anew where a waiting gang could go before others."""
    if session.can(Place) and (any(True for _ in claimants(session)) or elastic_gangs(session)):
        share(session)


def introspect(session: Session) -> None:
    """Judge what was packed, repair placements, share the GPUs anew."""
    packing.judge(session)
    local_search.improve(session)
    react(session)


def share(session: Session) -> None:
    """Let each gang claim GPUs in the order of its rank, and decide what changes."""
    elastic = elastic_gangs(session)
    with session.trial():
        for gang in elastic.values():
            session.suppose(at_fewest(gang, session.now))
        fewest = {name: session.gangs[name].placement for name in elastic}
        claims = Claims(session)
    for gang in claims.displaced:
        if gang.name not in elastic or gang.name not in claims.placements:
            session.apply(Requeue(gang, Reason.PREEMPTED, "others have had less"))
    rigid = {name: placement for name, placement in claims.placements.items() if name not in elastic}
    kept = {name: placement for name, placement in fewest.items() if session.gangs[name].placement}
    at_least = kept | {name: placement for name, placement in claims.placements.items() if name in elastic}
    targets = rigid | divide(session, at_least, rigid, claims.quotas)
    carry_out(session, reclaim(session, targets, claims.losers(), claims.quotas) if elastic else targets)
    if packing.can_pack(session):
        packable = [session.gangs[gang.name] for gang in claims.packable()]
        packing.offer(session, [gang for gang in packable if not gang.placement])
