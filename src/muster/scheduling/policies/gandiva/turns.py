"""Time slices: which gangs run in the next one.

Gangs that have a placement on the same GPUs take turns of one slice (60 s in Gandiva, OSDI'18, section 3.2): weighted
round-robin without a queue to keep. At the end of a slice the gangs that waited come first, by the time that they waited times
their weight; then those that ran, the one that ran least first. The first takes its GPUs on all its nodes at once, so that no
gang waits longer than the turns of the others together, whatever the size. A higher priority always runs before a lower one.
Gangs packed onto the same GPUs take their turn as one.

No gang is suspended where none could run instead.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.scheduling.decisions import Reason, Resume, Suspend
from muster.scheduling.gang import Assigned, Gang, Placement, gpus_by_node
from muster.scheduling.packing.bundles import Bundle, bundled
from muster.scheduling.session import GpusByNode, Session
from muster.scheduling.topology.links import GpuSet


def can_take_turns(session: Session) -> bool:
    """Say whether the caller can suspend gangs where they are, and resume them."""
    return session.can(Suspend, Resume)


def next_slice(session: Session) -> None:
    """Suspend gangs whose turn is over where others wait for theirs, and resume these."""
    contested = crowded(session)
    if not contested or not can_take_turns(session):
        return
    there = [gang for node in contested for gang in session.on(node)]
    bundles = bundled({gang.name: gang for gang in there if gang.sharing.slices or gang.suspended})
    chosen = _choose(session, bundles)
    for bundle in bundles:
        if bundle not in chosen:
            for gang in bundle:
                if gang.running:
                    session.apply(Suspend(gang, Reason.TIME_SLICED, f"its turn is over after {session.now - gang.since:.0f} s"))
    for bundle in chosen:
        resume(session, bundle)


def fill(session: Session, nodes: Iterable[str]) -> None:
    """Resume gangs that wait for their turn on unused GPUs of these nodes; suspend none."""
    waiting = {gang.name: gang for node in nodes for gang in session.on(node) if gang.suspended}
    for bundle in sorted(bundled(waiting), key=lambda bundle: _turn(session, bundle)) if session.can(Resume) else ():
        wanted = gpus_by_node(bundle[0].placement).items()
        if all(session.unused(node).bit_count() >= gpus.bit_count() for node, gpus in wanted):
            resume(session, bundle)


def resume(session: Session, bundle: Bundle) -> None:
    """Let a bundle run on unused GPUs of its nodes, unless it does already."""
    if all(gang.running for gang in bundle):
        return
    running = next((gang for gang in bundle if gang.running), None)
    gpus = gpus_by_node((running or bundle[0]).placement)
    if running is None:
        gpus = {node: _which(session, bundle[0], node, held) for node, held in gpus.items()}
    for gang in bundle:
        if not gang.running:
            message = f"its turn comes after {session.now - gang.since:.0f} s"
            session.apply(Resume(gang, moved(session, gang.placement, gpus), Reason.TIME_SLICED, message))


def moved(session: Session, placement: Placement, gpus: GpusByNode) -> Placement:
    """Return the placement with other GPUs of the same nodes."""
    left = dict(gpus)
    elsewhere: list[Assigned] = []
    for assigned in placement:
        node = assigned.node
        part = session.nodes[node].machine.fastest(left.get(node, 0), assigned.gpus.bit_count())
        left[node] = left.get(node, 0) & ~part
        elsewhere.append(assigned._replace(gpus=part))
    return tuple(elsewhere)


def crowded(session: Session) -> list[str]:
    """Return the nodes on which gangs wait for their turn, by name."""
    return sorted({node for gang in session.gangs.values() if gang.suspended for node in gpus_by_node(gang.placement)})


def _which(session: Session, gang: Gang, node: str, held: GpuSet) -> GpuSet:
    """Its own GPUs where they are unused, else as many others with the best links."""
    unused = session.unused(node)
    if held & unused == held:
        return held
    machine = session.nodes[node].machine
    choose = machine.fastest if gang.sensitive else machine.leftover
    return choose(unused, held.bit_count())


def _choose(session: Session, bundles: list[Bundle]) -> list[Bundle]:
    """The bundles of the next slice: in order of their turn, each that finds its GPUs."""
    left: dict[str, int] = {}
    for bundle in bundles:
        for node in gpus_by_node(bundle[0].placement):
            left.setdefault(node, session.unused(node).bit_count())
    for bundle in bundles:
        if any(gang.running for gang in bundle):
            for node, gpus in gpus_by_node(bundle[0].placement).items():
                left[node] += gpus.bit_count()
    chosen = []
    for bundle in sorted(bundles, key=lambda bundle: _turn(session, bundle)):
        wanted = gpus_by_node(bundle[0].placement)
        if all(left[node] >= gpus.bit_count() for node, gpus in wanted.items()):
            chosen.append(bundle)
            for node, gpus in wanted.items():
                left[node] -= gpus.bit_count()
    return chosen


def _turn(session: Session, bundle: Bundle) -> tuple[int, float, float, str]:
    """The order of the next slice; of two that waited alike the heavier goes first, or it would have its share at best."""
    return min((-gang.priority, -_urgency(gang, session.now), -gang.sharing.weight, gang.name) for gang in bundle)


def _urgency(gang: Gang, now: float) -> float:
    """Seconds that it waited times its weight; below zero for seconds that it ran."""
    return (now - gang.since) * gang.sharing.weight if not gang.running else -(now - gang.since) / gang.sharing.weight
