"""The storage of the cluster as it is now, with what is looked up by more than a name.

Whatever is looked up has a key, and a change of it is reported by that key: so it can be known whom a change concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from muster.kube.objects import Claim, ClaimSpec, Pod, StorageClass, Volume
from muster_operator.storage.needs import uses_of
from muster_operator.storage.places import Places, by_affinity, either, matches
from muster_operator.storage.resources import CLAIMS, STORAGE_CLASSES, VOLUMES
from muster_operator.stores import Stores
from muster_operator.timestamps import stamp

Key = tuple[str, str]
"""A kind of look-up, and what is looked up."""
MOST_KEPT = 1000
"""Different claims of one class for which places are kept."""
_DEFAULT_CLASS: Key = ("default class", "")


class StorageCatalogue:
    """Follows the stores; `changed` is called with the keys of what has changed."""

    def __init__(self, stores: Stores, changed: Callable[[Collection[Key]], None]) -> None:
        self._changed = changed
        self.claims, self.volumes, self.classes = (stores.of(CLAIMS), stores.of(VOLUMES), stores.of(STORAGE_CLASSES))
        self.made_for: dict[str, dict[str, Volume]] = {}
        """By claim the free volumes that name it, by name."""
        self._free: dict[str, dict[str, Volume]] = {}
        """By class the other free volumes, by name."""
        self._places: dict[str, dict[bytes, Places]] = {}
        """By class from where those can be reached that match a claim, by the spec of that."""
        self.users: dict[str, dict[str, str]] = {}
        """By claim the names of the pods on nodes that use it, by key."""
        self.claims.subscribe(self._claim_changed)
        self.volumes.subscribe(self._volume_changed)
        self.classes.subscribe(self._class_changed)
        stores.view.pods.subscribe(self._pod_changed)

    def default_class(self) -> str:
        """Return the name of the class of claims that name none: of several the newest, as in Kubernetes."""
        defaults = (each.metadata for each in self.classes.values() if each.is_default)
        return min(((-stamp(meta.creation_timestamp), meta.name) for meta in defaults), default=(0.0, ""))[1]

    def free(self, storage_class: str, spec: ClaimSpec) -> Places:
        """Return from where the free volumes of a class can be reached that match a claim; worked out once for claims alike."""
        volumes = self._free.get(storage_class)
        if not volumes:
            return ()
        known, key = self._places.setdefault(storage_class, {}), msgspec.json.encode(spec)
        if key not in known:
            if len(known) >= MOST_KEPT:
                known.clear()
            known[key] = either(*(by_affinity(volume) for volume in volumes.values() if matches(spec, volume)))
        return known[key]

    def _claim_changed(self, old: Claim | None, new: Claim | None) -> None:
        if (claim := new or old) is not None:
            self._changed([("claim", claim.metadata.key)])

    def _class_changed(self, old: StorageClass | None, new: StorageClass | None) -> None:
        if (found := new or old) is not None:
            self._changed([("class", found.metadata.name), _DEFAULT_CLASS])

    def _volume_changed(self, old: Volume | None, new: Volume | None) -> None:
        keys: list[Key] = [("volume", volume.metadata.name) for volume in (new or old,) if volume is not None]
        if old is not None and old.free:
            index, key = self._index(old)
            _drop(index, key[1], old.metadata.name)
            keys.append(key)
        if new is not None and new.free:
            index, key = self._index(new)
            index.setdefault(key[1], {})[new.metadata.name] = new
            keys.append(key)
        self._changed(keys)

    def _index(self, volume: Volume) -> tuple[dict[str, dict[str, Volume]], Key]:
        """Where a free volume is entered, and its key; what was worked out of the free volumes of its class is wrong now."""
        named, storage_class = volume.spec.claim_ref, volume.spec.storage_class_name
        if named is not None:
            return self.made_for, ("made for", f"{named.namespace}/{named.name}")
        self._places.pop(storage_class, None)
        return self._free, ("free", storage_class)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        before, after = _in_use(old), _in_use(new)
        if before == after:
            return
        for pod, claim in before - after:
            _drop(self.users, claim, pod)
        for pod, claim in after - before:
            self.users.setdefault(claim, {})[pod] = pod.partition("/")[2]
        self._changed([("user", claim) for _, claim in before ^ after])


def _drop(index: dict[str, dict[str, Volume]] | dict[str, dict[str, str]], key: str, name: str) -> None:
    index[key].pop(name)
    if not index[key]:
        del index[key]


def _in_use(pod: Pod | None) -> frozenset[tuple[str, str]]:
    """A pod with each of the claims that it uses, once it is on a node."""
    if pod is None or not pod.spec.volumes or not pod.spec.node_name or pod.finished:
        return frozenset()
    meta = pod.metadata
    return frozenset((meta.key, f"{meta.namespace}/{use.claim}") for use in uses_of(pod.spec, meta.name))


class Reading:
    """The catalogue to one reader; `keys` has what was looked up, whether it was there or not."""

    def __init__(self, catalogue: StorageCatalogue) -> None:
        self._catalogue = catalogue
        self.keys: set[Key] = set()

    def claim(self, key: str) -> Claim | None:
        self.keys.add(("claim", key))
        return self._catalogue.claims.get(key)

    def volume(self, name: str) -> Volume | None:
        self.keys.add(("volume", name))
        return self._catalogue.volumes.get(name)

    def storage_class(self, name: str) -> StorageClass | None:
        self.keys.add(("class", name))
        return self._catalogue.classes.get(name)

    def default_class(self) -> str:
        self.keys.add(_DEFAULT_CLASS)
        return self._catalogue.default_class()

    def free(self, storage_class: str, spec: ClaimSpec) -> Places:
        self.keys.add(("free", storage_class))
        return self._catalogue.free(storage_class, spec)

    def made_for(self, claim: Claim) -> list[Volume]:
        key = claim.metadata.key
        self.keys.add(("made for", key))
        found = self._catalogue.made_for.get(key, {}).values()
        return [volume for volume in found if volume.spec.claim_ref and volume.spec.claim_ref.uid in ("", claim.metadata.uid)]

    def user(self, key: str) -> str:
        self.keys.add(("user", key))
        return min(self._catalogue.users.get(key, {}).values(), default="")
