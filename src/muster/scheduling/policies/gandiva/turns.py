"""Time-slicing: who runs in the next slice.

Gangs that have a place on the same GPUs take turns of one slice (60 s in Gandiva, OSDI'18, section 3.2): weighted round-robin
without a queue to keep. At the end of a slice those who wait come first, the one that waited longest, counted by its weight, at
their head; then those who ran, the one that ran least. The first takes its GPUs on all its nodes at once, so that nobody waits
longer than the turns of the others together, whatever the size. A higher priority always runs before a lower one. Gangs
packed onto the same GPUs take their turn as one.

Nobody is suspended where there is nobody to run instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muster.scheduling.decisions import Reason, Resume
from muster.scheduling.gang import Assigned, Gang, Placement
from muster.scheduling.session import Session
from muster.scheduling.speed.occupancy import gpus_by_node
from muster.scheduling.topology.links import GpuSet

Bundle = list[Gang]
"""A gang, or several that are packed onto the same GPUs."""


def next_slice(session: Session) -> None:
    """Suspend those whose turn is over where others wait for theirs, and resume these."""
    contested = {node for gang in session.gangs.values() if waits(gang) for node in session.spots(gang)}
    if not contested:
        return
    bundles = bundled(
        {gang.name: gang for node in contested for gang in session.on(node) if gang.sharing.slices or waits(gang)}
    )
    chosen = _choose(session, bundles)
    for bundle in bundles:
        if bundle not in chosen:
            for gang in bundle:
                if gang.running:
                    session.suspend(gang, Reason.TIME_SLICED, f"its turn is over after {session.now - gang.since:.0f} s")
    for bundle in chosen:
        resume(session, bundle)


def fill(session: Session, nodes: Iterable[str]) -> None:
    """Resume those who wait for their turn on GPUs of these nodes that nobody uses; suspend nobody."""
    waiting = {gang.name: gang for node in nodes for gang in session.on(node) if waits(gang)}
    for bundle in sorted(bundled(waiting), key=lambda bundle: _turn(session, bundle)):
        if all(session.free(node).bit_count() >= gpus.bit_count() for node, gpus in session.spots(bundle[0]).items()):
            resume(session, bundle)


def resume(session: Session, bundle: Bundle) -> None:
    """Let a bundle run on free GPUs of its nodes, unless it does already."""
    if all(gang.running for gang in bundle):
        return
    runs = next((gang for gang in bundle if gang.running), None)
    gpus = (
        session.spots(runs)
        if runs
        else {n: _which(session, bundle[0], n, held) for n, held in session.spots(bundle[0]).items()}
    )
    for gang in bundle:
        if not gang.running:
            waited = f"its turn comes after {session.now - gang.since:.0f} s"
            session.put(Resume(gang, moved(session, gang.placement, gpus), Reason.TIME_SLICED, waited))


def moved(session: Session, placement: Placement, gpus: dict[str, GpuSet]) -> Placement:
    """The placement with other GPUs of the same nodes."""
    left = dict(gpus)
    places: list[Assigned] = []
    for place in placement:
        part = session.nodes[place.node].machine.fastest(left.get(place.node, 0), place.gpus.bit_count())
        left[place.node] = left.get(place.node, 0) & ~part
        places.append(place._replace(gpus=part))
    return tuple(places)


def _which(session: Session, gang: Gang, node: str, held: GpuSet) -> GpuSet:
    """Its own GPUs where they are free, else as many others with the best links."""
    free = session.free(node)
    if held & free == held:
        return held
    machine = session.nodes[node].machine
    choose = machine.fastest if gang.sensitive else machine.leftover
    return choose(free, held.bit_count())


def _choose(session: Session, bundles: list[Bundle]) -> list[Bundle]:
    """The bundles of the next slice: in order of their turn, each that finds its GPUs."""
    capacity: dict[str, int] = {}
    for bundle in bundles:
        for node in session.spots(bundle[0]):
            capacity.setdefault(node, session.free(node).bit_count())
    for bundle in bundles:
        if any(gang.running for gang in bundle):
            for node, gpus in session.spots(bundle[0]).items():
                capacity[node] += gpus.bit_count()
    chosen = []
    for bundle in sorted(bundles, key=lambda bundle: _turn(session, bundle)):
        spots = session.spots(bundle[0])
        if all(capacity[node] >= gpus.bit_count() for node, gpus in spots.items()):
            chosen.append(bundle)
            for node, gpus in spots.items():
                capacity[node] -= gpus.bit_count()
    return chosen


def _turn(session: Session, bundle: Bundle) -> tuple[int, float, float, str]:
    """The order of the next slice; of two that waited alike the heavier goes first, or it would have its share at best."""
    return min((-gang.priority, -_urgency(gang, session.now), -gang.sharing.weight, gang.name) for gang in bundle)


def _urgency(gang: Gang, now: float) -> float:
    """Seconds that it waited, counted by its weight; below zero for seconds that it ran."""
    return (now - gang.since) * gang.sharing.weight if not gang.running else -(now - gang.since) / gang.sharing.weight


def bundled(gangs: Mapping[str, Gang]) -> list[Bundle]:
    """Put gangs that are packed onto the same GPUs together."""
    hosts = {gang.packed for gang in gangs.values() if gang.packed}
    found: dict[object, Bundle] = {}
    for name in sorted(gangs):
        gang = gangs[name]
        alone = not gang.packed and name not in hosts
        gpus = frozenset(gpus_by_node(gang.placement).items()) if not alone else ()
        found.setdefault((gang.packed or name, gpus), []).append(gang)
    return list(found.values())


def waits(gang: Gang) -> bool:
    """Say whether a gang has a place and waits there for its turn."""
    return bool(gang.placement) and not gang.running
