"""Interference avoidance: placements apart from neighbours, where these would cost more."""

from __future__ import annotations

from collections.abc import Mapping

from builders.cluster import gang, known, node, placed, running, world
from muster.scheduling.gang import Gang, gpus_by_node
from muster.scheduling.planner import plan
from muster.scheduling.profile import Profile
from muster.scheduling.snapshot import Snapshot

LARGE, SMALL = Profile(model_mb=500.0), Profile(model_mb=1.0)
"""Large models lose to each other under one switch (Gandiva, figure 3); small ones do not."""


def where(new: Gang, there: list[Gang], profiles: Mapping[str, Profile], nodes: int = 1) -> dict[str, int]:
    snapshot = world([node(f"n{index}", machine=known("pcie-8")) for index in range(nodes)], [*there, new])
    snapshot = Snapshot(snapshot.nodes, snapshot.gangs, snapshot.queues, profiles)
    (decision,) = plan(snapshot, 0.0)
    return gpus_by_node(placed(decision))


def under_one_switch(gpus: int) -> bool:
    machine = known("pcie-8")
    return any(bool(machine.switched(1 << gpu) & ~(1 << gpu) & gpus) for gpu in range(8) if gpus >> gpu & 1)


def test_gangs_that_slow_each_other_get_a_switch_each() -> None:
    there = running("there", ("n0", [0]), kind="large")
    found = where(gang("new", kind="large"), [there], {"large": LARGE})
    assert not under_one_switch(found["n0"] | 1)


def test_gangs_that_do_not_slow_each_other_share_a_switch() -> None:
    there = running("there", ("n0", [0]), kind="small")
    found = where(gang("new", kind="small"), [there], {"small": SMALL})
    assert under_one_switch(found["n0"] | 1)


def test_gang_is_placed_beside_a_neighbour_where_there_is_no_other_place() -> None:
    there = running("there", ("n0", [0, 2, 4, 6]), kind="large")
    assert where(gang("new", kind="large"), [there], {"large": LARGE})


def test_gangs_that_start_in_one_pass_get_a_switch_each() -> None:
    snapshot = world([node("n0", machine=known("pcie-8"))], [gang("a", kind="large"), gang("b", kind="large")])
    decisions = plan(Snapshot(snapshot.nodes, snapshot.gangs, snapshot.queues, {"large": LARGE}), 0.0)
    first, second = (gpus_by_node(placed(decision))["n0"] for decision in decisions)
    assert not under_one_switch(first | second)
