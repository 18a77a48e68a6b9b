"""Local search: gangs go where the GPUs make most of them, alone or packed, and no gang moves for a small gain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders.cluster import cluster, node
from builders.sessions import PACKS, TURNS, said, session_of, turning
from muster.machines.catalogue import machine
from muster.scheduling.decisions import VERBS, Assignment, Pack
from muster.scheduling.gang import Gang, Sensitivity, gpus_by_node
from muster.scheduling.profile import Profile, Shape, Via
from muster.scheduling.rebalancing import local_search
from muster.scheduling.session import Session
from muster.scheduling.settings import DEFAULTS, Settings
from muster.scheduling.speed.shapes import shape_of
from muster.scheduling.topology.machine import machine_type
from muster.scheduling.topology.node import Node

NOW = 36_000.0
NO_PACKING = Settings(verbs=VERBS - {Pack})
FAST, SLOW = node("fast", 1, model="V100"), node("slow", 1, model="K80")


def known(fast: float, slow: float, beside: dict[str, float] | None = None, **fields: Any) -> Profile:
    """The rates of a kind alone on both models; and those packed with other kinds, on the slow model half as high."""
    rates: dict[Any, float] = {(Shape(m, (1,), float("inf")), ()): rate for m, rate in (("V100", fast), ("K80", slow))}
    for other, rate in (beside or {}).items():
        rates[Shape("V100", (1,), float("inf")), ((Via.GPU, other),)] = rate
        rates[Shape("K80", (1,), float("inf")), ((Via.GPU, other),)] = rate / 2
    return Profile(rates, **fields)


def pairable(first: float, second: float, **fields: Any) -> dict[str, Profile]:
    """Two kinds that are a tenth as fast on the slow GPU, and have these rates packed with each other."""
    return {"a": known(1.0, 0.1, {"b": first}, **fields), "b": known(1.0, 0.1, {"a": second}, **fields)}


def on(name: str, where: str, **fields: Any) -> Gang:
    return turning(name, (where, [0]), **{"sharing": PACKS, **fields})


def improved(
    profiles: dict[str, Profile], *gangs: Gang, nodes: tuple[Node, ...] = (FAST, SLOW), settings: Settings = DEFAULTS
) -> Session:
    session = session_of(nodes, gangs, NOW, profiles, settings=settings)
    local_search.improve(session)
    return session


def where(session: Session) -> dict[str, str]:
    return {name: next(iter(gpus_by_node(gang.placement))) for name, gang in session.gangs.items() if gang.placement}


def test_gang_moves_to_idle_gpus_on_which_it_is_faster() -> None:
    session = improved({"a": known(2.0, 1.0)}, on("a", "slow"))
    assert said(session.decisions) == [("Migrate", "a")]
    assert where(session) == {"a": "fast"}


def test_faster_gpus_go_to_the_gang_that_gains_most() -> None:
    """Both gangs are faster on the V100; it goes to the one that is ten times as fast there."""
    profiles = {"a": known(1.0, 0.8), "b": known(1.0, 0.1)}
    session = improved(profiles, on("a", "fast", sharing=TURNS), on("b", "slow", sharing=TURNS))
    assert where(session) == {"a": "slow", "b": "fast"}


def test_gangs_swap_by_steps_that_are_each_possible() -> None:
    session = improved({"a": known(1.0, 0.8), "b": known(1.0, 0.1)}, on("a", "fast"), on("b", "slow"), settings=NO_PACKING)
    assert [verb for verb, _ in said(session.decisions)] == ["Requeue", "Migrate", "Place"]
    (effect,) = {decision.effect for decision in session.decisions if isinstance(decision, Assignment)}
    assert effect is not None
    assert effect.before == pytest.approx(1.1)
    assert effect.after == pytest.approx(1.8)


def test_no_gang_moves_for_a_gain_below_the_threshold() -> None:
    """The swap gains 0.19 GPUs, and each of the two moves has to gain 0.1."""
    profiles = {"a": known(1.0, 0.8), "b": known(1.0, 0.61)}
    assert improved(profiles, on("a", "fast", sharing=TURNS), on("b", "slow", sharing=TURNS)).decisions == []
    profiles["b"] = known(1.0, 0.59)
    assert improved(profiles, on("a", "fast", sharing=TURNS), on("b", "slow", sharing=TURNS)).decisions != []


def test_two_gangs_share_the_fast_gpu_where_that_is_measured_to_gain() -> None:
    session = improved(pairable(0.8, 0.8), on("a", "fast"), on("b", "slow"))
    assert said(session.decisions) == [("Requeue", "b"), ("Pack", "b")]
    (pack,) = (decision for decision in session.decisions if isinstance(decision, Pack))
    assert pack.onto == "a"
    assert where(session) == {"a": "fast", "b": "fast"}


@pytest.mark.parametrize("beside", [0.4, 0.0])
def test_gangs_that_would_lose_are_not_packed(beside: float) -> None:
    assert improved(pairable(beside, 0.75), on("a", "fast"), on("b", "slow")).decisions == []


def test_packed_pair_that_loses_comes_apart() -> None:
    host, guest = on("a", "fast"), on("b", "fast", packed="a")
    session = improved(pairable(0.4, 0.4) | {"b": known(1.0, 0.9, {"a": 0.4})}, host, guest)
    assert where(session) == {"a": "fast", "b": "slow"}


def test_only_gangs_that_may_be_packed_share_a_gpu() -> None:
    assert improved(pairable(0.8, 0.8), on("a", "fast", sharing=TURNS), on("b", "slow")).decisions == []
    assert improved(pairable(0.8, 0.8), on("a", "fast"), on("b", "slow"), settings=NO_PACKING).decisions == []


def test_packed_pair_has_to_fit_into_memory() -> None:
    assert improved(pairable(0.8, 0.8, memory=0.6), on("a", "fast"), on("b", "slow")).decisions == []
    assert improved(pairable(0.8, 0.8, memory=0.5), on("a", "fast"), on("b", "slow")).decisions != []


def test_lower_priority_neither_joins_nor_displaces_a_higher_one() -> None:
    gains = {"a": known(1.0, 0.8, {"b": 1.0}), "b": known(1.0, 0.1, {"a": 1.0})}
    assert improved(gains, on("a", "fast", priority=5), on("b", "slow")).decisions == []
    assert improved(gains, on("a", "fast", priority=5), on("b", "slow", priority=5)).decisions != []


def test_exclusive_gang_stays() -> None:
    mine = on("a", "fast", sharing=replace(TURNS, slices=False))
    assert improved({"a": known(1.0, 0.8), "b": known(1.0, 0.1)}, mine, on("b", "slow")).decisions == []


def test_gang_moves_only_where_it_ran_long_enough_for_the_cost() -> None:
    profiles = {"a": known(2.0, 1.0, migrate_seconds=600.0)}
    assert improved(profiles, on("a", "slow", started=NOW - 1100.0)).decisions == []
    assert improved(profiles, on("a", "slow", started=NOW - 1300.0)).decisions != []


def test_no_move_pays_where_neighbours_lose_more_than_the_gang_is_worth() -> None:
    """Its neighbour under each of the two switches nearly stops, a little less so under the one with an idle GPU."""
    server = node("n", machine=machine_type(machine("pcie-8").links), healthy=0b1111)
    alone = Shape("", (1,), float("inf"))

    def slowed(**beside: float) -> Profile:
        return Profile({(alone, ()): 1.0} | {(alone, ((Via.SWITCH, kind),)): rate for kind, rate in beside.items()})

    profiles = {"new": slowed(much=0.2, less=0.2), "much": slowed(new=0.0), "less": slowed(new=0.3)}
    there = [turning(name, ("n", [gpu])) for name, gpu in (("new", 2), ("much", 3), ("less", 1))]
    session = session_of([server], [replace(there[0], started=NOW), *there[1:]], NOW, profiles)
    gpus = [gpus_by_node(session.gangs["new"].placement), {"n": 0b1}]
    assert [round(session.rates.worth(session.gangs["new"], one, session.occupancy), 2) for one in gpus] == [-0.8, -0.5]
    local_search.improve(session)
    assert session.decisions == []


def test_gangs_of_several_gpus_swap() -> None:
    nodes = (node("fast", 4, model="V100"), node("slow", 4, model="K80"))
    rates = {"a": 0.9, "b": 0.2}
    profiles = {
        name: Profile({(Shape(model, (4,), 6.0), ()): rate for model, rate in (("V100", 1.0), ("K80", slow))})
        for name, slow in rates.items()
    }
    gangs = [turning(name, (where, [0, 1, 2, 3])) for name, where in (("a", "fast"), ("b", "slow"))]
    assert where(improved(profiles, *gangs, nodes=nodes)) == {"a": "slow", "b": "fast"}


def test_gang_is_not_moved_to_a_node_without_its_resources() -> None:
    closed = replace(FAST, resources=FAST.resources._replace(cpu=0))
    heavy = on("b", "slow", resources=FAST.resources._replace(cpu=1, memory=0, pods=1))
    assert improved({"b": known(1.0, 0.1)}, heavy, nodes=(closed, SLOW)).decisions == []


def test_best_placements_stay_as_they_are() -> None:
    """Neither the rates that found the change nor new ones find another."""
    gangs = [on("a", "fast"), on("b", "slow")]
    session = improved(pairable(0.8, 0.8), *gangs)
    again = improved(pairable(0.8, 0.8), *(replace(session.gangs[gang.name], since=NOW) for gang in gangs))
    assert again.decisions == []


def test_gang_is_moved_by_measured_rates_and_by_no_prior() -> None:
    """Its two GPUs are on two nodes; that it would be faster on one is a prior until it was measured there."""
    nodes = tuple(node(name, machine=machine_type(machine("dgx-a100").links), nic_gbps=1.25) for name in ("m", "n"))
    apart = turning("a", ("m", [0]), ("n", [0]), sensitivity=Sensitivity.HIGH)
    here, there = (shape_of(gpus, cluster(*nodes)) for gpus in ({"m": 0b1, "n": 0b1}, {"m": 0b11}))
    session = improved({"a": Profile({(here, ()): 1.0})}, apart, nodes=nodes)
    assert session.rates.relative(apart, here) < 0.8
    assert session.decisions == []
    assert said(improved({"a": Profile({(here, ()): 1.0, (there, ()): 2.0})}, apart, nodes=nodes).decisions) == [
        ("Migrate", "a")
    ]
