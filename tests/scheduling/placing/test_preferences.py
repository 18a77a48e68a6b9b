"""Nodes that a gang prefers, by weight: after links, before how full they are."""

from __future__ import annotations

from typing import Any

import pytest

from builders.cluster import cluster, gang, known, node
from muster.scheduling.gang import Gang, Sensitivity
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import Shortage, place
from muster.scheduling.topology.eligibility import Constraint, Requirement, Taint, Toleration
from muster.scheduling.topology.node import Level, Node


def prefers(**weights: int) -> Constraint:
    return Constraint(preferred=tuple((weight, (Requirement("disk", "In", (disk,)),)) for disk, weight in weights.items()))


def disk(name: str, kind: str, gpus: int = 8, **fields: Any) -> Node:
    return node(name, gpus, labels={"disk": kind}, **fields)


def nodes_of(wanted: Gang, *nodes: Node) -> list[str]:
    found = place(wanted, FreeCapacity(cluster(*nodes)))
    assert not isinstance(found, Shortage), found.message
    return sorted({one.node for one in found})


@pytest.mark.parametrize(
    "fields", [{}, {"spread": True}, {"sensitivity": Sensitivity.LOW}], ids=["fast", "spread", "any links"]
)
def test_gang_goes_to_the_node_that_it_prefers_most_though_another_is_fuller(fields: dict[str, Any]) -> None:
    wanted = gang("g", 1, 2, each={"where": prefers(ssd=5, nvme=9)}, **fields)
    assert nodes_of(wanted, disk("a", "hdd", free=2), disk("b", "ssd"), disk("c", "nvme"), disk("d", "nvme")) == ["c"]


def test_links_come_before_preferences() -> None:
    fast, slow = disk("fast", "hdd", machine=known("dgx-a100")), disk("slow", "ssd")
    assert nodes_of(gang("g", 1, 2, each={"where": prefers(ssd=100)}), fast, slow) == ["fast"]
    one, two = disk("one", "hdd"), [disk(f"two{i}", "ssd", free=4) for i in range(2)]
    assert nodes_of(gang("g", 2, 4, each={"where": prefers(ssd=100)}), one, *two) == ["one"]


def test_gang_over_nodes_goes_to_those_that_it_prefers() -> None:
    nodes = [disk(f"{kind}{i}", kind, rack=kind) for kind in ("hdd", "ssd") for i in range(2)]
    wanted = gang("g", 4, 4, each={"where": prefers(ssd=1)})
    assert nodes_of(wanted, *nodes) == ["ssd0", "ssd1"]
    assert nodes_of(gang("g", 4, 4, required=Level.RACK, each={"where": prefers(hdd=1)}), *nodes) == ["hdd0", "hdd1"]


def test_soft_taint_is_avoided_unless_it_is_tolerated() -> None:
    tainted = node("a", 8, free=2, taints=(Taint("busy", "", "PreferNoSchedule"),))
    assert nodes_of(gang("g", 1, 2), tainted, node("b")) == ["b"]
    assert nodes_of(gang("g", 2, 5), tainted, node("b"), node("c")) == ["b", "c"]
    tolerant = Constraint(tolerations=(Toleration("busy", "Exists"),))
    assert nodes_of(gang("g", 1, 2, each={"where": tolerant}), tainted, node("b")) == ["a"]
    assert nodes_of(gang("g", 1, 2), tainted) == ["a"]
