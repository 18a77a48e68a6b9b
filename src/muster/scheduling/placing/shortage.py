"""What a gang lacks that has no placement, in one sentence: what it needs, what is free, which nodes cannot take its pods.

Where no node could take a pod if it were empty, that is all there is to say. Otherwise the sentence is about what is free on
the nodes that the gang may use, and then about the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from muster.scheduling.counting import counted
from muster.scheduling.gang import Gang
from muster.scheduling.placing.batches import Ask, Batches
from muster.scheduling.placing.exclusions import Excluded, Lack, exclusions, largest, sentence
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.search import Search
from muster.scheduling.resources import WHOLE
from muster.scheduling.topology.fleet import Fleet
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.node import Level

Free = Mapping[str, int]
"""The free thousandths of GPUs, by node that has any."""
Obstacle = Callable[[Free], str]
"""Why a gang does not fit although enough GPUs are free on some nodes."""
_WORDS = {"cpu": "CPU", "pods": "pod slots"}


def shortage(gang: Gang, capacity: FreeCapacity, closed: Collection[str], *, alone: bool = False) -> str:
    """Return what the gang lacks on nodes that are not closed; `alone` says that nobody else runs there."""
    fleet, batches = capacity.fleet, Batches(gang.tasks)
    needs = _needs(gang)
    found = {ask: exclusions(gang, ask, fleet) for ask in batches.asks}
    able = {ask: _able(excluded, fleet) for ask, excluded in found.items()}
    for batch in batches.all:
        if not able[batch.ask]:
            pod = "a pod" if len(found) == 1 else f"a pod of role {batch.tasks[0].role}"
            return f"{needs}; 0 of {len(fleet.names)} nodes can take {pod}{_because(found[batch.ask], fleet.names)}"
    usable = frozenset().union(*able.values())
    free = _free(capacity, usable.difference(closed)) if gang.gpus else dict.fromkeys(usable.difference(closed), 0)

    def obstacle(free: Free) -> str:
        return _rules(gang, capacity, closed, tuple(free)) or _obstacle(batches, capacity, free)

    has = _what_is_free(gang, capacity, usable, free, obstacle)
    parts = [needs, f"{has}, with nobody else running" if alone and has else has, _unlabelled(gang, usable, fleet)]
    if others := fleet.names.difference(usable, gang.refused):
        why = _because(found[batches.asks[0]], others)
        parts.append(f"{len(others)} of {len(fleet.names)} nodes cannot take a pod{why}")
    return "; ".join(filter(None, parts))


def _needs(gang: Gang) -> str:
    needed, most = _needed(gang), max((task.gpus for task in gang.tasks), default=0)
    needs = f"needs {_gpus(needed)} GPU{'' if needed == WHOLE else 's'}"
    if len(gang.tasks) > 1:
        needs += f" ({len(gang.tasks)} pods of up to {most})" if most else f" ({len(gang.tasks)} pods)"
    return needs if gang.required is Level.CLUSTER else f"{needs} in one {gang.required.name.lower()}"


def _needed(gang: Gang) -> int:
    return gang.gpus * WHOLE - sum(WHOLE - task.share for task in gang.tasks)


def _gpus(thousandths: int) -> str:
    return f"{thousandths / WHOLE:g}"


def _because(found: Sequence[Excluded], among: frozenset[str]) -> str:
    why = sentence(found, among)
    return f": {why}" if why else ""


def _able(found: Sequence[Excluded], fleet: Fleet) -> frozenset[str]:
    return fleet.names.difference(*(excluded.nodes for excluded in found))


def _free(capacity: FreeCapacity, usable: frozenset[str]) -> dict[str, int]:
    return {
        name: state.free.bit_count() * WHOLE + sum(part for _, part in state.parts)
        for state, alike in capacity.states.items()
        if state.free or state.parts
        for name in usable.intersection(alike)
    }


def _what_is_free(gang: Gang, capacity: FreeCapacity, usable: frozenset[str], free: Free, obstacle: Obstacle) -> str:
    if gang.required in (Level.RACK, Level.BLOCK):
        return _in_one_domain(gang, capacity, usable, free, obstacle)
    if not gang.gpus:
        return f"{counted(len(usable), 'node')} that it may use{obstacle(free)}"
    needed, total = _needed(gang), sum(free.values())
    if gang.required is Level.NODE:
        name = max(free, key=lambda name: (free[name], name), default="")
        return f"at most {_gpus(free[name])} are free in one ({name})" if name else "none are free"
    why = obstacle(free) if free and total >= needed else ""
    return f"{_gpus(total)} free on {len(free)} of {len(usable)} nodes that it may use{why}"


def _in_one_domain(gang: Gang, capacity: FreeCapacity, usable: frozenset[str], free: Free, obstacle: Obstacle) -> str:
    """What is free in the rack or block with most; nothing where there may be none."""
    fleet, domains = capacity.fleet, dict[str, dict[str, int]]()
    outside = usable & fleet.outside[gang.required]
    for name in free.keys() - outside:
        domains.setdefault(fleet.domains[gang.required][name], {})[name] = free[name]
    if not domains:
        return "" if outside == usable else "none are free"
    freest = max(domains, key=lambda domain: (sum(domains[domain].values()), domain))
    most = sum(domains[freest].values())
    why = obstacle(domains[freest]) if most >= _needed(gang) else ""
    return f"at most {_gpus(most)} are free in one ({freest.removeprefix('/')}){why}"


def _unlabelled(gang: Gang, usable: frozenset[str], fleet: Fleet) -> str:
    """How many nodes are in no rack or block, where the gang requires one."""
    outside = usable & fleet.outside[gang.required]
    level = gang.required.name.lower()
    return f"{len(outside)} of {len(usable)} nodes that it may use have no {level} label" if outside else ""


# Why a gang does not fit although enough GPUs are free


def _rules(gang: Gang, capacity: FreeCapacity, closed: Collection[str], names: Sequence[str]) -> str:
    """The rules between pods, where the gang would fit but for them."""
    tasks = gang.at_fewest().tasks
    bounds = Search(gang, tasks, capacity).bounds
    if bounds is None or not Search(gang, tasks, capacity, avoid={*closed, *gang.refused}, ruled=False).run():
        return ""
    return f", but not as rules between pods ask: {bounds.describe(names)}"


def _obstacle(batches: Batches, capacity: FreeCapacity, free: Free) -> str:
    ask, pods = batches.asks[0], batches.counts[0]
    if ask.share < WHOLE:
        most = max(WHOLE if capacity.free[name] else max(part for _, part in capacity.parts[name]) for name in free)
        return f", at most {_gpus(most)} of one GPU" if most < ask.share else _beside_gpus(ask, pods, capacity, free)
    counts = [capacity.free[name].bit_count() for name in free]
    if max(counts, default=0) < ask.gpus:
        return f", at most {max(counts)} on one node"
    fitting = sum(count // ask.gpus for count in counts) if ask.gpus else pods
    if fitting < pods:
        return f", in pieces that hold {fitting} of its {pods} pods of {ask.gpus}"
    return _beside_gpus(ask, pods, capacity, free)


def _beside_gpus(ask: Ask, pods: int, capacity: FreeCapacity, free: Free) -> str:
    """Which other resource is short on the nodes with free GPUs for a pod."""
    room: list[tuple[int, str, Lack]] = []
    for name, asked in ask.resources.asked():
        left = {node: max(0, capacity.resources(node).left(name)) for node in free}
        holds = sum(min(_pods_by_gpus(ask, pods, capacity.free[node]), left[node] // asked) for node in free)
        room.append((holds, name, Lack(name, max(left.values(), default=0), asked)))
    holds, name, lack = min(room, key=lambda one: one[0], default=(pods, "", None))
    if holds >= pods or lack is None:
        return ", but not together with what else its pods ask for"
    size = f" ({largest(lack)})" if not holds and lack.has else ""
    return f", but {_WORDS.get(name, name)} for {holds} of its {counted(pods, 'pod')}{size}"


def _pods_by_gpus(ask: Ask, pods: int, free: GpuSet) -> int:
    return free.bit_count() // ask.gpus if ask.gpus and ask.share == WHOLE else pods
