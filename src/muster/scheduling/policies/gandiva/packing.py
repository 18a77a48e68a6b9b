"""Packing by trial and error (Gandiva, section 3.3): gangs that wait for their turn go onto GPUs that others use."""

from __future__ import annotations

from muster.scheduling.gang import Gang, gpus_by_node
from muster.scheduling.packing.packing import can_pack, hosts, is_profiled, pack_onto, utilisation
from muster.scheduling.session import Session


def pack(session: Session) -> None:
    """Pack suspended gangs onto other GPUs of their nodes; what was never measured is tried."""
    if not can_pack(session):
        return
    for node in sorted({node for gang in session.gangs.values() if gang.suspended for node in gpus_by_node(gang.placement)}):
        waiting = [gang for gang in session.on(node) if gang.suspended and is_profiled(session, gang)]
        for gang in sorted(waiting, key=lambda gang: (utilisation(session, gang), gang.name)):
            wanted = _counts(gang)
            bundles = [bundle for bundle in hosts(session, session.on(node)) if _counts(bundle[0]) == wanted]
            by_load = sorted(bundles, key=lambda bundle: (sum(utilisation(session, g) for g in bundle), bundle[0].name))
            for bundle in by_load:
                if pack_onto(session, gang, bundle, least=1.0):
                    break


def _counts(gang: Gang) -> dict[str, int]:
    return {node: gpus.bit_count() for node, gpus in gpus_by_node(gang.placement).items()}
