"""Sites: GPUs on which one gang runs, or two, and from which it may be moved.

A site holds whole GPUs in order, and nobody else has a place there. What is on it has one size, lets itself be suspended, and
has no wish of its own: whoever wants to leave, or be resized, is `admission`'s, and elastic gangs are `shares`'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from muster.scheduling.elastic.shares import is_elastic
from muster.scheduling.gang import Gang
from muster.scheduling.profile import CoLocation, Via
from muster.scheduling.rebalancing.swap import Site, Table
from muster.scheduling.resources import WHOLE
from muster.scheduling.session import Session
from muster.scheduling.speed.occupancy import shape_of
from muster.scheduling.topology.links import GpuSet

Key = tuple[tuple[str, GpuSet], ...]


def found_on(session: Session, decided: Collection[str], packing: bool) -> Iterator[Site]:
    """Find the sites of the cluster, those left out on which a gang was decided of already."""
    table = session.rates.kept(Table)
    for key, gangs in _by_gpus(session).items():
        gpus = dict(key)
        movable = len(gangs) <= 2 and all(gang.name not in decided and _may_move(session, gang) for gang in gangs)
        if movable and not _others(session, gpus, gangs):
            yield table.site(gpus, shape_of(gpus, session.nodes), _around(session, gpus), gangs, packing)


def _by_gpus(session: Session) -> dict[Key, list[Gang]]:
    there: dict[Key, list[Gang]] = {}
    for gang in session.gangs.values():
        if gang.placement and gang.running and gang.sharing.slices:
            there.setdefault(tuple(sorted(session.spots(gang).items())), []).append(gang)
    return there


def _may_move(session: Session, gang: Gang) -> bool:
    whole = all(one.task.share == WHOLE and not one.gpus & ~session.nodes[one.node].healthy for one in gang.placement)
    return whole and gang.held > 0 and not (gang.resize or gang.leave is not None or is_elastic(gang))


def _others(session: Session, gpus: dict[str, GpuSet], gangs: list[Gang]) -> bool:
    """Whether anybody else has a place on these GPUs."""
    names = {gang.name for gang in gangs}
    return any(held & gpus[node] and name not in names for node in gpus for name, held in session.residents[node].items())


def _around(session: Session, gpus: dict[str, GpuSet]) -> CoLocation:
    """Who is met there beside those on the same GPUs."""
    met = session.running.neighbours("", gpus, session.nodes).values()
    return tuple(sorted(one for one in met if one[0] is not Via.GPU))
