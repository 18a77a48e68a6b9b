"""What the volumes of whole gangs need, as the cluster is now.

For each gang it is remembered what was looked up for it. When some of that changes, the gang is planned again; other claims, of
which a cluster may have tens of thousands, lead to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from muster.scheduling.topology.eligibility import Alternatives
from muster_operator.storage.catalogue import Key, Reading, StorageCatalogue
from muster_operator.storage.needs import Uses, need_of
from muster_operator.stores import Stores
from muster_operator.work_queue import WorkQueue


class PodsOfOneKind(NamedTuple):
    """Pods of a gang that use the same claims."""

    uses: Uses
    number: int = 1


class GangStorage(NamedTuple):
    """Where the volumes of each kind of a gang's pods can be reached; and what the gang lacks, in a sentence."""

    where: tuple[tuple[str, tuple[Alternatives, ...]], ...] = ()
    missing: str = ""

    def of(self, kind: str) -> tuple[Alternatives, ...]:
        """Return the conditions on the nodes of one kind of its pods."""
        return dict(self.where).get(kind, ())


NO_STORAGE: Final = GangStorage()


class Storage:
    """The answers of today, and which gangs they were given for."""

    def __init__(self, stores: Stores, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        self._catalogue = StorageCatalogue(stores, self._changed)
        self._read: dict[str, frozenset[Key]] = {}
        """What was looked up for each gang."""
        self._readers: dict[Key, set[str]] = {}
        """The same the other way round."""
        self._listeners: list[Callable[[Collection[str]], None]] = []

    def subscribe(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call `listener` with the names of the gangs for which an answer may be another now; they are planned again."""
        self._listeners.append(listener)

    def of(self, gang: str, namespace: str, pods: Mapping[str, PodsOfOneKind]) -> GangStorage:
        """Return what a gang needs whose pods of each kind use these claims."""
        if not any(kind.uses for kind in pods.values()):
            self.forget(gang)
            return NO_STORAGE
        reading = Reading(self._catalogue)
        needs = {name: need_of(namespace, kind.uses, reading) for name, kind in pods.items()}
        missing = next((need.missing for need in needs.values() if need.missing), "")
        missing = missing or _overused(namespace, pods.values(), reading)
        self._note(gang, frozenset(reading.keys))
        return GangStorage(tuple((name, need.where) for name, need in needs.items() if need.where), missing)

    def forget(self, gang: str) -> None:
        """Forget a gang that is gone."""
        for key in self._read.pop(gang, ()):
            self._readers[key].discard(gang)
            if not self._readers[key]:
                del self._readers[key]

    def _note(self, gang: str, read: frozenset[Key]) -> None:
        if self._read.get(gang) != read:
            self.forget(gang)
            self._read[gang] = read
            for key in read:
                self._readers.setdefault(key, set()).add(gang)

    def _changed(self, keys: Collection[Key]) -> None:
        gangs = {gang for key in keys for gang in self._readers.get(key, ())}
        if gangs:
            for listener in self._listeners:
                listener(gangs)
            self._work_queue.plan_now()


def _overused(namespace: str, pods: Collection[PodsOfOneKind], reading: Reading) -> str:
    """That several pods of a gang use a claim which a single pod may use."""
    users: Counter[str] = Counter()
    for kind in pods:
        users.update({use.claim: kind.number for use in kind.uses if use.claim})
    for name, number in users.items():
        claim = reading.claim(f"{namespace}/{name}") if number > 1 else None
        if claim is not None and "ReadWriteOncePod" in (claim.spec.access_modes or ()):
            return f"{number} of its pods use the PersistentVolumeClaim {name}, and ReadWriteOncePod lets only one"
    return ""
