"""Where a gang goes: a node and GPUs for each of its tasks, or a sentence about what is missing.

The search goes from near to far: all tasks on one node, in one rack, in one block, anywhere; the gang's `preferred` level
says where it starts and `required` where it ends. Of the domains of a level, packing takes the fullest that holds the whole
gang (so that large holes stay large), spreading the emptiest. Inside a domain, packing uses as few nodes as it can and ends
on the tightest fit. Ranks then follow the topology: block, rack, node, GPU.

`Room` is the free capacity during one plan: the only thing here that changes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from muster.scheduling.eligibility import Constraint
from muster.scheduling.fleet import Fleet
from muster.scheduling.links import GpuSet
from muster.scheduling.machine import MachineType
from muster.scheduling.snapshot import Assigned, Gang, Level, Node, Placement, Resources, Task

_ROLE_ORDER = {"chief": 0, "worker": 1, "ps": 2, "evaluator": 3}


@dataclass(frozen=True, slots=True)
class Shortage:
    """What keeps a gang out, in numbers: what it needs and what there is."""

    message: str


State = tuple[MachineType, GpuSet, Resources]
"""What of a node decides how many tasks it takes, where it may have them."""


class Room:
    """Free GPUs and other resources of each node, as a plan takes and gives back.

    Nodes in the same state are kept together, by name: a search looks at states, of which there are few, not at nodes.
    """

    def __init__(self, nodes: Mapping[str, Node], fleet: Fleet | None = None) -> None:
        self.nodes = nodes
        self.fleet = fleet or Fleet(nodes)
        self.free: dict[str, GpuSet] = {}
        self.total = 0
        """Free GPUs of all nodes."""
        self.touched: set[str] = set()
        """Nodes that are no longer as `nodes` has them."""
        self._rest: dict[str, Resources] = {}
        self._alike: dict[State, list[str]] = {}
        for name, node in nodes.items():
            self._put(name, node.free, node.rest)
        for names in self._alike.values():
            names.sort()

    def follow(self, nodes: Mapping[str, Node]) -> None:
        """Become the room of nodes whose fixed parts are the same; what did not change costs next to nothing."""
        before, self.nodes = self.nodes, nodes
        changed = {name for name, node in nodes.items() if before[name] is not node}
        for name in changed | self.touched:
            self.set(name, nodes[name].free, nodes[name].rest)
        self.touched = set()

    def set(self, name: str, free: GpuSet, rest: Resources | None = None) -> None:
        """Say what is free of a node from now on."""
        state = self.state(name)
        alike = self._alike[state]
        if len(alike) == 1:
            del self._alike[state]
        else:
            del alike[bisect_left(alike, name)]
        self.total -= self.free[name].bit_count()
        names = self._put(name, free, self._rest[name] if rest is None else rest)
        insort(names, names.pop())
        self.touched.add(name)

    def state(self, name: str) -> State:
        return (self.nodes[name].machine, self.free[name], self._rest[name])

    @property
    def states(self) -> Mapping[State, Sequence[str]]:
        """The nodes by state; those of a state by name."""
        return self._alike

    def take(self, placement: Placement) -> None:
        for place in placement:
            self.set(place.node, self.free[place.node] & ~place.gpus, self._rest[place.node] - place.task.rest)

    def give_back(self, placement: Placement) -> None:
        for place in placement:
            if place.node in self.nodes:
                free = self.free[place.node] | (place.gpus & self.nodes[place.node].healthy)
                self.set(place.node, free, self._rest[place.node] + place.task.rest)

    def copy(self) -> Room:
        twin = Room.__new__(Room)
        twin.nodes, twin.fleet, twin.total = self.nodes, self.fleet, self.total
        twin.free, twin._rest, twin.touched = dict(self.free), dict(self._rest), set(self.touched)
        twin._alike = {state: list(names) for state, names in self._alike.items()}
        return twin

    def only(self, spots: Mapping[str, GpuSet]) -> Room:
        """The room in which these GPUs are free, and no others."""
        twin = Room({}, self.fleet)
        twin.nodes = self.nodes
        for name in sorted(self.nodes):
            twin._put(name, spots.get(name, 0), self._rest[name])
        return twin

    def settled(self) -> Room:
        """The room there will be when the pods that are on their way out have gone."""
        later = self.copy()
        for name, node in self.nodes.items():
            if node.leaving:
                later.set(name, later.free[name] | (node.leaving & node.healthy))
        return later

    def without(self, names: Iterable[str]) -> Room:
        """The room with the nodes named closed."""
        less = self.copy()
        for name in names:
            less.close(name)
        return less

    def close(self, name: str) -> None:
        """Let nothing more onto the node, be it a task without GPUs."""
        if name in self.free:
            self.set(name, 0, _CLOSED)

    def rest(self, name: str) -> Resources:
        return self._rest[name]

    def admitted(self, where: Constraint) -> frozenset[str]:
        """The nodes that a constraint allows."""
        return self.fleet.admitted(where)

    def eligible(self, gang: Gang) -> tuple[str, ...]:
        """The nodes, by name, that at least one task of the gang may go to and that has the GPUs for it at best."""
        return self.fleet.eligible(gang)

    def _put(self, name: str, free: GpuSet, rest: Resources) -> list[str]:
        self.free[name], self._rest[name] = free, rest
        self.total += free.bit_count()
        names = self._alike.setdefault((self.nodes[name].machine, free, rest), [])
        names.append(name)
        return names


_CLOSED = Resources(-1, -1, -1)


def place(gang: Gang, room: Room) -> Placement | Shortage:
    """Return a placement of the whole gang in `room`, with ranks, or what it lacks.

    An elastic gang that does not fit whole gets as many workers as fit, not fewer than `gang.fewest`.
    """
    candidates = room.eligible(gang)
    usable = tuple(name for name in candidates if name not in gang.avoid) if gang.avoid else candidates
    for size in sizes(gang):
        tasks = shrunk(gang.tasks, size)
        for names in (usable, candidates) if usable != candidates else (candidates,):
            found = _search(gang, tasks, room, names)
            if found:
                return _ranked(found, room.nodes)
    return Shortage(shortage(gang, room, candidates))


def shortage(gang: Gang, room: Room, names: Sequence[str]) -> str:
    """Say in one sentence what the gang needs and what there is of it."""
    free = {name: room.free[name].bit_count() for name in names if room.free[name]}
    largest = max((task.gpus for task in gang.tasks), default=0)
    needs = f"needs {gang.gpus} GPUs"
    if len(gang.tasks) > 1:
        needs += f" ({len(gang.tasks)} pods of up to {largest})" if largest else f" ({len(gang.tasks)} pods)"
    if gang.required is not Level.CLUSTER:
        needs += f" in one {gang.required.name.lower()}"
        best = _best_domain(gang.required, free, room)
        has = f"at most {best[1]} are free in one ({best[0]})" if best else "none are free"
        return f"{needs}; {has}"
    total = sum(free.values())
    has = f"{total} free on {len(free)} of {len(names)} nodes that it may use"
    return f"{needs}; {has}{_obstacle(gang, largest, free)}" if free and total >= gang.gpus else f"{needs}; {has}"


def _obstacle(gang: Gang, largest: int, free: Mapping[str, int]) -> str:
    """Why enough GPUs are not enough."""
    most = max(free.values())
    if most < largest:
        return f", at most {most} on one node"
    pods = sum(task.gpus == largest for task in gang.tasks)
    room = sum(count // largest for count in free.values()) if largest else pods
    if room < pods:
        return f", in pieces that hold {room} of its {pods} pods of {largest}"
    return ", but not together with its CPU and memory"


def _best_domain(level: Level, free: Mapping[str, int], room: Room) -> tuple[str, int] | None:
    sums: dict[str, int] = {}
    for name, count in free.items():
        domain = room.nodes[name].domain(level)
        sums[domain] = sums.get(domain, 0) + count
    return max(sums.items(), key=lambda item: (item[1], item[0])) if sums else None


def sizes(gang: Gang) -> Iterable[int]:
    """The numbers of workers with which the gang may start, largest first."""
    workers = gang.asked if gang.asked is not None else sum(task.role == "worker" for task in gang.tasks)
    return range(workers, min(gang.fewest if gang.fewest is not None else workers, workers) - 1, -1)


def fewest_gpus(gang: Gang) -> int:
    """The GPUs of the smallest size in which the gang can start."""
    if gang.fewest is None:
        return gang.gpus
    return sum(task.gpus for task in gang.tasks if task.role != "worker" or task.index < gang.fewest)


def shrunk(tasks: tuple[Task, ...], workers: int) -> tuple[Task, ...]:
    """The tasks of an elastic gang with that many workers."""
    return tuple(task for task in tasks if task.role != "worker" or task.index < workers)


def _search(gang: Gang, tasks: tuple[Task, ...], room: Room, names: Sequence[str]) -> list[Assigned] | None:
    if sum(task.gpus for task in tasks) > room.total:
        return None
    start = gang.required if gang.spread else min(gang.preferred, gang.required)
    for level in range(start, gang.required + 1):
        found = _at_level(Level(level), gang, tasks, room, names)
        if found:
            return found
    return None


def _at_level(level: Level, gang: Gang, tasks: tuple[Task, ...], room: Room, names: Sequence[str]) -> list[Assigned] | None:
    """Fill the first domain of this level that holds all tasks: the fullest when packing, the emptiest when spreading."""
    if level is Level.NODE:
        return _on_best_node(gang, tasks, room, names)
    need = sum(task.gpus for task in tasks)
    some_without = any(not task.gpus for task in tasks)
    domains: dict[str, list[str]] = {}
    for name in names:
        if room.free[name] or some_without:
            domains.setdefault(room.nodes[name].domain(level), []).append(name)
    by_free = sorted(
        ((sum(room.free[n].bit_count() for n in members), key) for key, members in domains.items()), reverse=gang.spread
    )
    for free, key in by_free:
        found = _fill(gang, tasks, room, domains[key]) if free >= need else None
        if found:
            return found
    return None


def _on_best_node(gang: Gang, tasks: tuple[Task, ...], room: Room, names: Sequence[str]) -> list[Assigned] | None:
    """Put all tasks on one node: when packing, as `_merit` has it; when spreading, on the emptiest."""
    gpus, rest = sum(task.gpus for task in tasks), sum((task.rest for task in tasks), Resources())
    allowed = frozenset(names).intersection(*(room.admitted(where) for where in {task.where for task in tasks}))
    best: tuple[tuple[float, ...], str] | None = None
    for (machine, free, left), alike in room.states.items():
        if free.bit_count() < gpus or not left.covers(rest):
            continue
        name = next((name for name in alike if name in allowed), None)
        if name is not None:
            merit = _merit(gang, _Bin(machine, free, left, ()), gpus, whole=True)
            best = min(best, (merit, name)) if best else (merit, name)
    return list(_on_one_node(gang, _largest_first(tasks), best[1], room)) if best else None


def _largest_first(tasks: Iterable[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: (-task.gpus, _ROLE_ORDER.get(task.role, 9), task.index, task.name))


@dataclass(frozen=True, slots=True)
class _Bin:
    """What of a node decides how many tasks it takes. Nodes that are alike in it are tried once for all."""

    machine: MachineType
    free: GpuSet
    rest: Resources
    allowed: tuple[bool, ...]
    held: int = 0
    """Tasks of this gang that are on the node already: spreading keeps this even."""


def _fill(gang: Gang, tasks: tuple[Task, ...], room: Room, names: Sequence[str]) -> list[Assigned] | None:
    """Put every task on one of `names`, largest first, or return None."""
    waiting = _largest_first(tasks)
    kinds = tuple(dict.fromkeys(task.where for task in waiting))
    bins = _bins(kinds, room, names)
    on_node: dict[str, list[Task]] = {}
    while waiting:
        best = _next_bin(gang, waiting, kinds, bins)
        if best is None:
            return None
        chosen = _takes(best, waiting, kinds, 1 if gang.spread else len(waiting))
        name = heappop(bins[best])
        on_node.setdefault(name, []).extend(chosen)
        gone = set(chosen)
        waiting = [task for task in waiting if task not in gone]
        if gang.spread:
            heappush(bins.setdefault(_after(best, chosen), []), name)
    return [place for name, chosen in on_node.items() for place in _on_one_node(gang, chosen, name, room)]


def _bins(kinds: tuple[Constraint, ...], room: Room, names: Sequence[str]) -> dict[_Bin, list[str]]:
    allowed = [room.admitted(where) for where in kinds]
    bins: dict[_Bin, list[str]] = {}
    for name in sorted(names):  # a sorted list is a heap
        kind = _Bin(room.nodes[name].machine, room.free[name], room.rest(name), tuple(name in ok for ok in allowed))
        bins.setdefault(kind, []).append(name)
    return bins


def _next_bin(gang: Gang, waiting: list[Task], kinds: tuple[Constraint, ...], bins: Mapping[_Bin, list[str]]) -> _Bin | None:
    """The kind of node to use next.

    Packing: of those that take all that is left, the one with the fastest ring (for a sensitive gang), then the tightest;
    else the one that takes most. Spreading: the one with the fewest tasks of this gang, then the most free GPUs.
    """
    best: tuple[tuple[float, ...], str, _Bin] | None = None
    for kind, names in bins.items():
        chosen = _takes(kind, waiting, kinds, 1 if gang.spread else len(waiting)) if names else ()
        if not chosen:
            continue
        merit = _merit(gang, kind, sum(task.gpus for task in chosen), len(chosen) == len(waiting))
        if best is None or (merit, names[0]) < best[:2]:
            best = (merit, names[0], kind)
    return best[2] if best else None


def _merit(gang: Gang, kind: _Bin, gpus: int, whole: bool) -> tuple[float, ...]:
    """Less is better."""
    spare = kind.free.bit_count() - gpus
    if gang.spread:
        return (kind.held, -spare)
    if not whole:
        return (1.0, -gpus, spare)
    ring = kind.machine.ring(kind.machine.fastest(kind.free, gpus))
    return (0.0, -ring, spare) if gang.sensitive else (0.0, spare, ring)


def _takes(kind: _Bin, waiting: Sequence[Task], kinds: tuple[Constraint, ...], limit: int) -> tuple[Task, ...]:
    """The tasks, in order, that fit on such a node together; at most `limit`."""
    chosen: list[Task] = []
    left, rest = kind.free.bit_count(), kind.rest
    for task in waiting:
        if len(chosen) == limit:
            break
        if task.gpus <= left and rest.covers(task.rest) and kind.allowed[kinds.index(task.where)]:
            chosen.append(task)
            left -= task.gpus
            rest = rest - task.rest
    return tuple(chosen)


def _after(kind: _Bin, chosen: tuple[Task, ...]) -> _Bin:
    """The node once it has taken `chosen`; only the number of its free GPUs matters until its share is known."""
    free, rest = kind.free, kind.rest
    for task in chosen:
        rest = rest - task.rest
        for _ in range(task.gpus):
            free &= free - 1
    return replace(kind, free=free, rest=rest, held=kind.held + len(chosen))


def _on_one_node(gang: Gang, tasks: list[Task], name: str, room: Room) -> Iterable[Assigned]:
    """Choose the GPUs for a node's whole share, then give each task its part of it."""
    machine = room.nodes[name].machine
    choose = machine.fastest if gang.sensitive else machine.leftover
    share = choose(room.free[name], sum(task.gpus for task in tasks))
    for task in tasks:
        part = machine.fastest(share, task.gpus)
        share &= ~part
        yield Assigned(task, name, part)


def _ranked(found: list[Assigned], nodes: Mapping[str, Node]) -> Placement:
    """Number the tasks along the topology; pods of a role are alike, so their indices follow the same order."""

    def along(place: Assigned) -> tuple[int, str, str, str, int]:
        node = nodes[place.node]
        lowest = place.gpus & -place.gpus
        return (_ROLE_ORDER.get(place.task.role, 9), node.block, node.rack, node.name, lowest)

    ordered = sorted(found, key=along)
    alike: dict[tuple[object, ...], list[Task]] = {}
    for place in sorted(found, key=lambda place: (place.task.index, place.task.name)):
        alike.setdefault(_shape(place.task), []).append(place.task)
    return tuple(replace(place, task=alike[_shape(place.task)].pop(0), rank=rank) for rank, place in enumerate(ordered))


def _shape(task: Task) -> tuple[object, ...]:
    return (task.role, task.gpus, task.rest, task.where)


def describe(placement: Placement) -> str:
    """ "8 GPUs on 2 nodes (n1, n2)"."""
    nodes = sorted({a.node for a in placement})
    gpus = sum(a.gpus.bit_count() for a in placement)
    names = ", ".join(nodes[:4]) + (", ..." if len(nodes) > 4 else "")
    return f"{gpus} GPU{'s' if gpus != 1 else ''} on {len(nodes)} node{'s' if len(nodes) != 1 else ''} ({names})"
