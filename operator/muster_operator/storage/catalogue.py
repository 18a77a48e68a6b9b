"""The storage of the cluster as it is now, with what is looked up by more than a name.

Whatever is looked up has a key, and a change of it is reported by that key: so it can be known whom a change concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from muster.kube.objects import Claim, Pod, StorageClass, Volume
from muster_operator.storage.needs import uses_of
from muster_operator.storage.resources import CLAIMS, STORAGE_CLASSES, VOLUMES
from muster_operator.stores import Stores
from muster_operator.timestamps import stamp

Key = tuple[str, str]
"""A kind of look-up, and what is looked up."""
_DEFAULT_CLASS: Key = ("default class", "")


class StorageCatalogue:
    """Follows the stores; `changed` is called with the keys of what has changed."""

    def __init__(self, stores: Stores, changed: Callable[[Collection[Key]], None]) -> None:
        self._changed = changed
        self.claims, self.volumes, self.classes = (stores.of(CLAIMS), stores.of(VOLUMES), stores.of(STORAGE_CLASSES))
        self.free: dict[str, dict[str, Volume]] = {}
        """By class the volumes that can still be bound, by name."""
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

    def _claim_changed(self, old: Claim | None, new: Claim | None) -> None:
        if (claim := new or old) is not None:
            self._changed([("claim", claim.metadata.key)])

    def _class_changed(self, old: StorageClass | None, new: StorageClass | None) -> None:
        if (found := new or old) is not None:
            self._changed([("class", found.metadata.name), _DEFAULT_CLASS])

    def _volume_changed(self, old: Volume | None, new: Volume | None) -> None:
        if old is not None and old.free:
            _drop(self.free, old.spec.storage_class_name, old.metadata.name)
        if new is not None and new.free:
            self.free.setdefault(new.spec.storage_class_name, {})[new.metadata.name] = new
        present = [volume for volume in (old, new) if volume is not None]
        classes = [("free", volume.spec.storage_class_name) for volume in present if volume.free]
        self._changed([("volume", present[0].metadata.name), *classes])

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

    def free(self, storage_class: str) -> Collection[Volume]:
        self.keys.add(("free", storage_class))
        return self._catalogue.free.get(storage_class, {}).values()

    def user(self, key: str) -> str:
        self.keys.add(("user", key))
        return min(self._catalogue.users.get(key, {}).values(), default="")
