"""Packing: judged by measured rates, and offered to waiting gangs where it gains clearly."""

from __future__ import annotations

from typing import Any

import pytest

from builders.cluster import gang, node, running
from builders.sessions import PACKS, measured, said, session_of, turning
from muster.scheduling.gang import Effect, Gang, Trial, gpus_by_node
from muster.scheduling.packing import packing
from muster.scheduling.session import Session

SERVER = [node("n", 1)]


def host(**fields: Any) -> Gang:
    return turning("host", ("n", [0]), sharing=PACKS, **fields)


@pytest.mark.parametrize(("rate", "kept"), [(6.0, True), (4.9, False)])
def test_packing_is_kept_or_undone_by_measured_rates(rate: float, kept: bool) -> None:
    trial = Trial("Pack", 60.0, Effect(1.0, 1.6))
    gangs = [host(kind="k"), turning("guest", ("n", [0]), sharing=PACKS, packed="host", kind="k", trial=trial)]
    profile = measured(gangs[0], SERVER, 10.0, {("k",): rate}, utilisation=0.3, memory=0.4)
    session = session_of(SERVER, gangs, 120.0, {"k": profile})
    packing.judge(session)
    assert said(session.decisions) == ([] if kept else [("Unpack", "guest")])
    assert session.gangs["host"].running
    assert session.gangs["guest"].running is kept


def test_waiting_gang_is_packed_where_it_gains_most() -> None:
    server = [node("m", 1), node("n", 1)]
    hosts = [turning("good", ("m", [0]), sharing=PACKS), turning("bad", ("n", [0]), sharing=PACKS)]
    new = gang("new", 1, 1, sharing=PACKS, kind="new")
    profiles = {
        "good": measured(hosts[0], server, 10.0, {("new",): 9.0}, utilisation=0.4, memory=0.2),
        "bad": measured(hosts[1], server, 10.0, {("new",): 7.0}, utilisation=0.4, memory=0.2),
        "new": measured(hosts[0], server, 5.0, {("good",): 4.5, ("bad",): 3.5}, utilisation=0.4, memory=0.2),
    }
    session = session_of(server, [*hosts, new], 120.0, profiles)
    packing.offer(session, [new])
    assert said(session.decisions) == [("Pack", "new")]
    assert session.gangs["new"].packed == "good"


def test_waiting_gang_is_not_packed_for_a_small_gain() -> None:
    hosts = [turning("there", ("n", [0]), sharing=PACKS)]
    new = gang("new", 1, 1, sharing=PACKS)
    profiles = {
        "there": measured(hosts[0], SERVER, 10.0, {("new",): 5.4}, utilisation=0.4, memory=0.2),
        "new": measured(hosts[0], SERVER, 10.0, {("there",): 5.4}, utilisation=0.4, memory=0.2),
    }
    session = session_of(SERVER, [*hosts, new], 120.0, profiles)
    packing.offer(session, [new])
    assert session.decisions == []


def undone(*gangs: Gang) -> Session:
    """These gangs, and a guest that waited on GPU 1, was packed onto the host's GPU 0, and is slow there."""
    before = turning("guest", ("n", [1])).placement
    trial = Trial("Pack", 60.0, Effect(1.0, 1.6), before)
    there = [host(kind="k"), turning("guest", ("n", [0]), sharing=PACKS, packed="host", kind="k", trial=trial)]
    server = [node("n", 2)]
    profile = measured(there[0], server, 10.0, {("k",): 3.0}, utilisation=0.3, memory=0.4)
    session = session_of(server, [*there, *gangs], 120.0, {"k": profile})
    packing.judge(session)
    return session


def test_unpacked_gang_gets_its_former_placement_back() -> None:
    assert gpus_by_node(undone().gangs["guest"].placement) == {"n": 0b10}
    turns_too = turning("turns", ("n", [1]))
    assert gpus_by_node(undone(turns_too).gangs["guest"].placement) == {"n": 0b10}


def test_unpacked_gang_stays_where_an_exclusive_gang_has_its_former_gpus() -> None:
    mine = running("mine", ("n", [1]))
    assert gpus_by_node(undone(mine).gangs["guest"].placement) == {"n": 0b01}


def test_packed_gang_counts_in_the_quota_of_its_queue() -> None:
    there = [turning("there", ("n", [0]), sharing=PACKS)]
    new = gang("new", 1, 1, sharing=PACKS, queue="q")
    profile = {"utilisation": 0.4, "memory": 0.2}
    profiles = {
        "there": measured(there[0], SERVER, 10.0, {("new",): 9.0}, **profile),
        "new": measured(there[0], SERVER, 10.0, {("there",): 9.0}, **profile),
    }
    for quota, packed in ((0, []), (1, [("Pack", "new")])):
        session = session_of(SERVER, [*there, new], 120.0, profiles, {"q": quota})
        packing.offer(session, [new])
        assert said(session.decisions) == packed
