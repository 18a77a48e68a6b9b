"""Packing by trial and error: gangs that wait for their turn go onto GPUs that others use, where that is expected to gain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders.cluster import node
from builders.sessions import PACKS, measured, said, session_of, turning
from muster.scheduling.gang import Effect, Gang, Trial
from muster.scheduling.packing import packing
from muster.scheduling.policies.gandiva.policy import pack
from muster.scheduling.session import Session

SERVER = [node("n", 1)]


def host(**fields: Any) -> Gang:
    return turning("host", ("n", [0]), sharing=PACKS, **fields)


def guest(**fields: Any) -> Gang:
    return turning("guest", ("n", [0]), running=False, **({"sharing": PACKS} | fields))


def pair(packed: float, *, utilisation: float = 0.3, memory: float = 0.4, **fields: Any) -> Session:
    """Two gangs of one kind on one GPU; alone each reaches 10 mini-batches/s, packed `packed`."""
    gangs = [host(kind="k"), guest(kind="k", **fields)]
    profile = measured(gangs[0], SERVER, 10.0, {("k",): packed}, utilisation=utilisation, memory=memory)
    return session_of(SERVER, gangs, 120.0, {"k": profile})


def test_gang_is_packed_where_a_gain_was_measured() -> None:
    session = pair(8.0)
    pack(session)
    assert said(session.decisions) == [("Pack", "guest")]
    assert session.gangs["guest"].packed == "host"
    assert session.decisions[0].effect == Effect(1.0, 1.6, packing.UNIT)  # type: ignore[union-attr]


def test_packing_measured_to_lose_is_not_tried_again() -> None:
    session = pair(4.0)
    pack(session)
    assert session.decisions == []


def test_gangs_beyond_the_memory_are_not_packed() -> None:
    session = pair(8.0, memory=0.6)
    pack(session)
    assert session.decisions == []


def test_gang_never_profiled_is_not_packed() -> None:
    session = session_of(SERVER, [host(), guest()], 120.0)
    pack(session)
    assert session.decisions == []


def test_gang_that_may_not_be_packed_is_left_alone() -> None:
    session = pair(8.0, sharing=replace(PACKS, packs=False))
    pack(session)
    assert session.decisions == []


def test_gang_is_not_packed_onto_a_lower_priority() -> None:
    session = pair(8.0, priority=1)
    pack(session)
    assert session.decisions == []


def test_gang_is_packed_onto_the_least_utilised_gpus() -> None:
    server = [node("n", 2)]
    gangs = [
        turning("busy", ("n", [0]), sharing=PACKS),
        turning("calm", ("n", [1]), sharing=PACKS),
        turning("new", ("n", [0]), sharing=PACKS, running=False),
    ]
    use = {"busy": 0.6, "calm": 0.1, "new": 0.2}
    profiles = {g.name: measured(g, server, 10.0, utilisation=use[g.name], memory=0.2) for g in gangs}
    session = session_of(server, gangs, 120.0, profiles)
    pack(session)
    assert session.gangs["new"].packed == "calm"


def test_unpack_restores_the_state_before() -> None:
    before = pair(8.0)
    state = {name: (g.placement, g.running, g.packed) for name, g in before.gangs.items()}
    pack(before)
    trial = Trial("Pack", 120.0, Effect(1.0, 1.6), state["guest"][0])
    packed = [replace(g, trial=trial if g.packed else None) for g in before.gangs.values()]
    profile = measured(packed[0], SERVER, 10.0, {("k",): 3.0}, utilisation=0.3, memory=0.4)
    after = session_of(SERVER, packed, 180.0, {"k": profile})
    packing.judge(after)
    assert {name: (g.placement, g.running, g.packed) for name, g in after.gangs.items()} == state


def of_three(rates: dict[int, float], *gangs: Gang) -> Session:
    """Gangs of one kind on one GPU, where alone, in a pair and among three each has these rates."""
    beside = {("k",) * others: rate for others, rate in rates.items()}
    profile = measured(gangs[0], SERVER, 10.0, beside, utilisation=0.1, memory=0.1)
    return session_of(SERVER, gangs, 120.0, {"k": profile})


def packed_pair() -> list[Gang]:
    """A packed pair whose guest comes first by name."""
    host = turning("z-host", ("n", [0]), sharing=PACKS, kind="k")
    return [replace(host, name="a-guest", packed="z-host"), host]


@pytest.mark.parametrize(("rate", "taken"), [(5.0, True), (4.0, False)])
def test_third_gang_is_packed_only_where_that_beats_turns_with_the_pair(rate: float, taken: bool) -> None:
    """The pair reaches 1.6, one alone 1: turns give 1.3, three together 1.5 or 1.2."""
    session = of_three({1: 8.0, 2: rate}, *packed_pair(), guest(kind="k"))
    pack(session)
    assert bool(session.decisions) is taken


def test_third_gang_is_packed_onto_the_host_of_the_pair() -> None:
    session = of_three({1: 8.0, 2: 7.0}, *packed_pair(), guest(kind="k"))
    pack(session)
    assert session.gangs["guest"].packed == "z-host"


def test_one_gang_a_pass_is_packed_onto_a_bundle() -> None:
    session = of_three({1: 8.0, 2: 7.0}, host(kind="k"), guest(kind="k"), replace(guest(kind="k"), name="next"))
    pack(session)
    assert said(session.decisions) == [("Pack", "guest")]


def test_no_gang_is_packed_onto_one_that_grew() -> None:
    session = of_three({1: 8.0}, host(kind="k", asked=0), guest(kind="k"))
    pack(session)
    assert session.decisions == []
