"""The shortage that keeps a gang waiting, in one sentence with both numbers: what it needs and what is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muster.scheduling.gang import Gang
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.resources import WHOLE
from muster.scheduling.topology.node import Level


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a gang has no placement: what it needs and what is free."""

    message: str


def shortage(gang: Gang, capacity: FreeCapacity, names: Sequence[str]) -> Shortage:
    """Return the shortage of the gang on the nodes named."""
    usable = frozenset(names)
    free = {
        name: state.free.bit_count() * WHOLE + sum(part for _, part in state.parts)
        for state, alike in capacity.states.items()
        if state.free or state.parts
        for name in usable.intersection(alike)
    }
    needed = gang.gpus * WHOLE - sum(WHOLE - task.share for task in gang.tasks)
    largest = max((task.gpus for task in gang.tasks), default=0)
    needs = f"needs {_gpus(needed)} GPUs"
    if len(gang.tasks) > 1:
        needs += f" ({len(gang.tasks)} pods of up to {largest})" if largest else f" ({len(gang.tasks)} pods)"
    if gang.required is not Level.CLUSTER:
        freest = _freest_domain(gang.required, free, capacity)
        has = f"at most {_gpus(freest[1])} are free in one ({freest[0]})" if freest else "none are free"
        return Shortage(f"{needs} in one {gang.required.name.lower()}; {has}")
    total = sum(free.values())
    obstacle = _obstacle(gang, largest, capacity, free) if free and total >= needed else ""
    return Shortage(f"{needs}; {_gpus(total)} free on {len(free)} of {len(names)} nodes that it may use{obstacle}")


def _gpus(thousandths: int) -> str:
    return f"{thousandths / WHOLE:g}"


def _obstacle(gang: Gang, largest: int, capacity: FreeCapacity, free: Mapping[str, int]) -> str:
    """Why a gang does not fit although enough GPUs are free."""
    share = max((task.share for task in gang.tasks if task.gpus == largest), default=WHOLE)
    if share < WHOLE:
        most = max(WHOLE if capacity.free[name] else max(part for _, part in capacity.parts[name]) for name in free)
        if most < share:
            return f", at most {_gpus(most)} of one GPU"
    else:
        counts = [capacity.free[name].bit_count() for name in free]
        if max(counts) < largest:
            return f", at most {max(counts)} on one node"
        pods = sum(task.gpus == largest for task in gang.tasks)
        fitting = sum(count // largest for count in counts) if largest else pods
        if fitting < pods:
            return f", in pieces that hold {fitting} of its {pods} pods of {largest}"
    return ", but not together with its CPU and memory"


def _freest_domain(level: Level, free: Mapping[str, int], capacity: FreeCapacity) -> tuple[str, int] | None:
    sums: dict[str, int] = {}
    for name, count in free.items():
        domain = capacity.nodes[name].domain(level)
        sums[domain] = sums.get(domain, 0) + count
    return max(sums.items(), key=lambda item: (item[1], item[0])) if sums else None
