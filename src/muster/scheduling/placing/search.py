"""One gang's search for a place: levels from near to far, domains of a level, nodes of a domain, GPUs of a node.

What is better is told in three places: `_domains` between domains, `_merit` between nodes, `_slowness` between layouts. A
layout says how many tasks of each batch go to which node; which GPUs and which tasks these are follows from it in the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from heapq import heappop, heappush
from itertools import accumulate, chain, islice
from operator import itemgetter, sub

from muster.scheduling.gang import Assigned, Gang, Placement, Task
from muster.scheduling.placing.batches import ALL, Batches, Bin, Counts, Limits, NodeKey, after, choices, holds, taken
from muster.scheduling.placing.fragmentation import Fragmentation, Free
from muster.scheduling.placing.free_capacity import FreeCapacity, State, shared
from muster.scheduling.profile import Shape
from muster.scheduling.resources import WHOLE
from muster.scheduling.speed.shapes import shape_of
from muster.scheduling.topology.links import UNLIMITED, GpuSet
from muster.scheduling.topology.node import Level

Rate = Callable[[Gang, Shape], float]
"""How fast a gang is expected to train in a shape; only the order of the answers counts."""
_FEW = 8
"""Domains that are compared with each other."""
_LEVELS = tuple(Level)

Layout = dict[str, Counts]
"""How many tasks of each batch go to a node, by node."""
_Judged = tuple[tuple[float, ...], Layout]
"""A layout and its slowness."""
_Spot = tuple[int, str, str, str, GpuSet, int, GpuSet]
"""Where a task goes, by what ranks follow: role, block, rack, node, its first GPU; then its batch, and its GPUs."""


class Search:
    """Where to put tasks of a gang, as `place` has it, but not onto the nodes to `avoid`."""

    def __init__(
        self,
        gang: Gang,
        tasks: Sequence[Task],
        capacity: FreeCapacity,
        *,
        avoid: frozenset[str] = frozenset(),
        fragmentation: Fragmentation | None = None,
        rate: Rate | None = None,
    ) -> None:
        self._gang, self._room, self._avoid, self._fragmentation = gang, capacity, avoid, fragmentation
        self._batches = Batches(tasks)
        self._gpus = self._batches.whole(self._batches.counts)
        self._spread, self._joins = gang.spread, gang.sensitive  # who spreads, or takes parts, joins its GPUs on a node as well
        self._sensitive = self._joins and not self._spread and not self._batches.shares
        self._rate = rate if self._sensitive else None
        alike = capacity.fleet.one_kind if self._rate else ("", UNLIMITED)
        self._one_kind = alike is not None and (fragmentation is None or fragmentation.uniform)
        self._usual = NodeKey(*(alike or ("", UNLIMITED)), fragmentation.everything if fragmentation else 0)

    def run(self) -> Placement | None:
        """Return a node and GPUs for every task, or None."""
        gang, tasks = self._gang, sum(self._batches.counts)
        if self._gpus > self._room.total or not tasks:
            return None
        nearest = gang.required if self._spread else min(gang.preferred, gang.required)
        for level in _LEVELS[nearest : gang.required + 1]:
            found = self._on_best_node() if level is Level.NODE else self._in_best_domain(level)
            if found:
                return self._placed(found)
            if tasks == 1:  # a single task fits on one node or nowhere
                return None
        return None

    # Levels and domains

    def _in_best_domain(self, level: Level) -> Layout | None:
        """Fill the first domain of this level that holds all tasks; where rates are known, the fastest of the first few."""
        holding = (layouts for members in self._domains(level) if (layouts := self._layouts(members)))
        compared = islice(holding, _FEW if self._sensitive else 1)
        best: _Judged | None = min(chain.from_iterable(compared), key=itemgetter(0), default=None)
        return best[1] if best else None

    @cached_property
    def _open(self) -> list[tuple[str, int]]:
        """The nodes, by name, that have room for some task, with their free GPUs."""
        capacity, asks = self._room, self._batches.asks
        without = any(not ask.gpus for ask in asks)
        least = 0 if without else min((ask.gpus for ask in asks if ask.share == WHOLE), default=0)
        counts = [(name, capacity.free[name].bit_count()) for name in capacity.eligible(asks) if name not in self._avoid]
        return [(name, free) for name, free in counts if free >= least and (free or without or name in capacity.parts)]

    def _domains(self, level: Level) -> Iterator[list[str]]:
        """The nodes of each domain that has enough free GPUs: the emptiest first when spreading, else the fullest.

        For a sensitive gang, those first in which it may need the fewest nodes.
        """
        of = self._room.fleet.domains(level)
        domains: dict[str, list[tuple[str, int]]] = {}
        for one in self._open:
            domains.setdefault(of[one[0]], []).append(one)
        order: list[tuple[int, int, str]] = []
        for key, members in domains.items():
            counts = sorted([free for _, free in members], reverse=True)
            total = sum(counts)
            if total >= self._gpus:
                fewest = bisect_left(list(accumulate(counts)), self._gpus)
                order.append((fewest, total, key) if self._sensitive else (total, fewest, key))
        order.sort(reverse=self._spread)
        return ([name for name, _ in domains[key]] for _, _, key in order)

    def _layouts(self, members: Sequence[str]) -> list[_Judged]:
        """The layout on the fewest nodes, then again and again the best without the fullest node, slowest hop or card."""
        bins = self._bins(members)
        limits = Limits(sum(self._batches.counts), sum(task.gpus for batch in self._batches.all for task in batch.tasks))
        found = self._fill(bins, limits)
        judged = [(self._slowness(found), found)] if found else []
        while found and not self._spread and (self._rate or len(found) <= len(judged[0][1])):
            steps = [(self._fill(bins, tighter), tighter) for tighter in self._tighter(limits, found)]
            able = [(self._slowness(step), step, tighter) for step, tighter in steps if step]
            if not able:
                break
            slowness, found, limits = min(able, key=itemgetter(0))
            judged.append((slowness, found))
        return judged

    def _tighter(self, limits: Limits, found: Layout) -> Iterator[Limits]:
        """Limits that a layout breaks."""
        fullest = max(map(self._batches.whole, found.values()))
        largest = max(ask.gpus for ask in self._batches.asks)
        if fullest > largest and (not self._sensitive or self._rate):
            yield limits._replace(gpus=fullest - 1)
        hop = self._slowest_hop(found) if self._sensitive else UNLIMITED
        if hop < UNLIMITED:
            yield limits._replace(hop=hop)
        if self._rate:
            yield limits._replace(card=min(self._room.nodes[name].nic_gbps for name in found))

    def _slowness(self, found: Layout) -> tuple[float, ...]:
        """Less is better: as `_merit` has it, of a whole layout."""
        if self._rate:
            its = shape_of(
                {name: gpus for name, counts in found.items() if (gpus := self._share(name, counts))}, self._room.nodes
            )
            return (-self._rate(self._gang, its), len(its.counts))
        if self._sensitive:
            return (sum(self._batches.whole(counts) > 0 for counts in found.values()), -self._slowest_hop(found))
        if self._fragmentation:
            grows, load = self._fragmentation.growth, self._batches.load
            grown = (grows(self._room.state(name), self._kind(name).admits, load(found[name])) for name in found)
            return (len(found), sum(grown))
        return (len(found), sum(self._room.free[name].bit_count() - self._batches.whole(found[name]) for name in found))

    def _slowest_hop(self, found: Layout) -> float:
        """GB/s of the slowest ring inside a node."""
        return min(self._room.nodes[name].machine.ring(self._share(name, counts)) for name, counts in found.items())

    # Nodes

    def _on_best_node(self) -> Layout | None:
        """Put all tasks on one node: when packing, as `_merit` has it; when spreading, on the emptiest."""
        batches, gpus = self._batches, self._gpus
        shares, rest, allowed = batches.shares, batches.resources, self._allowed
        best: tuple[tuple[float, ...], str] | None = None
        for state, alike in self._room.states.items():
            if state.free.bit_count() < gpus or not state.resources.covers(rest) or (shares and not holds(state, gpus, shares)):
                continue
            for name, kind in self._by_kind(alike, allowed):
                merit = self._merit(state, kind, batches.counts, gpus, whole=True)
                if best is None or (merit, name) < best:
                    best = (merit, name)
        return {best[1]: batches.counts} if best else None

    @property
    def _allowed(self) -> frozenset[str]:
        """The nodes to which all tasks may go."""
        first, *others = {ask.where for ask in self._batches.asks}
        allowed = self._room.admitted(first)
        return allowed.intersection(*map(self._room.admitted, others)) if others else allowed

    def _by_kind(self, alike: Sequence[str], allowed: frozenset[str]) -> Iterable[tuple[str, NodeKey]]:
        """The first node of each kind, by name."""
        first: dict[NodeKey, str] = {}
        for name in alike:
            if name in allowed and name not in self._avoid:
                if self._one_kind:
                    return ((name, self._usual),)
                first.setdefault(self._kind(name), name)
        return ((name, kind) for kind, name in first.items())

    def _kind(self, name: str) -> NodeKey:
        if self._one_kind:
            return self._usual
        node = self._room.nodes[name]
        model, card = (node.model, node.nic_gbps) if self._rate else ("", UNLIMITED)
        return NodeKey(model, card, self._fragmentation.admits(name) if self._fragmentation else 0)

    def _fill(self, bins: Mapping[Bin, Sequence[str]], limits: Limits) -> Layout | None:
        """Put every task on one of the nodes, largest first and within limits, or return None."""
        if _most(bins, limits) < self._gpus:
            return None
        limits = limits._replace(tasks=1) if self._spread else limits
        left = {one: list(names) for one, names in bins.items()}
        waiting = self._batches.counts
        layout: Layout = {}
        while any(waiting):
            best = self._next_bin(waiting, left, limits)
            if best is None:
                return None
            one, chosen = best
            name = heappop(left[one])
            layout[name] = _sum(layout[name], chosen) if name in layout else chosen
            waiting = tuple(map(sub, waiting, chosen))
            if not left[one]:
                del left[one]
            if self._spread:
                heappush(left.setdefault(after(one, self._batches, chosen), []), name)
        return layout

    def _bins(self, names: Sequence[str]) -> Mapping[Bin, Sequence[str]]:
        """The nodes that are alike, by name."""
        wheres = [self._room.admitted(ask.where) for ask in self._batches.asks]
        alike = all(where is wheres[0] for where in wheres)  # then each of the nodes admits all tasks
        bins: dict[Bin, list[str]] = {}
        for name in names:  # sorted, and a sorted list is a heap
            allowed = ALL if alike else sum(1 << number for number, where in enumerate(wheres) if name in where)
            bins.setdefault(Bin(self._room.state(name), self._kind(name), allowed), []).append(name)
        return bins

    def _next_bin(self, waiting: Counts, bins: Mapping[Bin, Sequence[str]], limits: Limits) -> tuple[Bin, Counts] | None:
        """The kind of node to use next, and what it takes: of those that take all that is left the best, else of most.

        Spreading: the one with the fewest tasks of this gang, then the most free GPUs.
        """
        best: tuple[tuple[float, ...], str] | None = None
        chosen: tuple[Bin, Counts] | None = None
        for one, names in bins.items():
            counts = taken(one, self._batches, waiting, limits)
            if counts:
                merit = self._merit(one.state, one.kind, counts, self._batches.whole(counts), whole=counts == waiting)
                merit = (one.held, *merit) if self._spread else merit
                if best is None or (merit, names[0]) < best:
                    best, chosen = (merit, names[0]), (one, counts)
        return chosen

    def _merit(self, state: State, kind: NodeKey, counts: Counts, gpus: int, *, whole: bool) -> tuple[float, ...]:
        """Less is better."""
        spare = state.free.bit_count() - gpus
        if self._spread:
            return (-spare,)
        # what comes is known: among equals the first by name; nodes filled in one order leave others of every kind whole
        waste = self._fragmentation.growth(state, kind.admits, self._batches.load(counts)) if self._fragmentation else spare
        if not whole:
            return (1.0, -gpus, waste)
        ring = state.machine.speed(state.free, gpus)
        if not self._sensitive:
            return (0.0, waste, spare, ring)
        slow = -self._rate(self._gang, Shape(kind.model, (gpus,), ring)) if self._rate else -ring
        return (0.0, slow, waste, spare)

    # GPUs of a node

    def _placed(self, layout: Layout) -> Placement:
        """Choose everybody's GPUs, and number the tasks along the topology, those of a batch by index."""
        spots = sorted([spot for name, counts in layout.items() for spot in self._spots(name, counts)])
        tasks = [iter(batch.tasks) for batch in self._batches.all]
        return tuple([Assigned(next(tasks[its]), name, gpus, rank) for rank, (*_, name, _, its, gpus) in enumerate(spots)])

    def _share(self, name: str, counts: Counts) -> GpuSet:
        """The whole GPUs that so many tasks get of a node."""
        machine, free = self._room.nodes[name].machine, self._room.free[name]
        return (machine.fastest if self._joins else machine.leftover)(free, self._batches.whole(counts))

    def _spots(self, name: str, counts: Counts) -> Iterator[_Spot]:
        """Give each task its part of a node's share."""
        node, share = self._room.nodes[name], self._share(name, counts)
        pieces = self._pieces(name, counts, share)
        for its, (ask, role, _) in enumerate(self._batches.all):
            for _ in range(counts[its]):
                gpus = node.machine.fastest(share, ask.gpus) if ask.share == WHOLE else next(pieces)
                share &= ~gpus
                yield (role, node.block, node.rack, name, gpus & -gpus, its, gpus)

    def _pieces(self, name: str, counts: Counts, share: GpuSet) -> Iterator[GpuSet]:
        """The GPUs of tasks that take a part of one, of those that whole ones leave: the fullest on which it fits.

        For a lone one that on which it leaves least unused.
        """
        machine, free, rest, parts = self._room.state(name)
        free &= ~share
        lone = self._fragmentation if len(self._batches.shares) == 1 else None
        for ask, number in self._batches.load(counts):
            for _ in range(number if ask.share < WHOLE else 0):
                state = State(machine, free, rest, parts)
                choice = lone.choice(Free.of(state, self._kind(name).admits), ask) if lone else 0
                gpus = choices(state, ask.share)[choice]
                yield gpus
                free, parts = shared(gpus, free, parts, -ask.share)
            rest = rest - ask.resources.times(number)


def _most(bins: Mapping[Bin, Sequence[str]], limits: Limits) -> int:
    """The GPUs that these nodes have at most, within limits."""
    able = [(one.state.free.bit_count(), len(names)) for one, names in bins.items() if one.kind.card > limits.card]
    return sum([min(free, limits.gpus) * number for free, number in able])


def _sum(counts: Counts, more: Counts) -> Counts:
    return tuple(map(sum, zip(counts, more, strict=True)))
