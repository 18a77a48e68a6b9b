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
from muster.scheduling.mechanisms.board import Board
from muster.scheduling.mechanisms.elasticity import is_grown
from muster.scheduling.mechanisms.turns import Bundle, bundled, waits
from muster.scheduling.occupancy import gpus_by_node, kind_of, shape
from muster.scheduling.placement import Shortage, place
from muster.scheduling.profile import Company, Via
from muster.scheduling.snapshot import Effect, Gang, Placement

MEMORY = 1.0
"""The share of a GPU's memory that packed gangs may need together."""
UNIT = "of the rate alone"


def judge(board: Board) -> None:
    """Undo each packing that is measured to give less than taking turns would: the gang takes turns or is queued, as before."""
    for bundle in bundled({name: gang for name, gang in board.gangs.items() if gang.running and gang.sharing.packs}):
        on_trial = [gang for gang in bundle if gang.packed and gang.trial and gang.trial.verb == "Pack"]
        if len(bundle) < 2 or not on_trial:
            continue
        last = max(on_trial, key=lambda gang: (gang.since, gang.name))
        worth, alone = together(board, bundle), in_turns(board, [g for g in bundle if g is not last], last)
        if worth < alone:
            message = f"packed, they reach {worth:.2f} {UNIT}; taking turns gives {alone:.2f}"
            board.put(Unpack(last, _back(board, last), Reason.UNDONE, message, Effect(worth, alone, UNIT)))


def _back(board: Board, gang: Gang) -> Placement:
    """Where a packed gang was before; its GPUs of now if those of then are gone or belong to gangs that share nothing."""
    before = gang.trial.undo if gang.trial else ()
    still_there = all(not gpus & ~board.shared(node) for node, gpus in gpus_by_node(before).items())
    return before if still_there else gang.placement


def pack(board: Board) -> None:
    """Put gangs that wait for their turn onto GPUs of their nodes that others use; what was never measured is tried."""
    for node in sorted({node for gang in board.gangs.values() if waits(gang) for node in board.spots(gang)}):
        waiting = [gang for gang in board.on(node) if waits(gang) and _profiled(board, gang)]
        for gang in sorted(waiting, key=lambda gang: (_utilisation(board, gang), gang.name)):
            want = _counts(board, gang)
            hosts = [b for b in _hosts(board, board.on(node), gang) if _counts(board, b[0]) == want]
            for bundle in sorted(hosts, key=lambda b: (sum(_utilisation(board, g) for g in b), b[0].name)):
                if _pack_onto(board, gang, bundle, least=1.0):
                    break


def offer(board: Board, gangs: Iterable[Gang], least: float = 1.1) -> None:
    """Put gangs that wait for a place onto GPUs that others use, each where it gains most, and only if it gains clearly."""
    for gang in gangs:
        if not _profiled(board, gang):
            continue
        hosts = [b for b in _hosts(board, list(board.gangs.values()), gang) if b[0].held == gang.gpus]
        fitting = [b for b in hosts if _guest(board, gang, b).placement]
        worth = {b[0].name: gain(board, b, _guest(board, gang, b)) for b in fitting}
        for bundle in sorted(fitting, key=lambda b: (-worth[b[0].name], b[0].name)):
            if _pack_onto(board, gang, bundle, least):
                break


def _pack_onto(board: Board, gang: Gang, bundle: Bundle, least: float) -> bool:
    """Pack the gang onto a bundle's GPUs if that is worth `least` times what taking turns would give."""
    if sum(_memory(board, member) for member in (*bundle, gang)) > MEMORY:
        return False
    guest = _guest(board, gang, bundle)
    if not guest.placement or not board.quotas.allows(gang, guest.held - gang.held):
        return False
    turns, worth = in_turns(board, bundle, guest), together(board, [*bundle, guest])
    if worth <= turns * least:
        return False
    message = f"with {', '.join(g.name for g in bundle)}: {worth:.2f} {UNIT} expected, {turns:.2f} by taking turns"
    first = bundle[0].packed or bundle[0].name
    board.put(Pack(gang, guest.placement, Reason.PACKED, message, Effect(turns, worth, UNIT), first))
    return True


def _guest(board: Board, gang: Gang, bundle: Bundle) -> Gang:
    """The gang as it would be on the bundle's GPUs; without a placement if it does not fit on exactly these."""
    onto = board.spots(bundle[0])
    found = place(gang, board.only(onto))
    if isinstance(found, Shortage) or gpus_by_node(found) != onto:
        found = ()
    return replace(gang, placement=found, running=True)


def together(board: Board, bundle: Bundle) -> float:
    """The rates of a bundle's gangs on one set of GPUs, each beside its rate alone, summed."""
    return sum(board.rates.relative(gang, shape(gang.placement, board.nodes), company_in(gang, bundle)) for gang in bundle)


def in_turns(board: Board, bundle: Bundle, guest: Gang) -> float:
    """The same of a bundle and a gang that take turns on its GPUs."""
    return (together(board, bundle) + together(board, [guest])) / 2


def gain(board: Board, bundle: Bundle, guest: Gang) -> float:
    """What packing the guest onto the bundle's GPUs gives beside taking turns."""
    return together(board, [*bundle, guest]) / in_turns(board, bundle, guest)


def company_in(gang: Gang, bundle: Bundle) -> Company:
    """The company of a gang within a bundle."""
    return tuple(sorted((Via.GPU, kind_of(other)) for other in bundle if other.name != gang.name))


def _hosts(board: Board, there: Iterable[Gang], gang: Gang) -> list[Bundle]:
    """Bundles that the gang may join: they run in the size they asked for, were profiled, and their last packing was judged."""
    running = {g.name: g for g in there if g.running and g.placement and g.name != gang.name and not is_grown(g)}
    new = {decision.gang.name for decision in board.decisions if isinstance(decision, Pack)}
    return [
        bundle
        for bundle in bundled(running)
        if all(_profiled(board, g) and g.name not in new and g.priority >= gang.priority for g in bundle)
    ]


def _counts(board: Board, gang: Gang) -> dict[str, int]:
    return {node: gpus.bit_count() for node, gpus in board.spots(gang).items()}


def _profiled(board: Board, gang: Gang) -> bool:
    profile = board.rates.profile(gang)
    return gang.sharing.packs and gang.sharing.slices and profile.utilisation is not None and profile.memory is not None


def _utilisation(board: Board, gang: Gang) -> float:
    return board.rates.profile(gang).utilisation or 0.0


def _memory(board: Board, gang: Gang) -> float:
    return board.rates.profile(gang).memory or 0.0
