"""The tasks to come, as the planner derives them from the gangs of a snapshot, and how they decide placements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random

from builders.cluster import cluster, gang, node, tasks
from muster.scheduling.decisions import Place
from muster.scheduling.gang import Gang, Sensitivity, Sharing, Task, gpus_by_node
from muster.scheduling.gang_index import GangIndex
from muster.scheduling.placing.demand import ENOUGH
from muster.scheduling.placing.fragmentation import Fragmentation, Free
from muster.scheduling.planner import plan
from muster.scheduling.profile import NO_NEIGHBOURS, Profile
from muster.scheduling.resources import PLENTY, Resources
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.speed.shapes import shape_of
from muster.scheduling.topology.fleet import Fleet
from muster.scheduling.topology.node import Node

NODES = {name: node(name, 8) for name in ("a", "b")}


class Counted:
    """The demand of a gang index that follows snapshots, as in the planner's cache."""

    def __init__(self) -> None:
        self._index = GangIndex()

    def said(self, gangs: list[Gang], fleet: Fleet) -> Fragmentation | None:
        self._index.follow(gangs)
        return self._index.demand.fragmentation(fleet)


def many(number: int, gpus: int) -> list[Gang]:
    return [gang(f"g{gpus}-{index:03}", 1, gpus) for index in range(number)]


def placed(
    wanted: Gang, nodes: dict[str, Node], others: Iterable[Gang] = (), profiles: Mapping[str, Profile] | None = None
) -> dict[str, int]:
    """The GPUs that a pass over all these gangs gives to one of them, by node."""
    decided = plan(Snapshot(nodes, (*others, wanted), profiles=profiles or {}), 0.0)
    (found,) = [one.placement for one in decided if isinstance(one, Place) and one.gang.name == wanted.name]
    return {name: gpus.bit_count() for name, gpus in gpus_by_node(found).items()}


def test_too_few_tasks_give_no_fragmentation() -> None:
    fleet = Fleet(NODES)
    for gangs, tells in (
        (many(ENOUGH - 1, 1), False),
        (many(ENOUGH, 1), True),
        ([gang("g", tasks=tasks("g", ENOUGH, 0))], False),
    ):
        assert bool(Counted().said(gangs, fleet)) == tells


def test_fragmentation_of_a_mix_is_kept_for_when_it_returns() -> None:
    counted, fleet = Counted(), Fleet(NODES)
    first = counted.said(many(40, 1), fleet)
    assert counted.said(many(63, 1), fleet) is first
    assert counted.said(many(64, 1), fleet) is not first
    assert counted.said(many(33, 1), fleet) is first
    assert counted.said(many(33, 1), Fleet(NODES)) is not first


def test_earlier_gangs_make_no_difference() -> None:
    random, counted, fleet = Random(3), Counted(), Fleet(NODES)
    there = [*many(50, 1), *many(50, 2), *many(50, 4), *many(20, 8)]
    free = Free(5, (), PLENTY, 1)
    for _ in range(20):
        some = random.sample(there, 120)
        found, anew = (one.said(some, fleet) for one in (counted, Counted()))
        assert found
        assert anew
        assert found.unused(free) == anew.unused(free)


def test_gang_goes_where_the_rest_stays_useful_to_the_other_gangs() -> None:
    """The others need eight CPUs for each GPU: the GPUs of a node with four CPUs are lost to them anyway."""
    needs = Resources(cpu=8, pods=1)
    others = [gang(f"r{i:02}", tasks=(Task("t", 1, needs),), not_before=1.0) for i in range(ENOUGH)]
    nodes = cluster(
        node("many", 8, free=3, resources=Resources(64, 64, 64)), node("few", 8, free=4, resources=Resources(4, 64, 64))
    )
    wanted = gang("wanted", tasks=(Task("t", 1, Resources(cpu=1, pods=1)),))
    assert placed(wanted, nodes, others) == {"few": 1}
    assert placed(wanted, nodes, others[1:-1]) == {"many": 1}, "too few tasks to tell: the tightest fit"


def test_gang_goes_where_it_was_measured_to_train_fastest() -> None:
    nodes = cluster(node("old", 8, free=2, model="K80"), node("new", 8, model="V100"))
    rates = {(shape_of({name: 0b11}, nodes), NO_NEIGHBOURS): rate for name, rate in (("old", 1.0), ("new", 3.0))}
    measured = {"vgg": Profile(rates=rates)}
    wanted = gang("g", 1, 2, kind="vgg")
    assert placed(wanted, nodes, profiles=measured) == {"new": 2}
    assert placed(wanted, nodes) == {"old": 2}, "nothing known: the tightest fit"
    assert placed(replace(wanted, sensitivity=Sensitivity.LOW), nodes, profiles=measured) == {"old": 2}
    assert placed(replace(wanted, sharing=Sharing(slices=True)), nodes, profiles=measured) == {"new": 2}
