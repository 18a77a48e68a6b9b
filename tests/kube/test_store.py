"""The store ends with the newest truth, in whatever order watch, own writes and lists come."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from muster.kube.store import Store, key_of


class Meta(msgspec.Struct, frozen=True):
    name: str
    uid: str
    resource_version: str
    namespace: str | None = "ns"


class Thing(msgspec.Struct, frozen=True):
    metadata: Meta
    wanted: bool = True


def thing(name: str, version: int, uid: str = "u", wanted: bool = True) -> Thing:
    return Thing(Meta(name, uid, str(version)), wanted)


NAMES = st.sampled_from(["a", "b", "c"])


class Interleavings(RuleBasedStateMachine):
    """A server with a history, a watch that lags, answers to own writes that come late, lists that take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store[Thing] = Store()
        self.told: dict[str, Thing] = {}
        self.store.subscribe(self.listen)
        self.version = 0
        self.objects: dict[str, Thing] = {}
        self.history: list[tuple[int, str, Thing | None]] = []
        self.watched = 0
        self.answers: list[Callable[[], Any]] = []
        self.listing: tuple[int, list[Thing]] | None = None
        self.deleted: dict[str, int] = {}

    def listen(self, old: Thing | None, new: Thing | None) -> None:
        either = new or old
        assert either is not None
        key = key_of(either.metadata)
        assert self.told.get(key) is old, "listeners hear every change, once, in order"
        if old and new:
            assert int(new.metadata.resource_version) > int(old.metadata.resource_version)
        if new is None:
            del self.told[key]
        else:
            self.told[key] = new

    @initialize()
    def first_list(self) -> None:
        self.store.replace_all([], 0)

    @rule(name=NAMES, wanted=st.booleans(), own=st.booleans())
    def write(self, name: str, wanted: bool, own: bool) -> None:
        self.version += 1
        old = self.objects.get(name)
        obj = thing(name, self.version, old.metadata.uid if old else f"{name}{self.version}", wanted)
        self.objects[name] = obj
        self.history.append((self.version, name, obj))
        if own:
            self.answers.append(lambda: self.store.put(obj))

    @rule(name=NAMES, own=st.booleans())
    def delete(self, name: str, own: bool) -> None:
        obj = self.objects.pop(name, None)
        if obj is None:
            return
        self.version += 1
        self.deleted[obj.metadata.uid] = self.version
        self.history.append((self.version, name, None))
        if own:
            self.answers.append(lambda: self.store.remove(f"ns/{name}", obj.metadata.resource_version))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))()

    @precondition(lambda self: self.listing is None)
    @rule()
    def watch(self) -> None:
        """Bring the next event, as the reflector does."""
        for version, name, obj in self.history:
            if version > self.watched:
                if obj is not None and obj.wanted:
                    self.store.put(obj)
                else:
                    self.store.remove(f"ns/{name}", version)
                self.store.advance(version)
                self.watched = version
                return

    @precondition(lambda self: self.listing is None)
    @rule()
    def ask_for_list(self) -> None:
        self.listing = (self.version, [obj for obj in self.objects.values() if obj.wanted])

    @precondition(lambda self: self.listing is not None)
    @rule()
    def list(self) -> None:
        assert self.listing is not None
        version, items = self.listing
        self.store.replace_all(items, version)
        self.watched, self.listing = version, None

    @invariant()
    def what_is_deleted_stays_deleted(self) -> None:
        for obj in self.store.values():
            assert self.deleted.get(obj.metadata.uid, self.store.watermark + 1) > self.store.watermark

    def teardown(self) -> None:
        if self.listing is not None:
            self.list()
        for answer in self.answers[::2]:
            answer()
        while self.watched < self.version:
            self.watch()
        for answer in self.answers[1::2]:
            answer()
        truth = {f"ns/{name}": obj for name, obj in self.objects.items() if obj.wanted}
        late = {key: obj for key, obj in ((k, self.store.get(k)) for k in self.store) if obj is not None}
        assert late == truth == self.told


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture
def store() -> Store[Thing]:
    return Store()


def test_own_write_is_read_at_once_and_reported_once(store: Store[Thing]) -> None:
    store.replace_all([thing("a", 5)], 10)
    assert store.put(thing("a", 11))
    assert not store.put(thing("a", 11))
    assert not store.put(thing("a", 5))
    assert store.get("ns/a") == thing("a", 11)


def test_late_answer_does_not_resurrect(store: Store[Thing]) -> None:
    store.replace_all([thing("a", 5)], 10)
    store.remove("ns/a", 12)
    assert not store.put(thing("a", 11))
    store.advance(12)
    assert not store.put(thing("a", 11))
    assert store.put(thing("a", 13, uid="next of that name"))
    assert not store.remove("ns/a", 12)
    assert "ns/a" in store


def test_list_keeps_newer_own_writes_and_drops_what_vanished(store: Store[Thing]) -> None:
    store.replace_all([thing("gone", 1), thing("stays", 2), thing("unreadable", 3)], 10)
    store.put(thing("own", 25))
    store.put(thing("stays", 26))
    store.remove("ns/own gone", 27)
    store.replace_all([thing("stays", 12), thing("own gone", 15)], 20, unreadable={"ns/unreadable"})
    assert {key: obj.metadata.resource_version for key, obj in zip(store, store.values(), strict=True)} == {
        "ns/stays": "26",
        "ns/unreadable": "3",
        "ns/own": "25",
    }


def test_rewound_server_is_believed(store: Store[Thing]) -> None:
    store.replace_all([thing("a", 500), thing("b", 501)], 600)
    store.replace_all([thing("a", 40)], 50)
    assert list(store.values()) == [thing("a", 40)]
    assert store.put(thing("b", 51))


def test_synced_with_the_first_list_even_if_empty(store: Store[Thing]) -> None:
    store.put(thing("a", 1))
    assert not store.synced.is_set()
    store.replace_all([], 1)
    assert store.synced.is_set()
    assert len(store) == 0


def test_key_has_the_namespace_if_there_is_one(store: Store[Thing]) -> None:
    store.put(Thing(Meta("n1", "u", "1", namespace=None)))
    assert list(store) == ["n1"]


def test_unsubscribed_listener_hears_nothing(store: Store[Thing]) -> None:
    heard: list[object] = []
    end = store.subscribe(lambda old, new: heard.append((old, new)))
    store.put(thing("a", 1))
    end()
    store.put(thing("a", 2))
    assert heard == [(None, thing("a", 1))]
