"""Whether packing pays: several gangs on the same GPUs at once, where that beats taking turns.

Gandiva (OSDI'18, section 3.3): only under overload, only gangs that were profiled while they ran alone; the one with the
lowest GPU utilisation goes onto the GPUs with the lowest, if the memory suffices. Two bundles that take turns on the same GPUs
give the mean of their rates; packing is kept only if the measured rates together give more, else it is undone, and the
measured rates keep it from being tried again. Rates are relative to the best rate alone, so 1 is worth one exclusive GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from muster.scheduling.decisions import Pack, Reason, Unpack
from muster.scheduling.gang import Effect, Gang, Placement, Sensitivity, gpus_by_node
from muster.scheduling.packing.bundles import Bundle, bundled, co_location_in
from muster.scheduling.placing.placement import find
from muster.scheduling.profile import Shape
from muster.scheduling.session import Session
from muster.scheduling.speed.shapes import shape

MEMORY = 1.0
"""The share of a GPU's memory that packed gangs may need together."""
CLEARLY = 1.1
"""How many times what taking turns gives a packing must be worth to be offered to a gang that waits for a placement."""
UNIT = "of the rate alone"


def can_pack(session: Session) -> bool:
    """Say whether gangs may be packed at all: the caller can also undo what turns out slower."""
    return session.can(Pack, Unpack)


def judge(session: Session) -> None:
    """Undo each packing that is measured to give less than taking turns would: the gang takes turns or is queued, as before."""
    if not session.can(Unpack):
        return
    for bundle in bundled({name: gang for name, gang in session.gangs.items() if gang.running and gang.sharing.packs}):
        on_trial = [gang for gang in bundle if gang.packed and gang.trial and gang.trial.verb == "Pack"]
        if len(bundle) < 2 or not on_trial:
            continue
        last = max(on_trial, key=lambda gang: (gang.since, gang.name))
        together, turns = rate_together(session, bundle), rate_in_turns(session, [g for g in bundle if g is not last], last)
        if together < turns:
            message = f"packed, they reach {together:.2f} {UNIT}; taking turns gives {turns:.2f}"
            effect = Effect(together, turns, UNIT)
            session.apply(Unpack(last, _placement_before(session, last), Reason.UNDONE, message, effect))


def _placement_before(session: Session, gang: Gang) -> Placement:
    """The placement of a packed gang before it was packed; its present one if those GPUs are gone or exclusively held."""
    before = gang.trial.undo if gang.trial else ()
    still_there = all(not gpus & ~shared_gpus(session, node) for node, gpus in gpus_by_node(before).items())
    return before if still_there else gang.placement


def shared_gpus(session: Session, node: str) -> int:
    """Return the GPUs of a node on which gangs take turns, or no gang has a placement."""
    gpus = session.idle(node)
    for gang, held in session.occupancy.residents(node).values():
        if gang.sharing.slices:
            gpus |= held
    return gpus


def offer(session: Session, gangs: Iterable[Gang]) -> None:
    """Pack gangs that wait for a placement onto GPUs that others use, each where it gains most, and only if it gains clearly.

    Bundles of the same kinds in the same shape are weighed once for all.
    """
    guests = [gang for gang in gangs if is_profiled(session, gang)]
    if not guests:
        return
    by_key: dict[_BundleKey, list[Bundle]] = {}
    for bundle in hosts(session, session.gangs.values()):
        by_key.setdefault(_bundle_key(session, bundle), []).append(bundle)
    gains: dict[tuple[_BundleKey, str, Sensitivity], float] = {}
    for gang in guests:
        offers: list[tuple[float, str, list[Bundle]]] = []
        for bundle_key, bundles in by_key.items():
            key = (bundle_key, gang.profile_name, gang.sensitivity)
            if bundles and bundle_key[1].gpus == gang.gpus:
                if key not in gains:
                    gains[key] = _gain(session, bundles[0], replace(gang, placement=bundles[0][0].placement))
                if gains[key] > CLEARLY:
                    offers.append((-gains[key], bundles[0][0].name, bundles))
        _accept(session, gang, (bundles for _, _, bundles in sorted(offers)))


_BundleKey = tuple[tuple[tuple[str, Sensitivity], ...], Shape]


def _bundle_key(session: Session, bundle: Bundle) -> _BundleKey:
    kinds = tuple(sorted((gang.profile_name, gang.sensitivity) for gang in bundle))
    return kinds, shape(bundle[0].placement, session.nodes)


def _accept(session: Session, gang: Gang, offers: Iterable[list[Bundle]]) -> None:
    """Pack the gang onto the first bundle that takes it, which then takes no more in this pass."""
    for bundles in offers:
        for bundle in bundles:
            if pack_onto(session, gang, bundle, CLEARLY):
                bundles.remove(bundle)
                return


def pack_onto(session: Session, gang: Gang, bundle: Bundle, least: float) -> bool:
    """Pack the gang onto a bundle's GPUs if that is worth more than `least` times what taking turns would give."""
    if any(member.priority < gang.priority or member.name == gang.name for member in bundle):
        return False
    if not _fit_in_memory(session, [*bundle, gang]):
        return False
    guest = _as_guest(session, gang, bundle)
    if not guest.placement or not session.quotas.allows(gang, guest.held - gang.held):
        return False
    turns, together = rate_in_turns(session, bundle, guest), rate_together(session, [*bundle, guest])
    if together <= turns * least:
        return False
    message = f"with {', '.join(g.name for g in bundle)}: {together:.2f} {UNIT} expected, {turns:.2f} by taking turns"
    host = bundle[0].packed or bundle[0].name
    session.apply(Pack(gang, guest.placement, Reason.PACKED, message, Effect(turns, together, UNIT), host))
    return True


def _as_guest(session: Session, gang: Gang, bundle: Bundle) -> Gang:
    """The gang as it would be on the bundle's GPUs; without a placement if it does not fit on exactly these."""
    gpus = gpus_by_node(bundle[0].placement)
    placement = find(gang, session.capacity.only(gpus)) or ()
    return replace(gang, placement=placement if gpus_by_node(placement) == gpus else (), running=True)


def rate_together(session: Session, bundle: Bundle) -> float:
    """Return the rates of a bundle's gangs on one set of GPUs, each relative to its rate alone, summed."""
    return sum(
        session.rates.relative(gang, shape(gang.placement, session.nodes), co_location_in(gang, bundle)) for gang in bundle
    )


def rate_in_turns(session: Session, bundle: Bundle, guest: Gang) -> float:
    """Return the same of a bundle and a gang that take turns on its GPUs."""
    return (rate_together(session, bundle) + rate_together(session, [guest])) / 2


def _gain(session: Session, bundle: Bundle, guest: Gang) -> float:
    """How many times what taking turns gives packing the guest onto the bundle gives; 0 where the memory does not suffice."""
    if not _fit_in_memory(session, [*bundle, guest]):
        return 0.0
    return rate_together(session, [*bundle, guest]) / rate_in_turns(session, bundle, guest)


def hosts(session: Session, gangs: Iterable[Gang]) -> list[Bundle]:
    """Return bundles that another may join: they run in the size they asked for, were profiled, and were judged."""
    running = {gang.name: gang for gang in gangs if gang.running and gang.placement and not gang.grown}
    packed_now = {decision.gang.name for decision in session.decisions if isinstance(decision, Pack)}
    return [
        bundle
        for bundle in bundled(running)
        if all(is_profiled(session, gang) and gang.name not in packed_now for gang in bundle)
    ]


def is_profiled(session: Session, gang: Gang) -> bool:
    """Say whether the gang may be packed, and what its kind needs of a GPU was measured."""
    if not (gang.sharing.packs and gang.sharing.slices):
        return False
    profile = session.rates.profile(gang)
    return profile.utilisation is not None and profile.memory is not None


def utilisation(session: Session, gang: Gang) -> float:
    """Return the share of time in which the gang keeps its GPUs busy; 0 where nobody measured it."""
    return session.rates.profile(gang).utilisation or 0.0


def _fit_in_memory(session: Session, gangs: Iterable[Gang]) -> bool:
    return sum(session.rates.profile(gang).memory or 0.0 for gang in gangs) <= MEMORY
