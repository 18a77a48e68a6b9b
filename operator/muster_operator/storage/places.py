"""From where volumes can be reached: None from everywhere, () from nowhere. And which free volumes match a claim.

A free volume matches by the rules of kube-controller-manager (FindMatchingVolume).
"""

from __future__ import annotations

from itertools import chain
from typing import Final

from muster.allocation.pods import alternatives
from muster.kube.objects import ClaimSpec, StorageClass, Volume
from muster.kube.objects.pod import LabelSelector
from muster.kube.quantity import BadQuantity, whole
from muster.scheduling.topology.eligibility import Alternatives, Requirement

NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"
MOST_PLACES: Final = 1000
"""Beyond so many places for one volume none is a condition: kube-scheduler chooses, and what it refuses is learned."""
_ZONES: Final = {
    "topology.kubernetes.io/zone": "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region": "failure-domain.beta.kubernetes.io/region",
}
"""The labels of zones, and their names of before."""

Places = Alternatives | None


def by_affinity(volume: Volume) -> Places:
    """Return from where a volume can be reached by its node affinity."""
    affinity = volume.spec.node_affinity
    return alternatives(affinity.required) if affinity is not None and affinity.required is not None else None


def by_zone(volume: Volume) -> Places:
    """Return from where a volume can be reached by its own labels: from its zone, and from nodes that are in none."""
    labels = volume.metadata.labels or {}
    texts = {new: labels.get(new, labels.get(old)) for new, old in _ZONES.items()}
    inside = tuple(Requirement(name, "In", tuple(text.split("__"))) for name, text in texts.items() if text)
    outside = tuple(Requirement(name, "DoesNotExist") for pair in _ZONES.items() for name in pair)
    return (inside, outside) if inside else None


def where_made(storage_class: StorageClass | None) -> Places:
    """Return for where a class has volumes made."""
    if storage_class is None or storage_class.provisioner in ("", NO_PROVISIONER):
        return ()
    return tuple(
        tuple(Requirement(each.key, "In", tuple(each.values)) for each in term.match_label_expressions or ())
        for term in storage_class.allowed_topologies or ()
    ) or None  # fmt: skip


def either(*places: Places) -> Places:
    """Return from where one of several volumes can be reached, in few terms: those about one label alone become one."""
    if None in places:
        return None
    several = [one for one in places if one]
    if len(several) <= 1:
        return several[0] if several else ()
    values: dict[str, dict[str, None]] = {}
    others: dict[tuple[Requirement, ...], None] = {}
    for term in chain.from_iterable(several):
        if len(term) == 1 and term[0].operator == "In":
            values.setdefault(term[0].key, {}).update(dict.fromkeys(term[0].values))
        else:
            others[term] = None
    if sum(map(len, values.values())) + len(others) > MOST_PLACES:
        return None
    return (*((Requirement(key, "In", tuple(sorted(named))),) for key, named in sorted(values.items())), *others)


def matches(spec: ClaimSpec, volume: Volume) -> bool:
    """Say whether a free volume of its class can be bound to a claim."""
    has, modes = volume.spec, set(spec.access_modes or ())
    if has.volume_mode != spec.volume_mode or not modes.issubset(has.access_modes or ()):
        return False
    try:
        large_enough = whole((has.capacity or {}).get("storage", 0)) >= whole(spec.resources.of("storage"))
    except BadQuantity:
        return False
    return large_enough and (spec.selector is None or _selects(spec.selector, volume.metadata.labels or {}))


def _selects(selector: LabelSelector, labels: dict[str, str]) -> bool:
    wanted = [Requirement(key, "In", (value,)) for key, value in (selector.match_labels or {}).items()]
    wanted += [Requirement(each.key, each.operator, tuple(each.values or ())) for each in selector.match_expressions or ()]
    return all(each.matches(labels) for each in wanted)
