"""From the claims that a pod uses to conditions on its node, or to what keeps it from starting.

A claim that is bound can be reached from where its volume can. One that kube-scheduler is to bind, with a pod that uses it
(WaitForFirstConsumer), can be had where a free volume matches, or where its class may have one made. One that is bound without
regard to pods (Immediate) has to be bound before the pod's node is chosen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple, Protocol

from muster.kube.objects import Claim, ClaimSpec, PodSpec, StorageClass, Volume
from muster.kube.objects.volume import SELECTED_NODE
from muster.scheduling.topology.eligibility import Alternatives, Requirement
from muster_operator.storage.places import Places, by_affinity, by_zone, either, matches, where_made

_LONGEST: Final = 254
"""Characters of a claim's name that are kept: one more than the name of any object has."""


class VolumeUse(NamedTuple):
    """A claim that a pod uses; with a `template` the claim is made with the pod, and has a name once the pod has."""

    claim: str = ""
    template: ClaimSpec | None = None


Uses = tuple[VolumeUse, ...]


class Need(NamedTuple):
    """Where the volumes of a pod can be reached, a condition for each; and what it lacks, in a sentence."""

    where: tuple[Alternatives, ...] = ()
    missing: str = ""


NOTHING: Final = Need()


class Catalogue(Protocol):
    """The storage of a cluster. The keys of claims are NAMESPACE/NAME."""

    def claim(self, key: str) -> Claim | None: ...
    def volume(self, name: str) -> Volume | None: ...
    def storage_class(self, name: str) -> StorageClass | None: ...
    def default_class(self) -> str: ...
    def free(self, storage_class: str, spec: ClaimSpec) -> Places:
        """Return from where the free volumes of a class can be reached that match a claim, but for those that name one."""

    def made_for(self, claim: Claim) -> Collection[Volume]:
        """Return the free volumes that name a claim."""

    def user(self, key: str) -> str:
        """Return the name of a pod that uses a claim; "" if none does."""


def uses_of(spec: PodSpec, pod: str = "") -> Uses:
    """Return the claims that a pod of this name uses, each once; a template's pods have no name yet."""
    claims, made = [], []
    for volume in spec.volumes or ():
        if volume.persistent_volume_claim:
            claims.append(VolumeUse(volume.persistent_volume_claim.claim_name[:_LONGEST]))
        elif volume.ephemeral:
            made.append(VolumeUse(f"{pod}-{volume.name}" if pod else "", volume.ephemeral.volume_claim_template.spec))
    return (*dict.fromkeys(claims), *made)


def need_of(namespace: str, uses: Uses, catalogue: Catalogue) -> Need:
    """Return what the claims of a pod ask of its node, and the first thing that it lacks."""
    needs = [_need(namespace, use, catalogue) for use in uses]
    where = dict.fromkeys(condition for need in needs for condition in need.where)
    return Need(tuple(where), next((need.missing for need in needs if need.missing), ""))


def _need(namespace: str, use: VolumeUse, catalogue: Catalogue) -> Need:
    key = f"{namespace}/{use.claim}"
    claim = catalogue.claim(key) if use.claim else None
    if claim is None:
        return _to_be_made(use.template, catalogue) if use.template else _lacks(use.claim, "which does not exist")
    if claim.metadata.deletion_timestamp is not None:
        return _lacks(use.claim, "which is being deleted")
    if claim.status.phase == "Lost":
        return _lacks(use.claim, "whose PersistentVolume is lost")
    need = _bound(claim, catalogue) if claim.bound else _unbound(claim, catalogue)
    if "ReadWriteOncePod" in (claim.spec.access_modes or ()) and (user := catalogue.user(key)):
        return need._replace(missing=_lacks(use.claim, f"which pod {user} uses, and ReadWriteOncePod lets no other").missing)
    return need


def _lacks(claim: str, state: str) -> Need:
    return Need(missing=f"needs the PersistentVolumeClaim {claim}, {state}")


def _where(*conditions: Places) -> Need:
    return Need(tuple(condition for condition in conditions if condition is not None))


# Claims that are bound


def _bound(claim: Claim, catalogue: Catalogue) -> Need:
    volume = catalogue.volume(claim.spec.volume_name)
    if volume is None:
        return _lacks(claim.metadata.name, f"whose PersistentVolume {claim.spec.volume_name} does not exist")
    return _where(by_affinity(volume), by_zone(volume))


# Claims that are not bound


def _unbound(claim: Claim, catalogue: Catalogue) -> Need:
    name, spec = claim.metadata.name, claim.spec
    wanted = catalogue.default_class() if spec.storage_class_name is None else spec.storage_class_name
    storage_class = catalogue.storage_class(wanted) if wanted else None
    if storage_class is None and wanted:
        return _lacks(name, f"which is not bound: its StorageClass {wanted} does not exist")
    if storage_class is None or not storage_class.waits_for_pods or spec.volume_name:
        return _lacks(name, "which is not bound yet")
    if node := claim.metadata.annotation(SELECTED_NODE):
        return _where(((Requirement("metadata.name", "In", (node,)),),))
    return _to_be_bound(spec, wanted, storage_class, catalogue, claim)


def _to_be_made(spec: ClaimSpec, catalogue: Catalogue) -> Need:
    """What a claim asks that is made with the pod: also one that is then bound at once is bound where its class allows."""
    wanted = catalogue.default_class() if spec.storage_class_name is None else spec.storage_class_name
    storage_class = catalogue.storage_class(wanted) if wanted else None
    if storage_class is None and wanted and catalogue.free(wanted, spec) == ():
        return Need(missing=f"needs the StorageClass {wanted}, which does not exist")
    return _to_be_bound(spec, wanted, storage_class, catalogue)


def _to_be_bound(
    spec: ClaimSpec, name: str, storage_class: StorageClass | None, catalogue: Catalogue, claim: Claim | None = None
) -> Need:
    """Where a free volume of the class of this name matches, before others one that names the claim, or one can be made."""
    own = [volume for volume in catalogue.made_for(claim) if volume.spec.storage_class_name == name] if claim else []
    own = [volume for volume in own if matches(spec, volume)]
    free = either(*map(by_affinity, own)) if own else catalogue.free(name, spec)
    places = either(free, where_made(storage_class))
    if places == ():
        whose = f"the PersistentVolumeClaim {claim.metadata.name}" if claim is not None else "a claim of its pods"
        of_class = f"StorageClass {name}" if name else "no StorageClass"
        return Need(missing=f"needs a PersistentVolume for {whose}: none of {of_class} is free that matches it")
    return _where(places)
