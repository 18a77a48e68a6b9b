"""Packing: several gangs on the same GPUs at once, where that beats taking turns.

Gandiva (OSDI'18, section 3.3): only under overload, only gangs that were profiled while they ran alone; the one with the least
GPU utilisation goes onto the GPUs with the least, if the memory suffices. Taking turns, two bundles on the same GPUs give the
mean of their rates; packing is kept only if the measured rates together give more, else it is undone, and the kinds' measured
rates keep it from being tried again. Rates are counted beside the best rate alone, so 1 is one exclusive GPU's worth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from muster.scheduling.decisions import Pack, Reason, Unpack
from muster.scheduling.gang import Effect, Gang, Placement, Sensitivity
from muster.scheduling.placing.placement import place
from muster.scheduling.placing.shortage import Shortage
from muster.scheduling.policies.gandiva.elasticity import is_grown
from muster.scheduling.policies.gandiva.turns import Bundle, bundled, waits
from muster.scheduling.profile import CoLocation, Shape, Via
from muster.scheduling.session import Session
from muster.scheduling.speed.occupancy import gpus_by_node, kind_of, shape

MEMORY = 1.0
"""The share of a GPU's memory that packed gangs may need together."""
UNIT = "of the rate alone"


def judge(session: Session) -> None:
    """Undo each packing that is measured to give less than taking turns would: the gang takes turns or is queued, as before."""
    for bundle in bundled({name: gang for name, gang in session.gangs.items() if gang.running and gang.sharing.packs}):
        on_trial = [gang for gang in bundle if gang.packed and gang.trial and gang.trial.verb == "Pack"]
        if len(bundle) < 2 or not on_trial:
            continue
        last = max(on_trial, key=lambda gang: (gang.since, gang.name))
        worth, alone = together(session, bundle), in_turns(session, [g for g in bundle if g is not last], last)
        if worth < alone:
            message = f"packed, they reach {worth:.2f} {UNIT}; taking turns gives {alone:.2f}"
            session.put(Unpack(last, _back(session, last), Reason.UNDONE, message, Effect(worth, alone, UNIT)))


def _back(session: Session, gang: Gang) -> Placement:
    """Where a packed gang was before; its GPUs of now if those of then are gone or belong to gangs that share nothing."""
    before = gang.trial.undo if gang.trial else ()
    still_there = all(not gpus & ~session.shared(node) for node, gpus in gpus_by_node(before).items())
    return before if still_there else gang.placement


def pack(session: Session) -> None:
    """Put gangs that wait for their turn onto GPUs of their nodes that others use; what was never measured is tried."""
    for node in sorted({node for gang in session.gangs.values() if waits(gang) for node in session.spots(gang)}):
        waiting = [gang for gang in session.on(node) if waits(gang) and _profiled(session, gang)]
        for gang in sorted(waiting, key=lambda gang: (_utilisation(session, gang), gang.name)):
            want = _counts(session, gang)
            hosts = [b for b in _hosts(session, session.on(node)) if _counts(session, b[0]) == want]
            for bundle in sorted(hosts, key=lambda b: (sum(_utilisation(session, g) for g in b), b[0].name)):
                if _pack_onto(session, gang, bundle, least=1.0):
                    break


def offer(session: Session, gangs: Iterable[Gang], least: float = 1.1) -> None:
    """Put gangs that wait for a place onto GPUs that others use, each where it gains most, and only if it gains clearly.

    Bundles of the same kinds in the same shape promise the same: they are weighed once for all.
    """
    guests = [gang for gang in gangs if _profiled(session, gang)]
    if not guests:
        return
    alike: dict[_Likeness, list[Bundle]] = {}
    for bundle in _hosts(session, session.gangs.values()):
        alike.setdefault(_likeness(session, bundle), []).append(bundle)
    gains: dict[tuple[_Likeness, str, Sensitivity], float] = {}
    for gang in guests:
        best: list[tuple[float, str, list[Bundle]]] = []
        for likeness, bundles in alike.items():
            key = (likeness, kind_of(gang), gang.sensitivity)
            if bundles and likeness[1].gpus == gang.gpus:
                if key not in gains:
                    gains[key] = _gain(session, bundles[0], replace(gang, placement=bundles[0][0].placement))
                if gains[key] > least:
                    best.append((-gains[key], bundles[0][0].name, bundles))
        _accept(session, gang, (bundles for _, _, bundles in sorted(best)), least)


_Likeness = tuple[tuple[tuple[str, Sensitivity], ...], Shape]


def _likeness(session: Session, bundle: Bundle) -> _Likeness:
    return tuple(sorted((kind_of(gang), gang.sensitivity) for gang in bundle)), shape(bundle[0].placement, session.nodes)


def _accept(session: Session, gang: Gang, offers: Iterable[list[Bundle]], least: float) -> None:
    """Pack the gang onto the first bundle that takes it, which then takes no more in this pass."""
    for bundles in offers:
        for bundle in bundles:
            if _pack_onto(session, gang, bundle, least):
                bundles.remove(bundle)
                return


def _pack_onto(session: Session, gang: Gang, bundle: Bundle, least: float) -> bool:
    """Pack the gang onto a bundle's GPUs if that is worth `least` times what taking turns would give."""
    if any(member.priority < gang.priority or member.name == gang.name for member in bundle):
        return False
    if sum(_memory(session, member) for member in (*bundle, gang)) > MEMORY:
        return False
    guest = _guest(session, gang, bundle)
    if not guest.placement or not session.quotas.allows(gang, guest.held - gang.held):
        return False
    turns, worth = in_turns(session, bundle, guest), together(session, [*bundle, guest])
    if worth <= turns * least:
        return False
    message = f"with {', '.join(g.name for g in bundle)}: {worth:.2f} {UNIT} expected, {turns:.2f} by taking turns"
    first = bundle[0].packed or bundle[0].name
    session.put(Pack(gang, guest.placement, Reason.PACKED, message, Effect(turns, worth, UNIT), first))
    return True


def _guest(session: Session, gang: Gang, bundle: Bundle) -> Gang:
    """The gang as it would be on the bundle's GPUs; without a placement if it does not fit on exactly these."""
    onto = session.spots(bundle[0])
    found = place(gang, session.only(onto))
    if isinstance(found, Shortage) or gpus_by_node(found) != onto:
        found = ()
    return replace(gang, placement=found, running=True)


def together(session: Session, bundle: Bundle) -> float:
    """The rates of a bundle's gangs on one set of GPUs, each beside its rate alone, summed."""
    return sum(
        session.rates.relative(gang, shape(gang.placement, session.nodes), co_location_in(gang, bundle)) for gang in bundle
    )


def in_turns(session: Session, bundle: Bundle, guest: Gang) -> float:
    """The same of a bundle and a gang that take turns on its GPUs."""
    return (together(session, bundle) + together(session, [guest])) / 2


def _gain(session: Session, bundle: Bundle, guest: Gang) -> float:
    """What packing the guest onto the bundle's GPUs gives beside taking turns; nothing where the memory does not suffice."""
    if sum(_memory(session, member) for member in (*bundle, guest)) > MEMORY:
        return 0.0
    return together(session, [*bundle, guest]) / in_turns(session, bundle, guest)


def co_location_in(gang: Gang, bundle: Bundle) -> CoLocation:
    """The company of a gang within a bundle."""
    return tuple(sorted((Via.GPU, kind_of(other)) for other in bundle if other.name != gang.name))


def _hosts(session: Session, there: Iterable[Gang]) -> list[Bundle]:
    """Bundles that another may join: they run in the size they asked for, were profiled, and their last packing was judged."""
    running = {gang.name: gang for gang in there if gang.running and gang.placement and not is_grown(gang)}
    new = {decision.gang.name for decision in session.decisions if isinstance(decision, Pack)}
    bundles = bundled(running)
    return [bundle for bundle in bundles if all(_profiled(session, gang) and gang.name not in new for gang in bundle)]


def _counts(session: Session, gang: Gang) -> dict[str, int]:
    return {node: gpus.bit_count() for node, gpus in session.spots(gang).items()}


def _profiled(session: Session, gang: Gang) -> bool:
    if not (gang.sharing.packs and gang.sharing.slices):
        return False
    profile = session.rates.profile(gang)
    return profile.utilisation is not None and profile.memory is not None


def _utilisation(session: Session, gang: Gang) -> float:
    return session.rates.profile(gang).utilisation or 0.0


def _memory(session: Session, gang: Gang) -> float:
    return session.rates.profile(gang).memory or 0.0
