"""Bundles: a gang, or several that are packed onto the same GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from muster.scheduling.gang import Gang, gpus_by_node
from muster.scheduling.profile import CoLocation, Via

Bundle = list[Gang]


def bundled(gangs: Mapping[str, Gang]) -> list[Bundle]:
    """Put gangs that are packed onto the same GPUs together; by name."""
    hosts = {gang.packed for gang in gangs.values() if gang.packed}
    bundles: dict[object, Bundle] = {}
    for name in sorted(gangs):
        gang = gangs[name]
        alone = not gang.packed and name not in hosts
        gpus = frozenset(gpus_by_node(gang.placement).items()) if not alone else ()
        bundles.setdefault((gang.packed or name, gpus), []).append(gang)
    return list(bundles.values())


def co_location_in(gang: Gang, bundle: Bundle) -> CoLocation:
    """Return the neighbours of a gang within a bundle."""
    return tuple(sorted((Via.GPU, other.profile_name) for other in bundle if other.name != gang.name))
