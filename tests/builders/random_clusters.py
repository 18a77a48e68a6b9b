"""Hypothesis strategies for legal snapshots of few nodes and gangs, which so compete often."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from builders.cluster import gang, known, tasks, without, world
from muster.scheduling.gang import Assigned, Gang, Sensitivity, Task
from muster.scheduling.resources import PLENTY, Resources
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint, Requirement, Taint, Toleration
from muster.scheduling.topology.links import GpuSet, gpu_set, indices
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Level, Node

QUEUES = ("default", "other", "third")
MACHINES = (unknown_machine(2), unknown_machine(4), known("pcie-8"), known("a100-pcie"), known("v100"))
TAINT = Taint("dedicated", "research")
CONSTRAINTS = (
    Constraint(labels=(("pool", "a"),)),
    Constraint(terms=((Requirement("pool", "NotIn", ("a",)),), (Requirement("metadata.name", "In", ("n0",)),))),
    Constraint(tolerations=(Toleration("dedicated", "Exists"),)),
)
RESTS = (Resources(1000, 1 << 30, 1), Resources(4000, 1 << 30, 1), Resources(0, 0, 1))


def subset(draw: st.DrawFn, of: GpuSet, size: int) -> GpuSet:
    return gpu_set(draw(st.permutations(indices(of)))[:size])


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    machine = draw(st.sampled_from(MACHINES))
    broken = draw(st.sampled_from((0, 0, 0, 1, 2)))
    healthy = machine.all & ~broken
    foreign = subset(draw, healthy, draw(st.integers(0, 2)))
    return Node(
        name,
        machine,
        healthy,
        free=healthy & ~foreign,
        leaving=foreign if draw(st.booleans()) else 0,
        resources=draw(st.sampled_from((PLENTY, PLENTY, Resources(8000, 8 << 30, 6)))),
        rack=draw(st.sampled_from(("r0", "r1"))),
        block=draw(st.sampled_from(("b0", "b0", "b1"))),
        labels={"pool": draw(st.sampled_from(("a", "b")))},
        taints=(TAINT,) if draw(st.integers(0, 4)) == 4 else (),
    )


@st.composite
def gangs(draw: st.DrawFn, name: str) -> Gang:
    """A waiting gang."""
    where = draw(st.sampled_from((ANYWHERE, ANYWHERE, *CONSTRAINTS)))
    rest = draw(st.sampled_from(RESTS))
    count = draw(st.integers(1, 4))
    members = tasks(name, count, draw(st.sampled_from((1, 1, 2, 2, 3, 4, 0))), resources=rest, where=where)
    if draw(st.integers(0, 3)) == 3:
        members += tasks(name, draw(st.integers(1, 2)), draw(st.integers(0, 1)), role="ps", resources=rest)
    return gang(
        name,
        tasks=members,
        queue=draw(st.sampled_from(QUEUES)),
        arrived=float(draw(st.integers(0, 2))),
        priority=draw(st.sampled_from((0, 0, 0, 5, 9))),
        spread=draw(st.integers(0, 3)) == 3,
        required=draw(st.sampled_from((Level.CLUSTER, Level.CLUSTER, Level.BLOCK, Level.RACK, Level.NODE))),
        preferred=draw(st.sampled_from(Level)),
        sensitivity=draw(st.sampled_from(Sensitivity)),
        fewest=draw(st.sampled_from((None, None, 1, 2))),
        absent=draw(st.sampled_from((0, 0, 0, 0, 1))),
        not_before=draw(st.sampled_from((0.0, 0.0, 0.0, 90.0))),
        avoid=draw(st.sampled_from((frozenset(), frozenset({"n0"})))),
    )


@st.composite
def placed_gangs(draw: st.DrawFn, name: str, left: dict[str, Node]) -> Gang | None:
    """A gang that runs on free GPUs of `left`, or None where there are none."""
    places: list[Assigned] = []
    for index in range(draw(st.integers(1, 3))):
        usable = [one.name for one in left.values() if one.free & ~sum(p.gpus for p in places if p.node == one.name)]
        if not usable:
            break
        where = draw(st.sampled_from(usable))
        free = left[where].free & ~sum(p.gpus for p in places if p.node == where)
        gpus = subset(draw, free, draw(st.integers(1, free.bit_count())))
        task = Task(f"{name}-worker-{index}", gpus.bit_count(), draw(st.sampled_from(RESTS)), index=index)
        places.append(Assigned(task, where, gpus, index))
    if not places:
        return None
    runs = gang(name, tasks=tuple(p.task for p in places), placement=tuple(places), queue=draw(st.sampled_from(QUEUES)))
    runs = replace(
        runs,
        priority=draw(st.sampled_from((0, 0, 5))),
        preemptible=draw(st.booleans()),
        started=float(draw(st.integers(0, 2))),
    )
    if draw(st.booleans()):
        return runs
    if draw(st.booleans()):
        return replace(runs, leave=draw(st.sampled_from(("", "n0", "r0"))))
    return replace(runs, resize=True, tasks=tasks(name, draw(st.integers(1, 4)), runs.tasks[0].gpus))


@st.composite
def worlds(draw: st.DrawFn, most: int = 6) -> Snapshot:
    """A snapshot of 1 to 5 nodes, up to 3 running gangs and 1 to `most` waiting ones."""
    fleet = [draw(nodes(f"n{i}")) for i in range(draw(st.integers(1, 5)))]
    left = {one.name: one for one in fleet}
    run: list[Gang] = []
    for i in range(draw(st.integers(0, 3))):
        found = draw(placed_gangs(f"run{i}", left))
        if found:
            run.append(found)
            left = without(left, found.placement)
    wait = [draw(gangs(f"wait{i}")) for i in range(draw(st.integers(1, most)))]
    limits = {name: draw(st.sampled_from((None, None, 2, 4, 7))) for name in QUEUES}
    return world(fleet, [*run, *wait], limits)
