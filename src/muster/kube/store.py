"""The objects of one resource as muster knows them: a dictionary fed by a reflector and by muster's own writes.

Writers put the server's answers to their own writes here, so they read their writes before the watch brings them. Three
numbers keep that safe, all resource versions, which compare as integers within a resource (KEP-5504, Kubernetes 1.35):
- each object's own: a put of the same or an older one changes nothing;
- the watermark: all changes up to it have come by list or watch. An object that is absent at the watermark was deleted or
  filtered out by then, so a late answer from before it resurrects nothing;
- tombstones: objects a writer knows to be gone before the watch says so, each until the watermark passes it.

Invariant: whatever the order of watch events, own writes and re-lists, an object never goes back to an older version, and
once the watermark has reached the newest version the store equals the server. One event loop, no locks.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Generic, Protocol, TypeVar

log: Final = logging.getLogger(__name__)


class Metadata(Protocol):
    """The part of an object's metadata that a store needs."""

    @property
    def namespace(self) -> str | None: ...
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...


class KubeObject(Protocol):
    """Any object of the API, as a msgspec Struct."""

    @property
    def metadata(self) -> Metadata: ...


T = TypeVar("T", bound=KubeObject)
Listener = Callable[[T | None, T | None], None]


def key_of(metadata: Metadata) -> str:
    """Give the key of an object: "namespace/name", or "name" for one without a namespace."""
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name


class Store(Generic[T]):
    """Objects of one resource by key: iterate over `values()`, look up with `get(key)`, follow changes with `subscribe`."""

    def __init__(self) -> None:
        self.synced = asyncio.Event()
        """Set once the first list is in."""
        self.watermark = 0
        """Every change up to this resource version is in the store."""
        self._objects: dict[str, T] = {}
        self._versions: dict[str, int] = {}
        self._tombstones: dict[str, int] = {}
        self._listeners: list[Listener[T]] = []

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: str) -> bool:
        return key in self._objects

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def values(self) -> Collection[T]:
        """Give a live view of all objects; copy it before awaiting."""
        return self._objects.values()

    def get(self, key: str) -> T | None:
        """Give the object of that key, or None."""
        return self._objects.get(key)

    def knows(self, key: str, resource_version: str | int) -> bool:
        """Say whether a put of that version would change nothing, so that it need not be decoded."""
        return int(resource_version) <= self._known(key)

    def subscribe(self, listener: Listener[T]) -> Callable[[], None]:
        """Call `listener(old, new)` at once on each change (None: absent); give the function that ends it.

        A listener that raises is logged and stays subscribed.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def put(self, obj: T) -> bool:
        """Take an object in unless what is held, or known to be deleted, is as new; say whether it changed anything.

        Raises ValueError for a resource version that is not a number.
        """
        key = key_of(obj.metadata)
        version = int(obj.metadata.resource_version)
        if version <= self._known(key):
            return False
        self._set(key, version, obj)
        return True

    def remove(self, key: str, resource_version: str | int) -> bool:
        """Take an object out; `resource_version` is that of the deletion, or the last the object is known to have had.

        A newer object of that name stays. Says whether anything changed.
        """
        version = int(resource_version)
        if self._versions.get(key, 0) > version:
            return False
        if version > self.watermark:
            self._tombstones[key] = max(version, self._tombstones.get(key, 0))
        return self._drop(key)

    def advance(self, resource_version: str | int) -> None:
        """Raise the watermark: the watch has brought every change up to `resource_version`. For reflectors only."""
        self.watermark = max(self.watermark, int(resource_version))
        if self._tombstones:
            self._tombstones = {key: at for key, at in self._tombstones.items() if at > self.watermark}

    def replace_all(self, items: Iterable[T], resource_version: str | int, unreadable: Collection[str] = ()) -> None:
        """Take the whole list as of `resource_version`: drop what vanished, keep what own writes know better, set `synced`.

        Keys in `unreadable` are in the list but could not be decoded: they stay as they are. A list older than the
        watermark means that the server's history was rewound (etcd restored from a backup); then the list alone counts.
        """
        version = int(resource_version)
        if version < self.watermark:
            self._rewind()
        present = {key_of(item.metadata): item for item in items}
        for key in [key for key, at in self._versions.items() if at <= version]:
            if key not in present and key not in unreadable:
                self._drop(key)
        for key, item in present.items():
            at = int(item.metadata.resource_version)
            if at > max(self._versions.get(key, 0), self._tombstones.get(key, 0)):
                self._set(key, at, item)
        self.advance(version)
        self.synced.set()

    def _known(self, key: str) -> int:
        """The version up to which an object of that key brings nothing new."""
        held = self._versions.get(key)
        return held if held is not None else max(self.watermark, self._tombstones.get(key, 0))

    def _rewind(self) -> None:
        self.watermark = 0
        self._tombstones.clear()
        self._versions = dict.fromkeys(self._versions, 0)

    def _set(self, key: str, version: int, obj: T) -> None:
        old = self._objects.get(key)
        self._objects[key] = obj
        self._versions[key] = version
        self._tell(old, obj)

    def _drop(self, key: str) -> bool:
        old = self._objects.pop(key, None)
        self._versions.pop(key, None)
        if old is not None:
            self._tell(old, None)
        return old is not None

    def _tell(self, old: T | None, new: T | None) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(old, new)
            except Exception:
                log.exception("a listener failed on %s", key_of((new or old).metadata))  # type: ignore[union-attr]
