"""One gang's search for a place: levels from near to far, domains of a level, nodes of a domain, GPUs of a node.

What is better is told in three places: `_domains` between domains, `_merit` between nodes, `_slowness` between placements.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush
from itertools import accumulate, chain, islice

from muster.scheduling.placing.fragmentation import Fragmentation, Free
from muster.scheduling.placing.room import Room, State, shared
from muster.scheduling.profile import Shape
from muster.scheduling.snapshot import WHOLE, Assigned, Gang, Level, Resources, Task
from muster.scheduling.speed.occupancy import shape
from muster.scheduling.topology.eligibility import Constraint
from muster.scheduling.topology.links import ALONE, GpuSet

Rate = Callable[[Gang, Shape], float]
"""How fast a gang is expected to train in a shape; only the order of the answers counts."""
_FEW = 8
"""Domains that are compared with each other."""
ROLE_ORDER = {"chief": 0, "worker": 1, "ps": 2, "evaluator": 3}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What of a node counts for a search beside its state."""

    model: str = ""
    card: float = ALONE
    admits: int = 0
    """Which of the tasks to come it admits."""


@dataclass(frozen=True, slots=True)
class _Bin:
    """What of a node decides how many tasks it takes, and how well. Nodes that are alike in it are tried once for all."""

    state: State
    kind: _Kind
    allowed: tuple[bool, ...] = ()
    held: int = 0
    """Tasks of this gang that are on the node already: spreading keeps this even."""


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a layout keeps to on each node: no more tasks and GPUs, and hops and network cards that are faster than these."""

    tasks: int
    gpus: int
    hop: float = 0.0
    card: float = 0.0


class Search:
    """Where to put tasks of a gang, as `place` has it."""

    def __init__(self, gang: Gang, room: Room, fragmentation: Fragmentation | None, rate: Rate | None) -> None:
        self._gang, self._room, self._fragmentation = gang, room, fragmentation
        self._sensitive = gang.sensitive and not gang.spread and all(task.share == WHOLE for task in gang.tasks)
        self._rate = rate if self._sensitive else None
        alike = room.fleet.one_kind if self._rate else ("", ALONE)
        self._one_kind = alike is not None and (fragmentation is None or fragmentation.uniform)
        self._usual = _Kind(*(alike or ("", ALONE)), fragmentation.everything if fragmentation else 0)

    def run(self, tasks: tuple[Task, ...], names: Sequence[str]) -> Sequence[Assigned] | None:
        """Return a node and GPUs for every task, on nodes of `names` (sorted), or None."""
        if _whole(tasks) > self._room.total:
            return None
        gang, ordered = self._gang, _largest_first(tasks)
        for level in range(gang.required if gang.spread else min(gang.preferred, gang.required), gang.required + 1):
            found = self._at_level(Level(level), ordered, names)
            if found or len(tasks) == 1:  # a single task fits on one node or nowhere
                return found
        return None

    # Levels and domains

    def _at_level(self, level: Level, tasks: Sequence[Task], names: Sequence[str]) -> Sequence[Assigned] | None:
        """Fill the first domain of this level that holds all tasks; where rates are known, the fastest of the first few."""
        if level is Level.NODE:
            return self._on_best_node(tasks, names)
        domains = self._domains(level, tasks, names)
        holding = (layouts for members in domains if (layouts := self._layouts(tasks, members)))
        compared = islice(holding, _FEW if self._sensitive else 1)
        return min(chain.from_iterable(compared), key=self._slowness, default=None)

    def _domains(self, level: Level, tasks: Sequence[Task], names: Sequence[str]) -> Iterator[list[str]]:
        """The nodes of each domain that has enough free GPUs: the emptiest first when spreading, else the fullest.

        For a sensitive gang, those first in which it may need the fewest nodes.
        """
        room, some_without = self._room, any(not task.gpus for task in tasks)
        least = min((task.gpus for task in tasks if task.share == WHOLE), default=0) if not some_without else 0
        of = room.fleet.domains(level)
        domains: dict[str, list[str]] = {}
        for name in names:
            if room.free[name].bit_count() >= least and (room.free[name] or some_without or name in room.parts):
                domains.setdefault(of[name], []).append(name)
        need = _whole(tasks)
        order: list[tuple[int, int, str]] = []
        for key, members in domains.items():
            counts = sorted((room.free[name].bit_count() for name in members), reverse=True)
            total = sum(counts)
            if total >= need:
                fewest = bisect_left(list(accumulate(counts)), need)
                order.append((fewest, total, key) if self._sensitive else (total, fewest, key))
        order.sort(reverse=self._gang.spread)
        return (domains[key] for _, _, key in order)

    def _layouts(self, tasks: Sequence[Task], members: Sequence[str]) -> list[Sequence[Assigned]]:
        """The placement on the fewest nodes, then again and again the best without the fullest node, slowest hop or card."""
        limits = _Limits(len(tasks), sum(task.gpus for task in tasks))
        found = self._fill(tasks, members, limits)
        layouts: list[Sequence[Assigned]] = []
        while found:
            layouts.append(found)
            if self._gang.spread or (self._rate is None and len(_by_node(found)) > len(_by_node(layouts[0]))):
                break
            steps = [(self._fill(tasks, members, tighter), tighter) for tighter in self._tighter(limits, found)]
            able = [(self._slowness(step), step, tighter) for step, tighter in steps if step]
            _, found, limits = min(able, key=lambda step: step[0], default=((), None, limits))
        return layouts

    def _tighter(self, limits: _Limits, found: Sequence[Assigned]) -> Iterator[_Limits]:
        """Limits that a layout breaks."""
        its = shape(tuple(found), self._room.nodes)
        fullest = max(_whole(tasks) for tasks in _by_node(found).values())
        if fullest and (not self._sensitive or self._rate):
            yield replace(limits, gpus=fullest - 1)
        if self._sensitive:
            yield replace(limits, hop=its.gbps)
        if self._rate:
            yield replace(limits, card=min(self._room.nodes[place.node].nic_gbps for place in found))

    def _slowness(self, found: Sequence[Assigned]) -> tuple[float, ...]:
        """Less is better: as `_merit` has it, of a whole placement."""
        its = shape(tuple(found), self._room.nodes)
        if self._rate:
            return (-self._rate(self._gang, its), len(its.counts))
        if self._sensitive:
            return (len(its.counts), -its.gbps)
        states = [(self._room.state(name), self._kind(name).admits, chosen) for name, chosen in _by_node(found).items()]
        if self._fragmentation:
            return (len(states), sum(self._fragmentation.growth(*one) for one in states))
        return (len(states), sum(state.free.bit_count() - _whole(chosen) for state, _, chosen in states))

    # Nodes

    def _on_best_node(self, tasks: Sequence[Task], names: Sequence[str]) -> Sequence[Assigned] | None:
        """Put all tasks on one node: when packing, as `_merit` has it; when spreading, on the emptiest."""
        gpus, rest = _whole(tasks), sum((task.rest for task in tasks), Resources())
        shares = [task.share for task in tasks if task.share < WHOLE]
        able = [
            (state, alike)
            for state, alike in self._room.states.items()
            if state.free.bit_count() >= gpus and (not shares or _holds(state, gpus, shares)) and state.rest.covers(rest)
        ]
        if not able:
            return None
        there = frozenset(chain.from_iterable(alike for _, alike in able))
        allowed = there.intersection(names, *(self._room.admitted(where) for where in {task.where for task in tasks}))
        best: tuple[tuple[float, ...], str] | None = None
        for state, alike in able:
            for name, kind in self._by_kind(alike, allowed):
                merit = self._merit(_Bin(state, kind), tasks, whole=True)
                best = min(best, (merit, name)) if best else (merit, name)
        return list(self._on_one_node(tasks, best[1])) if best else None

    def _by_kind(self, alike: Sequence[str], allowed: frozenset[str]) -> Sequence[tuple[str, _Kind]]:
        """The first node of each kind, by name."""
        if self._one_kind:
            name = next((name for name in alike if name in allowed), None)
            return [] if name is None else [(name, self._usual)]
        first: dict[_Kind, str] = {}
        for name in alike:
            if name in allowed:
                first.setdefault(self._kind(name), name)
        return [(name, kind) for kind, name in first.items()]

    def _kind(self, name: str) -> _Kind:
        if self._one_kind:
            return self._usual
        node = self._room.nodes[name]
        model, card = (node.model, node.nic_gbps) if self._rate else ("", ALONE)
        return _Kind(model, card, self._fragmentation.admits(name) if self._fragmentation else 0)

    def _fill(self, tasks: Sequence[Task], names: Sequence[str], limits: _Limits) -> Sequence[Assigned] | None:
        """Put every task on one of `names`, largest first and within limits, or return None."""
        waiting = list(tasks)
        kinds = tuple(dict.fromkeys(task.where for task in waiting))
        takes = partial(_takes, kinds=kinds, limits=replace(limits, tasks=1) if self._gang.spread else limits)
        bins = self._bins(kinds, names)
        on_node: dict[str, list[Task]] = {}
        while waiting:
            best = self._next_bin(waiting, bins, takes)
            if best is None:
                return None
            chosen = takes(best, waiting)
            name = heappop(bins[best])
            on_node.setdefault(name, []).extend(chosen)
            gone = set(chosen)
            waiting = [task for task in waiting if task not in gone]
            if self._gang.spread:
                heappush(bins.setdefault(_after(best, chosen), []), name)
        return [place for name, chosen in on_node.items() for place in self._on_one_node(chosen, name)]

    def _bins(self, kinds: tuple[Constraint, ...], names: Sequence[str]) -> dict[_Bin, list[str]]:
        allowed = [self._room.admitted(where) for where in kinds]
        bins: dict[_Bin, list[str]] = {}
        for name in names:  # sorted, and a sorted list is a heap
            one = _Bin(self._room.state(name), self._kind(name), tuple(name in ok for ok in allowed))
            bins.setdefault(one, []).append(name)
        return bins

    def _next_bin(self, waiting: list[Task], bins: Mapping[_Bin, list[str]], takes: Takes) -> _Bin | None:
        """The kind of node to use next: of those that take all that is left the best, else the one that takes most.

        Spreading: the one with the fewest tasks of this gang, then the most free GPUs.
        """
        best: tuple[tuple[float, ...], str, _Bin] | None = None
        for one, names in bins.items():
            chosen = takes(one, waiting) if names else ()
            if not chosen:
                continue
            merit = self._merit(one, chosen, whole=len(chosen) == len(waiting))
            if best is None or (merit, names[0]) < best[:2]:
                best = (merit, names[0], one)
        return best[2] if best else None

    def _merit(self, one: _Bin, tasks: Sequence[Task], *, whole: bool) -> tuple[float, ...]:
        """Less is better."""
        state, gpus = one.state, _whole(tasks)
        spare = state.free.bit_count() - gpus
        if self._gang.spread:
            return (one.held, -spare)
        # what comes is known: among equals the first by name; nodes filled in one order leave others of every kind whole
        waste = self._fragmentation.growth(state, one.kind.admits, tasks) if self._fragmentation else spare
        if not whole:
            return (1.0, -gpus, waste)
        ring = state.machine.ring(state.machine.fastest(state.free, gpus))
        if not self._sensitive:
            return (0.0, waste, spare, ring)
        slow = -self._rate(self._gang, Shape(one.kind.model, (gpus,), ring)) if self._rate else -ring
        return (0.0, slow, waste, spare)

    # GPUs of a node

    def _on_one_node(self, tasks: Sequence[Task], name: str) -> Iterator[Assigned]:
        """Choose the GPUs for a node's whole share, then give each task its part of it; parts of GPUs come last."""
        machine, free, rest, parts = self._room.state(name)
        lone = sum(task.share < WHOLE for task in tasks) == 1
        share = (machine.fastest if self._gang.sensitive else machine.leftover)(free, _whole(tasks))
        free &= ~share
        for task in tasks:
            if task.share == WHOLE:
                part = machine.fastest(share, task.gpus)
                share &= ~part
            else:
                part = self._part(task, State(machine, free, rest, parts), self._kind(name), lone)
                free, parts = shared(part, free, parts, -task.share)
            rest = rest - task.rest
            yield Assigned(task, name, part)

    def _part(self, task: Task, state: State, kind: _Kind, lone: bool) -> GpuSet:
        """The GPU for a part: the fullest on which it fits, or the one on which it leaves least unused."""
        choices = _choices(state, task.share)
        return choices[self._fragmentation.choice(Free.of(state, kind.admits), task) if self._fragmentation and lone else 0]


Takes = Callable[[_Bin, Sequence[Task]], tuple[Task, ...]]


def _whole(tasks: Iterable[Task]) -> int:
    return sum(task.gpus for task in tasks if task.share == WHOLE)


def _by_node(found: Iterable[Assigned]) -> dict[str, list[Task]]:
    on_node: dict[str, list[Task]] = {}
    for place in found:
        on_node.setdefault(place.node, []).append(place.task)
    return on_node


def _largest_first(tasks: Iterable[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: (-task.gpus * task.share, ROLE_ORDER.get(task.role, 9), task.index, task.name))


def _takes(one: _Bin, waiting: Sequence[Task], kinds: tuple[Constraint, ...], limits: _Limits) -> tuple[Task, ...]:
    """The tasks, in order, that fit on such a node together, within limits."""
    chosen: list[Task] = []
    if one.kind.card <= limits.card:
        return ()
    left, rest, parts = min(one.state.free.bit_count(), limits.gpus), one.state.rest, [part for _, part in one.state.parts]
    for task in waiting:
        if len(chosen) == limits.tasks:
            break
        if not (rest.covers(task.rest) and one.allowed[kinds.index(task.where)]):
            continue
        if task.share < WHOLE and not _cut(parts, task.share):
            if not left:
                continue
            left -= 1
            parts.append(WHOLE - task.share)
        elif task.share == WHOLE:
            if task.gpus > left:
                continue
            left -= task.gpus
        chosen.append(task)
        rest = rest - task.rest
    machine, free = one.state.machine, one.state.free
    while chosen and limits.hop and machine.ring(machine.fastest(free, _whole(chosen))) <= limits.hop:
        chosen.pop()
    return tuple(chosen)


def _choices(state: State, share: int) -> list[GpuSet]:
    """The GPUs of which a share is free, one for each amount that is: the fullest first, one of which all is free last."""
    first: dict[int, GpuSet] = {}
    for part, gpu in sorted((part, gpu) for gpu, part in state.parts if part >= share):
        first.setdefault(part, 1 << gpu)
    return [*first.values(), *([state.machine.leftover(state.free, 1)] if state.free else [])]


def _holds(state: State, gpus: int, shares: Sequence[int]) -> bool:
    """Whether parts of GPUs fit on a node beside so many whole ones, each on the fullest GPU on which it fits."""
    left = state.free.bit_count() - gpus
    if left >= len(shares):
        return True
    parts = [part for _, part in state.parts]
    for share in shares:
        if not _cut(parts, share):
            left -= 1
            parts.append(WHOLE - share)
    return left >= 0


def _cut(parts: list[int], share: int) -> bool:
    """Take a share from the smallest part that has it, if there is one."""
    smallest = min((part for part in parts if part >= share), default=None)
    if smallest is None:
        return False
    parts.remove(smallest)
    parts.append(smallest - share)
    return True


def _after(one: _Bin, chosen: Sequence[Task]) -> _Bin:
    """The node once it has taken `chosen`; only how much of its GPUs is free matters until its share is known."""
    machine, free, rest, parts = one.state
    for task in chosen:
        rest = rest - task.rest
        if task.share < WHOLE:
            free, parts = shared(_choices(State(machine, free, rest, parts), task.share)[0], free, parts, -task.share)
        for _ in range(task.gpus if task.share == WHOLE else 0):
            free &= free - 1
    return replace(one, state=State(machine, free, rest, parts), held=one.held + len(chosen))
