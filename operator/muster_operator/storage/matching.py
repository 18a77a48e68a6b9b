"""Which free volumes a claim may be bound to, by the rules of kube-controller-manager (FindMatchingVolume)."""

from __future__ import annotations

from collections.abc import Collection

from muster.kube.objects import Claim, ClaimSpec, Volume
from muster.kube.objects.pod import LabelSelector
from muster.kube.quantity import BadQuantity, whole
from muster.scheduling.topology.eligibility import Requirement


def matching(spec: ClaimSpec, free: Collection[Volume], claim: Claim | None) -> list[Volume]:
    """The free volumes that a claim may be bound to: one that names the claim, else those that name none."""
    fitting = [volume for volume in free if _fits(spec, volume)]
    own = [volume for volume in fitting if _names(volume, claim)]
    return own or [volume for volume in fitting if volume.spec.claim_ref is None]


def _names(volume: Volume, claim: Claim | None) -> bool:
    named = volume.spec.claim_ref
    if named is None or claim is None:
        return False
    meta = claim.metadata
    return (named.namespace, named.name) == (meta.namespace, meta.name) and named.uid in ("", meta.uid)


def _fits(spec: ClaimSpec, volume: Volume) -> bool:
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
